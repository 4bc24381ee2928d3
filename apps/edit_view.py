"""What came of an edit, as plain values: shares, probabilities, texts, the change itself.

Nothing here touches Streamlit; every number comes from the result.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

import mechlab as ml

__all__ = [
    "ChangeFact",
    "Share",
    "change_facts",
    "delta_file",
    "probabilities",
    "shares",
    "short",
    "texts_of",
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
_TOLD = (
    "norm", "relative_norm", "division_factor", "division_ratio", "value_ratio", "residual",
    "residual_bare", "probability_optimised", "probability_new", "steps",
)  # fmt: skip


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


def wrong_baseline(story: Any) -> str:
    """Say why there was nothing to edit; empty when there was."""
    if story.sizes["case"] > 1 or float(story["efficacy_before"].values[0]) < 1:
        return ""
    (new, before, _), *old = probabilities(story)
    if old:
        than = f"likelier than {old[0][0]!r} (p = {old[0][1]:.2g})"
        return f"the unedited model finds {new!r} (p = {before:.2g}) {than} already"
    return f"the unedited model says {new!r} (p = {before:.2g}) already"


def texts_of(story: Any, case: int = 0) -> list[tuple[str, str]]:
    """Return (before, after) of every generated text."""
    at = story["generation"].isel(case=case)
    pairs = zip(at.sel(stage="before").values, at.sel(stage="after").values, strict=True)
    return [(str(a), str(b)) for a, b in pairs if str(a) or str(b)]


@dataclass(frozen=True)
class ChangeFact:
    """One number about the change of the weights."""

    name: str
    value: str
    meaning: str


def change_facts(story: Any, case: int = 0) -> list[ChangeFact]:
    """Return what the change of the weights is."""
    layer = int(story.attrs["chosen_layer"])
    at = story.isel(case=case).sel(layer=layer)
    held = {name: float(at[name]) if name in at else math.nan for name in _TOLD}
    reached = f"{held['probability_optimised']:.3f} → {held['probability_new']:.3f}"
    found = [
        ChangeFact("layer", f"{layer}, {story.attrs.get('edit_site', '')}", "rank 1"),
        ChangeFact("‖Δ‖", f"{held['norm']:.3g}", "Frobenius norm of what is added"),
        ChangeFact("‖Δ‖ / ‖W‖", f"{held['relative_norm']:.1%}", "share of the weight's own norm"),
        ChangeFact("division factor", f"{held['division_factor']:.3g}", "near 0 Δ explodes"),
        ChangeFact("… / mean key's", f"{held['division_ratio']:.3g}", "its ratio; 1 for R-ROME"),
        ChangeFact("‖v* − v₀‖ / ‖v₀‖", f"{held['value_ratio']:.3g}", "how far the value moves"),
        ChangeFact("p(new)", reached, "as v* promised → with the edited weights"),
        ChangeFact("steps", f"{held['steps']:.0f}", "of the search for v*"),
    ]
    found[6:6] = _residuals(held)
    ridge = float(story.attrs.get("key_ridge", 0.0))
    if ridge > 0:
        counted = f"{story.attrs['key_tokens']:,} tokens have no inverse: count more"
        found.append(ChangeFact("ridge", f"{ridge:.2g}", f"key statistics of {counted}"))
    return found


def _residuals(held: dict[str, float]) -> list[ChangeFact]:
    """Return how far the edited output stays from v*; nothing of results that do not tell."""
    where = {
        "residual": ("residual ‖v − v*‖", "activation units, at the key that meets v*: rounding"),
        "residual_bare": ("residual, bare prompt", "the same at the key of the prompt alone"),
    }
    return [
        ChangeFact(name, f"{held[key]:.2g}", meaning)
        for key, (name, meaning) in where.items()
        if not math.isnan(held[key])
    ]


def short(story: Any, case: int = 0) -> str:
    """Return one edit in a few words."""
    template, subject, new = (
        str(story[f"request_{name}"].values[case]) for name in ("template", "subject", "target")
    )
    layer = int(story.attrs["chosen_layer"])
    return f"{template.replace('{}', subject)} → {new} (layer {layer})"


def delta_file(story: Any) -> bytes:
    """Return the edit as a safetensors file; the disk is not touched."""
    saved: bytes = ml.swept_edit(story).to_bytes()
    return saved
