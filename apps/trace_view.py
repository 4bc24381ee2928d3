"""What the causal-trace page shows of a result, as plain values: grids, one cell, its profiles.

Nothing here touches Streamlit; every number comes from the result, none is computed with a model.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

import mechlab as ml
import prompt_files
from trace_request import TraceRequest
from versions import version_of

__all__ = [
    "AVERAGE",
    "TITLES",
    "Cell",
    "cell_of",
    "fact_choices",
    "grids",
    "link_problems",
    "little_to_restore",
    "outlined",
    "partial_views",
    "request_of",
    "status_of",
    "token_strip",
]

AVERAGE = "average"
"""Choice of fact that means: all known facts, averaged by token role."""


TITLES = {
    "resid_pre": "Residual stream, before",
    "resid_mid": "Residual stream, middle",
    "resid_post": "Residual stream",
    "mlp_out": "MLP output",
    "attn_out": "Attention output",
    "mixer_out": "Mixer output",
}
"""Sites in words."""


@dataclass(frozen=True)
class Cell:
    """One cell of one grid, and what its effect is the difference of."""

    site: str
    layer: int
    column: str
    """The token as `index·token`, or the token role."""
    effect: float
    low: float | None
    high: float | None
    clean: float | None
    corrupted: float | None
    restored: float | None
    first_layer: int | None
    last_layer: int | None
    role: str
    scored: str

    @property
    def computed(self) -> bool:
        """Whether the cell was run."""
        return bool(np.isfinite(self.effect))


def fact_choices(trace: Any) -> list[str]:
    """Return what the page can show: each fact by index, and the average when there are several."""
    known = sum(status == "ok" for status in _texts(trace, "status"))
    return ([AVERAGE] if known > 1 else []) + [str(i) for i in range(trace.sizes["prompt"])]


def status_of(trace: Any, fact: str) -> str:
    """Return `ok`, or why the fact was skipped."""
    return "ok" if fact == AVERAGE else _texts(trace, "status")[int(fact)]


def little_to_restore(trace: Any, fact: str) -> bool:
    """Return whether the noise took away less than a tenth of the answer's probability.

    The grids then show small differences at full colour, which say little about the fact.
    """
    if fact == AVERAGE:
        return False
    one = trace.isel(prompt=int(fact))
    return bool(float(one["total_effect"]) < 0.1 * float(one["clean_probability"]))


def grids(trace: Any, fact: str) -> list[Any]:
    """Return one grid per site, all on one scale."""
    if fact == AVERAGE:
        average = ml.by_token_role(trace["indirect_effect"]).mean("prompt")
        average = average.rename("indirect_effect").assign_attrs(trace.attrs)
        known = sum(status == "ok" for status in _texts(trace, "status"))
        return [replace(v, n=known, n_unit="facts") for v in ml.plots.grid_views(average)]
    return list(ml.plots.grid_views(trace, prompt=int(fact)))


def outlined(views: list[Any], sites: list[str], site: str, cell: tuple[int, int]) -> list[Any]:
    """Return the grids with one cell marked as chosen, in its own grid only."""
    return [
        replace(view, selected=cell if name == site else None)
        for name, view in zip(sites, views, strict=True)
    ]


def cell_of(trace: Any, fact: str, views: list[Any], *, site: str, layer: int, column: int) -> Cell:
    """Return everything known about one cell."""
    sites = _texts(trace, "site")
    view = views[sites.index(site)]
    low, high = (
        None if a is None else float(a[layer, column]) for a in (view.ci_low, view.ci_high)
    )
    start, stop = _window(trace, site, layer)
    found = Cell(
        site=site,
        layer=int(trace["layer"].values[layer]),
        column=view.col_labels[column],
        effect=float(view.values[layer, column]),
        low=low,
        high=high,
        clean=None,
        corrupted=None,
        restored=None,
        first_layer=start,
        last_layer=None if stop is None else stop - 1,
        role=view.col_labels[column] if fact == AVERAGE else "",
        scored="",
    )
    return found if fact == AVERAGE else _with_probabilities(trace, found, int(fact), column)


def token_strip(trace: Any, fact: str) -> list[tuple[str, bool]]:
    """Return (label, belongs to the subject) of every token; empty for the average."""
    if fact == AVERAGE:
        return []
    tokens = [str(token) for token in trace["token"].values[int(fact)]]
    roles = [str(role) for role in trace["token_role"].values[int(fact)]]
    return [
        (ml.plots.show_token(token, position, form="markdown"), role.endswith("subject") and
         role != "before_subject")
        for position, (token, role) in enumerate(zip(tokens, roles, strict=True))
        if token != ""
    ]  # fmt: skip


def partial_views(partial: Any) -> list[Any] | None:
    """Return grids of the probabilities restored so far; None when there is nothing to draw.

    Probabilities rather than effects: they exist before the corrupted baseline is known, and their
    scale from 0 to 1 does not move while cells fill in.
    """
    if partial.sizes.get("prompt") != 1 or "restored_probability" not in partial:
        return None
    mean = partial["restored_probability"].mean("sample", skipna=False)
    return list(ml.plots.grid_views(mean.isel(prompt=0).assign_attrs(partial.attrs)))


def request_of(trace: Any, fact: str, model: str) -> TraceRequest:
    """Return the request that this fact of the result answers.

    Args:
        trace: a stored causal trace.
        fact: index of the fact; the average stands for the first one.
        model: what to give to `load_model`, since results carry only the model's name.
    """
    index = 0 if fact == AVERAGE else int(fact)
    stored = _options(trace.attrs)
    options = {name: stored[name] for name in TraceRequest.OPTIONS if name in stored}
    more = {
        n: stored[n]
        for n, usual in TraceRequest.OTHER_DEFAULTS.items()
        if stored.get(n, usual) != usual
    }
    if "sites" in options:
        options["sites"] = tuple(options["sites"])
    return TraceRequest(
        model=model,
        dtype=str(trace.attrs.get("model_dtype", "float32")),
        weights=str(trace.attrs.get("model_weights", "raw")),
        **version_of(trace.attrs),
        prompt=_texts(trace, "prompt_text")[index],
        subject=_texts(trace, "subject")[index],
        target=_texts(trace, "target")[index],
        prompt_set=_file_of(trace),
        more=json.dumps(more, sort_keys=True),
        **options,
    )


def link_problems(raw: Mapping[str, str], trace: Any) -> list[str]:
    """Say which site or fact a link asked for that this result does not have; it is ignored.

    Args:
        raw: the link's parameters as text.
        trace: the result that is shown.
    """
    problems = []
    sites = _texts(trace, "site")
    if "site" in raw and raw["site"] not in sites:
        problems.append(f"site {raw['site']!r}: this result has {', '.join(sites)}")
    if "fact" in raw and raw["fact"] not in fact_choices(trace):
        problems.append(f"fact {raw['fact']!r}: this result has 0 to {trace.sizes['prompt'] - 1}")
    return problems


def _with_probabilities(trace: Any, cell: Cell, fact: int, column: int) -> Cell:
    one = trace.isel(prompt=fact)
    restored = one["restored_probability"].sel(site=cell.site, layer=cell.layer).isel(pos=column)
    return replace(
        cell,
        clean=float(one["clean_probability"]),
        corrupted=float(one["corrupted_probability"].mean()),
        restored=float(restored.mean()),
        role=str(one["token_role"].values[column]).replace("_", " "),
        scored=str(one["scored_token"].item()),
    )


def _window(trace: Any, site: str, layer: int) -> tuple[int | None, int | None]:
    if not {"window_start", "window_stop"} <= set(trace.coords):
        return None, None
    ends = []
    for name in ("window_start", "window_stop"):
        edge = trace[name].sel(site=site) if "site" in trace[name].dims else trace[name]
        ends.append(int(edge.values[layer]))
    return ends[0], ends[1]


def _texts(trace: Any, name: str) -> list[str]:
    return [str(value) for value in np.atleast_1d(trace[name].values)]


def _file_of(trace: Any) -> str:
    if trace.sizes["prompt"] == 1:
        return ""
    return prompt_files.id_of_digest(str(trace.attrs.get("prompts_digest", "")))


def _options(attrs: Mapping[Any, Any]) -> dict[str, Any]:
    options = json.loads(attrs.get("options", "{}"))
    return options if isinstance(options, dict) else {}
