"""Stored results about edits, shown again: edits, key statistics, evaluations, sweeps."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from mechlab.cli.editing.tables import edit_facts, plain, summary_rows, summary_table
from mechlab.cli.report_kind import Report, report_of_parts

if TYPE_CHECKING:
    import plotly.graph_objects as go
    import xarray as xr

__all__ = ["REPORTED", "edit_result_report"]

_SWEPT = ("efficacy", "paraphrase", "neighbourhood", "case_score", "trace_effect", "relative_norm")
_FOLLOWED = ("efficacy_latest", "retention", "neighbourhood", "nll_rise", "drift")


def edit_result_report(method: str, top: int = 10) -> Report:
    """Return how results about edits are shown.

    Args:
        method: one of `REPORTED`.
        top: how many requests, layers or steps are listed.
    """
    draw, tell, numbers = REPORTED[method]
    return report_of_parts(method, draw, lambda result: tell(result, top), numbers, width=10)


# --- edits and key statistics ---------------------------------------------------------------------


def _edit(result: "xr.Dataset") -> dict[str, Any]:
    from mechlab.methods import Edit

    edit = Edit.from_dataset(result)
    names = ("probability_new_before", "probability_new", "probability_true_before",
             "probability_true")  # fmt: skip
    rows = [
        {"request": request.label, **{n: plain(result[n].values[index]) for n in names}}
        for index, request in enumerate(edit.requests)
    ]
    return {"edit": {"digest": edit.digest, **edit_facts(edit)}, "requests": rows}


def _tell_edit(result: "xr.Dataset", top: int) -> list[Any]:
    found = _edit(result)
    facts = found["edit"]
    lines = [
        f"{facts['method']}, layers {facts['layers']} ({facts['site']}), rank {facts['rank']}, "
        f"norm {facts['norm']:.3g}"
    ]
    for row in found["requests"][:top]:
        was, now = row["probability_new_before"], row["probability_new"]
        lines.append(f"  {row['request']}: probability {was:.2g} before, {now:.3f} with the edit")
    return lines


def _keys(result: "xr.Dataset") -> dict[str, Any]:
    layers = result["layer"].values.tolist()
    conditions = [plain(value) for value in result["condition"].values]
    return {
        "tokens": int(result.attrs["key_tokens"]),
        "corpus": str(result.attrs["key_corpus"]),
        "site": str(result.attrs["key_site"]),
        "condition": dict(zip(map(str, layers), conditions, strict=True)),
    }


def _tell_keys(result: "xr.Dataset", _: int) -> list[Any]:
    found = _keys(result)
    return [
        f"keys of {found['site']}: {found['tokens']:,} tokens of {found['corpus']!r}",
        *(f"  layer {layer}: condition number {'infinite' if c is None else f'{c:.2g}'}"
          for layer, c in found["condition"].items()),
    ]  # fmt: skip


# --- evaluations ----------------------------------------------------------------------------------


def _summary(result: "xr.Dataset") -> "xr.Dataset":
    from mechlab.methods.evaluation import edit_summary

    return edit_summary(result)


def _draw_bars(result: "xr.Dataset") -> "go.Figure":
    from mechlab import plots

    return plots.edit_bars(_summary(result))


def _tell_summary(result: "xr.Dataset", _: int) -> list[Any]:
    edits = str(result.attrs.get("model_edits", "none"))
    with_edits = "unedited" if edits == "none" else "with an edit in force"
    if result.attrs.get("method") == "evaluate_each_edit":
        with_edits = "each case with its own edit"
    head = f"{result.sizes['case']} case(s) on {result.attrs.get('model_name')}, {with_edits}"
    return [head, summary_table(_summary(result), everything=True)]


def _averages(result: "xr.Dataset") -> dict[str, Any]:
    return {"summary": summary_rows(_summary(result))}


# --- sweeps and sequences -------------------------------------------------------------------------


def _draw_sweep(result: "xr.Dataset") -> "go.Figure":
    from mechlab import plots

    return plots.layer_sweep(result)


def _draw_sequence(result: "xr.Dataset") -> "go.Figure":
    from mechlab import plots

    return plots.sequential_curve(result)


def _rows_along(
    axis: str, names: tuple[str, ...]
) -> "Callable[[xr.Dataset], list[dict[str, Any]]]":
    def rows(result: "xr.Dataset") -> list[dict[str, Any]]:
        held = {n: result[n] for n in names if n in result and axis in result[n].dims}
        means = {n: one.mean([d for d in one.dims if d != axis]) for n, one in held.items()}
        return [
            {axis: int(label), **{n: plain(one.values[i]) for n, one in means.items()}}
            for i, label in enumerate(result[axis].values)
        ]

    return rows


def _table(rows: list[dict[str, Any]]) -> Any:
    from rich import box
    from rich.table import Table

    table = Table(*(name.replace("_", " ") for name in rows[0]), box=box.SIMPLE_HEAD)
    for row in rows:
        table.add_row(*("" if v is None else f"{v:.3g}" for v in row.values()))
    return table


_layers, _steps = _rows_along("layer", _SWEPT), _rows_along("step", _FOLLOWED)


def _tell_sweep(result: "xr.Dataset", _: int) -> list[Any]:
    chosen = int(result.attrs.get("chosen_layer", -1))
    told = [] if chosen < 0 else [f"edited layer: {chosen}"]
    return [f"{result.sizes['case']} case(s), mean per layer", _table(_layers(result)), *told]


def _tell_sequence(result: "xr.Dataset", _: int) -> list[Any]:
    fallen = int(result.attrs.get("collapse_step", -1))
    told = "no collapse" if fallen < 0 else f"collapse at {fallen} edits"
    return [told, _table(_steps(result))]


_EDIT = (lambda _: None, _tell_edit, _edit)
_EVALUATION = (_draw_bars, _tell_summary, _averages)
_SWEEP = (_draw_sweep, _tell_sweep, lambda result: {"layers": _layers(result)})
_SEQUENCE = (_draw_sequence, _tell_sequence, lambda result: {"steps": _steps(result)})

REPORTED: dict[str, Any] = {
    "rank_one_edit": _EDIT,
    "memit": _EDIT,
    "fine_tune_edit": _EDIT,
    "key_statistics": (lambda _: None, _tell_keys, _keys),
    "evaluate_edit": _EVALUATION,
    "evaluate_each_edit": _EVALUATION,
    "edit_sweep": _SWEEP,
    "localize_edit_verify": _SWEEP,
    "sequential_edits": _SEQUENCE,
    "batch_edits": _SEQUENCE,
}
"""Drawing, words and numbers of each method's results."""
