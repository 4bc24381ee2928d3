"""Results about memory in words: heads, context fits, ablations, copying and recall."""

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from mechlab.cli import lag_reports
from mechlab.cli.memory_tables import cmr_rows, cmr_summary, score_rows, table, told
from mechlab.cli.report_kind import Report, report_of_parts

if TYPE_CHECKING:
    import plotly.graph_objects as go
    import xarray as xr

__all__ = ["CMR_COLUMNS", "REPORTED", "SCORE_COLUMNS", "cmr_lines", "cmr_report", "memory_report"]

SCORE_COLUMNS = {
    "head": "head", "prefix_matching": "prefix matching", "previous_token": "previous",
    "duplicate_token": "duplicate", "copying": "copying", "peak_lag": "peak lag",
    "distance": "CMR distance",
}  # fmt: skip
CMR_COLUMNS = {
    "head": "head", "distance": "dist.", "peak_lag": "lag", "prefix_matching": "match",
    "copying": "copy", "beta_enc": "β enc", "beta_rec": "β rec", "gamma_ft": "γ",
    "near_optimal": "near", "p_matched": "noise", "p_walk": "walk", "human_distance": "human",
}  # fmt: skip
_MEANT = (
    "dist.: CMR distance; lag: of the peak; match: prefix matching; near: cells that fit as well; "
    "noise, walk: p, how often such curves without memory fit as well"
)
_ABLATION = {
    "group": "group", "ablation": "ablation", "intact": "intact", "effect": "change",
    "interval": "95 % interval", "random": "random heads", "p_value": "p",
}  # fmt: skip
_THRESHOLD = 0.3
Draw = Callable[["xr.Dataset"], "go.Figure | None"]


def memory_report(method: str, top: int = 10) -> Report:
    """Return how results of one of `REPORTED` are shown.

    Args:
        method: its name.
        top: how many heads are listed.
    """
    draw, more, tell, numbers = REPORTED[method]
    return report_of_parts(
        method,
        draw,
        lambda result: tell(result, top),
        lambda result: numbers(result, top),
        more=more,
    )


def cmr_report(top: int = 10, human: "Callable[[xr.Dataset], xr.Dataset] | None" = None) -> Report:
    """Return how `memory_heads` is shown by `mechlab cmr`.

    Args:
        top: how many heads are listed.
        human: adds the distance from people to a result.
    """

    def with_people(result: "xr.Dataset") -> "xr.Dataset":
        return result if human is None else human(result)

    shown = report_of_parts(
        "memory_heads",
        lambda result: _draw_fits(result, top),
        lambda result: cmr_lines(with_people(result), top),
        lambda result: {
            "summary": cmr_summary(result),
            "heads": cmr_rows(with_people(result), top),
        },
        more=_more_fits,
    )
    return replace(shown, ending="-cmr")


# --- heads ----------------------------------------------------------------------------------------


def _draw_scores(result: "xr.Dataset") -> "go.Figure":
    from mechlab import plots

    return plots.head_grid(result, value="prefix_matching")


def _more_scores(result: "xr.Dataset") -> "dict[str, go.Figure]":
    from mechlab import plots

    names = {"previous": "previous_token", "duplicate": "duplicate_token", "copying": "copying"}
    return {n: plots.head_grid(result, value=v) for n, v in names.items() if v in result}


def _tell_scores(result: "xr.Dataset", top: int) -> list[Any]:
    mean = result.prefix_matching.mean("prompt")
    high = int((mean > _THRESHOLD).sum())
    lists = result.sizes["prompt"]
    return [
        f"{high} of {mean.size} heads of {result.attrs.get('model_name')} are induction heads "
        f"(prefix matching above {_THRESHOLD:g}, mean of {lists} lists)",
        table(score_rows(result, top), SCORE_COLUMNS),
    ]


def _draw_fits(result: "xr.Dataset", top: int) -> "go.Figure | None":
    """Return the curves of the best-fitted heads."""
    from mechlab import plots
    from mechlab.axes import heads

    best = heads(*(row["head"] for row in cmr_rows(result, min(top, 12))))
    if not best:
        return None
    at = {"layer": [h.layer for h in best], "head": [h.head for h in best]}
    flat = result.drop_dims(["prompt"], errors="ignore")
    flat = flat.stack(_at=["layer", "head"]).sel(_at=list(zip(*at.values(), strict=True)))
    flat = flat.reset_index("_at")
    curve = flat.curve.transpose("_at", "lag")
    sem = flat.sem_tokens.transpose("_at", "lag") if "sem_tokens" in flat else None
    title = "lag curves of the heads with the smallest CMR distance"
    return plots.lag_fits(curve, flat, sem=sem, title=title)


def _more_fits(result: "xr.Dataset") -> "dict[str, go.Figure]":
    from mechlab import plots
    from mechlab.errors import OptionError

    try:
        return {"betas": plots.beta_scatter(result)}
    except OptionError:  # no head below the threshold
        return {}


def cmr_lines(result: "xr.Dataset", top: int) -> list[Any]:
    """Return how many heads are CMR-like, and the best with all that a distance needs beside it."""
    found = cmr_summary(result)
    lines: list[Any] = [
        f"{found['fitted']} of {found['heads']} heads have a lag curve with a shape"
    ]
    for threshold, like in (
        (n.removeprefix("below_"), found[n]) for n in ("below_0.5", "below_0.1")
    ):
        line = f"CMR distance below {threshold}: {like['heads']} head{'s' * (like['heads'] != 1)}"
        if like["heads"]:
            line += (
                f" ({like['per_cent']:.0f} %); peak at lag +1 in {like['peak_at_1']:.0f} %, "
                f"at lag 0 in {like['peak_at_0']:.0f} %"
            )
            if "matching_below_0.05" in like:
                line += f"; {like['matching_below_0.05']:.0f} % of them match prefixes below 0.05"
        lines.append(line)
    lines.append(
        f"p below .05 (after false-discovery control): against noise as smooth as the curves "
        f"{found['p_matched_below_0.05']} ({found['p_matched_controlled']}) heads, against random "
        f"walks {found['p_walk_below_0.05']} ({found['p_walk_controlled']})"
    )
    return [*lines, table(cmr_rows(result, top), CMR_COLUMNS), _MEANT]


# --- ablations ------------------------------------------------------------------------------------


def _draw_ablation(result: "xr.Dataset") -> "go.Figure":
    from mechlab import plots

    return plots.ablation_bars(result)


def _effects(result: "xr.Dataset") -> list[dict[str, Any]]:
    """Return one row per outcome, kind of ablation and group."""
    groups = [str(n) for n in result.head_set.values[1:][~result.is_control.values[1:]]]
    rows = []
    for outcome in result.outcome.values:
        for kind in result.ablation.values:
            for group in groups:
                one = result.sel(outcome=outcome, ablation=kind, head_set=group)
                names = ("effect", "effect_low", "effect_high", "random_mean", "random_low",
                         "random_high", "p_value")  # fmt: skip
                values = {name: told(float(one[name])) for name in names}
                if values["effect"] is None:
                    continue
                intact = result["mean"].sel(outcome=outcome, ablation=kind, head_set="intact")
                rows.append(
                    {"outcome": str(outcome), "ablation": str(kind), "group": group,
                     "members": str(one.members.item()), "intact": told(float(intact)), **values}
                )  # fmt: skip
    return rows


def _tell_ablation(result: "xr.Dataset", _: int) -> list[Any]:
    """Return the groups, what is said of the draws, and a table per measure."""
    rows = _effects(result)
    groups = {row["group"]: row["members"].replace("+", ", ") or "no heads" for row in rows}
    parts: list[Any] = [f"{name}: {members}" for name, members in groups.items()]
    if (draws := str(result.attrs.get("draws_status", "ok"))) != "ok":
        parts += draws.split("; ")
    for outcome in dict.fromkeys(row["outcome"] for row in rows):
        unit = "nats" if "recall" not in outcome else "probability"
        unit = "share of the list" if outcome.endswith("share") else unit
        shown = [_shown(row) for row in rows if row["outcome"] == outcome]
        parts += [f"{outcome.replace('_', ' ')} ({unit})", table(shown, _ABLATION)]
    return parts


def _shown(row: dict[str, Any]) -> dict[str, Any]:
    """Return a row with its intervals as text."""
    return {
        **row,
        "ablation": {"pattern_preserving": "pattern kept"}.get(row["ablation"], row["ablation"]),
        "interval": _span(row["effect_low"], row["effect_high"]),
        "random": _span(row["random_low"], row["random_high"]),
    }


def _span(low: float | None, high: float | None) -> str:
    return "" if low is None or high is None else f"{low:+.2g} to {high:+.2g}"


# --- what the model says --------------------------------------------------------------------------


def _draw_lines(value: str) -> Draw:
    def draw(result: "xr.Dataset") -> "go.Figure":
        from mechlab import plots

        return plots.lines(result, value=value, x={"loss": "copy", "probability": "lag"}[value])

    return draw


def _means(*names: str) -> "Callable[[xr.Dataset, int], dict[str, Any]]":
    """Return what collects means over prompts of variables, with their other axes."""

    def numbers(result: "xr.Dataset", _: int) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for name in (n for n in names if n in result):
            array = result[name].mean("prompt") if "prompt" in result[name].dims else result[name]
            flat = array.stack(_cell=list(array.dims), create_index=False)
            axes = [str(dim) for dim in array.dims]
            found[name] = [
                {**{d: flat[d].values[i].item() for d in axes}, "mean": told(float(flat[i]))}
                for i in range(flat.size)
            ]
        return found

    return numbers


def _tell_means(*names: str) -> "Callable[[xr.Dataset, int], list[Any]]":
    numbers = _means(*names)

    def tell(result: "xr.Dataset", top: int) -> list[Any]:
        parts: list[Any] = []
        for name, rows in numbers(result, top).items():
            titles = {one: one.replace("_", " ") for one in rows[0]}
            parts += [f"{name.replace('_', ' ')} ({result[name].attrs.get('units', '')})",
                      table(rows, titles)]  # fmt: skip
        return parts

    return tell


def _numbers_scores(result: "xr.Dataset", top: int) -> dict[str, Any]:
    return {"heads": score_rows(result, top)}


def _nothing(_: "xr.Dataset") -> "dict[str, go.Figure]":
    return {}


_COPY, _ICL, _CRP = ("loss", "gain"), ("score", "loss_hi", "loss_lo"), ("probability", "share")
_SCORES = (_draw_scores, _more_scores, _tell_scores, _numbers_scores)
REPORTED: dict[str, Any] = {
    "memory_heads": _SCORES,
    "induction_scores": _SCORES,
    "memory_ablation": (_draw_ablation, _nothing, _tell_ablation,
                        lambda result, _: {"effects": _effects(result),
                                           "draws": str(result.attrs.get("draws_status"))}),
    "attention_by_lag": (lag_reports.draw_lags, _nothing, lag_reports.tell_lags,
                         lag_reports.numbers_of_lags),
    "copying_scores": (lag_reports.draw_copying, _nothing, lag_reports.tell_copying,
                       lag_reports.numbers_of_copying),
    "copy_loss": (_draw_lines("loss"), _nothing, _tell_means(*_COPY), _means(*_COPY)),
    "icl_score": (lambda _: None, _nothing, _tell_means(*_ICL), _means(*_ICL)),
    "output_crp": (_draw_lines("probability"), _nothing, _tell_means(*_CRP), _means(*_CRP)),
}  # fmt: skip
"""Drawing, further figures, words and numbers of each method's results."""
