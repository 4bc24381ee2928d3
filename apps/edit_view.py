"""What the edit page shows of a result, as plain values: shares, traces, texts, the change itself.

Nothing here touches Streamlit; every number comes from the result or the store.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

import loaded
import mechlab as ml
import runs
from edit_request import OWN, FactEditRequest
from pair_request import model_fields_of
from request import Request

__all__ = [
    "Share",
    "change_facts",
    "delta_file",
    "partial_views",
    "probabilities",
    "request_of",
    "shares",
    "short",
    "statistics_state",
    "texts_of",
    "trace_pair",
    "trace_problem",
    "wrong_baseline",
]

KINDS = {
    "rewrite": "the edited prompt",
    "paraphrase": "paraphrases",
    "neighbourhood": "neighbours, kept",
    "other_relations": "other relations, kept",
    "languages": "other languages",
    "two_hop": "two-hop consequences",
}
"""Kinds of prompts in words; `kept` means that the old object is right."""

_Z = 1.959964
_NOT_FIELDS = ("new_object", "layer")
"""Options whose namesakes among the fields mean something else, or are filled otherwise."""


@dataclass(frozen=True)
class Share:
    """How often the right object came out after prompts of one kind."""

    kind: str
    count: int
    before: tuple[float, float, float]
    """Share and both ends of its 95 % interval."""
    after: tuple[float, float, float]

    @property
    def name(self) -> str:
        """The kind in words."""
        return KINDS[self.kind]

    @property
    def warns(self) -> bool:
        """Whether something that should have stayed did not."""
        return "kept" in self.name and self.after[0] < self.before[0] - 0.1


def shares(story: Any, case: int = 0) -> list[Share]:
    """Return the successes by kind of prompt, with Wilson intervals over the prompts."""
    success = story["success"].isel(case=case)
    found = []
    for kind in KINDS:
        before, after = (success.sel(stage=s, prompt_kind=kind).values for s in ("before", "after"))
        there = ~np.isnan(before) & ~np.isnan(after)
        if (count := int(there.sum())) > 0:
            ends = [wilson(float(values[there].sum()), count) for values in (before, after)]
            found.append(Share(kind, count, ends[0], ends[1]))
    return found


def wilson(hits: float, count: int) -> tuple[float, float, float]:
    """Return a share and its 95 % interval (Wilson 1927): it has a width at 0 and 1 too."""
    share = hits / count
    wide = 1 + _Z**2 / count
    middle = (share + _Z**2 / (2 * count)) / wide
    half = _Z / wide * math.sqrt(share * (1 - share) / count + _Z**2 / (4 * count**2))
    return share, max(min(middle - half, share), 0.0), min(max(middle + half, share), 1.0)


def probabilities(story: Any, case: int = 0) -> list[tuple[str, float, float]]:
    """Return (object, before, after) after the edited prompt, the new object first."""
    at = story["nll"].isel(case=case, prompt=0).sel(prompt_kind="rewrite")
    found = []
    for target, name in (("target", "request_target"), ("target_true", "request_target_true")):
        before, after = (
            math.exp(-float(at.sel(stage=stage, target=target))) for stage in ("before", "after")
        )
        if not math.isnan(before):
            found.append((str(story[name].values[case]), before, after))
    return found


def trace_pair(story: Any, case: int = 0) -> tuple[list[str], list[Any], list[Any]]:
    """Return the sites, and the grids of both traces, before and after, one per site."""
    grids = [_trace(story, case, stage) for stage in ("before", "after")]
    return [str(site) for site in story["site"].values], grids[0], grids[1]


def _trace(story: Any, case: int, stage: str) -> list[Any]:
    effect = story["effect"].isel(case=case).sel(stage=stage)
    tokens = [str(token) for token in story["token"].isel(case=case).values]
    effect = effect.isel(pos=[n for n, token in enumerate(tokens) if token])
    kept = effect.drop_vars([name for name in effect.coords if name in ("stage", "case")])
    scored = ml.plots.show_token(str(story["scored_token"].isel(case=case).sel(stage=stage).item()))
    views = ml.plots.grid_views(kept.rename("indirect_effect").assign_attrs(story.attrs))
    options = _options(story)
    note = f"noise {options.get('noise_scale', 3.0):g}σ, seed {options.get('seed', 0)}"
    return [
        replace(
            view, sign=f"+ = restoring it brings {scored} back", note=note,
            n=int(options.get("samples", 0)) or None, n_unit="noise samples",
        )
        for view in views
    ]  # fmt: skip


def trace_problem(story: Any, case: int = 0) -> str:
    """Say why the trace before says little; empty when it does not."""
    clean = float(story["clean_probability"].isel(case=case).sel(stage="before"))
    if clean >= 0.1:
        return ""
    said = ml.plots.show_token(str(story["scored_token"].isel(case=case).values[0]))
    return f"the unedited model gives {said} only p = {clean:.3f}: its trace says little"


def wrong_baseline(story: Any) -> str:
    """Say why there was nothing to edit; empty when there was."""
    if story.sizes["case"] > 1 or float(story["efficacy_before"].values[0]) < 1:
        return ""
    new = str(story["request_target"].values[0])
    return f"the unedited model says {new!r} already, so there is nothing to edit"


def texts_of(story: Any, case: int = 0) -> list[tuple[str, str]]:
    """Return (before, after) of every generated text."""
    at = story["generation"].isel(case=case)
    pairs = zip(at.sel(stage="before").values, at.sel(stage="after").values, strict=True)
    return [(str(a), str(b)) for a, b in pairs if str(a) or str(b)]


def change_facts(story: Any, case: int = 0) -> dict[str, str]:
    """Return what the change of the weights is, name by name."""
    layer = int(story.attrs["chosen_layer"])
    at = story.isel(case=case).sel(layer=layer)
    return {
        "layer": f"{layer}, {story.attrs.get('edit_site', '')}",
        "rank": "1",
        "‖Δ‖": f"{float(at['norm']):.3g}",
        "of the weight's norm": f"{float(at['relative_norm']):.1%}",
        "division factor": f"{float(at['division_factor']):.3g}",
        "of the mean key's": f"{float(at['division_ratio']):.3g}",
        "‖v* − v₀‖ / ‖v₀‖": f"{float(at['value_ratio']):.3g}",
        "p optimised → reached": f"{float(at['probability_optimised']):.3f} → "
        f"{float(at['probability_new']):.3f}",
        "steps": f"{int(at['steps'])}",
    }


def short(story: Any, case: int = 0) -> str:
    """Return one edit in a few words."""
    template, subject, new = (
        str(story[f"request_{name}"].values[case]) for name in ("template", "subject", "target")
    )
    layer = int(story.attrs["chosen_layer"])
    return f"{template.replace('{}', subject)} → {new} (layer {layer})"


def delta_file(story: Any) -> bytes:
    """Return the edit as a safetensors file."""
    from pathlib import Path
    from tempfile import TemporaryDirectory

    with TemporaryDirectory() as folder:
        saved: bytes = ml.swept_edit(story).save(Path(folder) / "edit.safetensors").read_bytes()
        return saved


def partial_views(partial: Any) -> list[Any] | None:
    """Return the trace of the unedited model, which is there first."""
    if partial.sizes.get("case") != 1 or "effect" not in partial:
        return None
    return _trace(partial, 0, "before")


def statistics_state(request: Request, layer: int | None, tokens: int, corpus: str) -> str:
    """Say whether the key statistics of a layer are stored, without loading the model."""
    if layer is None:
        return ""
    held = [one for one in runs.recent(("key_statistics",), 500) if _is_of(one, request)]
    wanted = {"layer": layer, "tokens": tokens}
    for one in held:
        if one.name == corpus and all(one.options.get(n) == v for n, v in wanted.items()):
            return f"{tokens:,} tokens · stored"
    timed = next((one for one in held if one.wall_seconds > 0), None)
    about = ""
    if timed is not None:
        seconds = timed.wall_seconds * tokens / max(int(timed.options.get("tokens", tokens)), 1)
        about = f", about {max(1, round(seconds))} s"
    return f"{tokens:,} tokens · missing: counted first{about}"


def _is_of(record: Any, request: Request) -> bool:
    model = loaded.summary(request.load_arguments).get("fingerprint")
    same = record.model.startswith(model) if model else True
    return bool(same and record.model_name == request.model_name)


def request_of(story: Any, options: Mapping[str, Any], model: str) -> FactEditRequest:
    """Return the request that a stored result answers.

    Args:
        story: the result; of several cases the first one counts.
        options: as the store recorded them.
        model: what to give to `load_model`.
    """
    texts = {
        name: str(story[f"request_{name}"].values[0])
        for name in ("template", "subject", "target", "target_true")
    }
    chosen, layers = options.get("layer"), options.get("layers")
    more: dict[str, Any] = {}
    if layers != [chosen]:
        more |= {"layers": layers, "layer": chosen}
    for name, usual in FactEditRequest.OTHER_DEFAULTS.items():
        if options.get(name, usual) != usual:
            more[name] = options[name]
    known = {
        name: options[name]
        for name in FactEditRequest.names()
        if name in options and name not in _NOT_FIELDS
    }
    request = FactEditRequest(
        model=model,
        **model_fields_of(story),
        template=texts["template"],
        subject=texts["subject"],
        target=texts["target_true"],
        new_object=texts["target"],
        layer=int(story.attrs["chosen_layer"]),
        **known,
    )
    request = _with_settings(request, options.get("settings"), more)
    return _with_prompts(replace(request, more=json.dumps(more, sort_keys=True)), story)


def _with_settings(
    request: FactEditRequest, settings: Mapping[str, Any] | None, more: dict[str, Any]
) -> FactEditRequest:
    """Fill in the settings that were given; those without a field are carried along."""
    if settings is None:
        return request
    offered = {name: settings[name] for name in (*OWN, "clamp") if name in settings}
    found = replace(request, own=True, alone="key_templates" in settings, **offered)
    if found.settings != dict(settings):
        more["settings"] = dict(settings)
    return found


def _with_prompts(request: FactEditRequest, story: Any) -> FactEditRequest:
    """Fill in typed paraphrases and neighbours: those that the table does not have."""
    texts = story["prompt_text"].isel(case=0)
    asked = {
        kind: [str(text) for text in texts.sel(prompt_kind=kind).values if str(text)]
        for kind in ("paraphrase", "neighbourhood")
    }
    try:
        usual = request.case()
    except ml.PromptError:
        return request
    if all(asked[kind] == [one.prompt for one in usual.prompts_of(kind)] for kind in asked):
        return request
    about = [
        str(text) for text in story["about"].isel(case=0).sel(prompt_kind="neighbourhood").values
    ]
    lines = [
        f"{prompt} | {kept}" for prompt, kept in zip(asked["neighbourhood"], about, strict=False)
    ]
    return replace(request, paraphrases="\n".join(asked["paraphrase"]), neighbours="\n".join(lines))


def _options(story: Any) -> dict[str, Any]:
    found = json.loads(story.attrs.get("options", "{}"))
    return found if isinstance(found, dict) else {}
