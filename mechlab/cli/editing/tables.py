"""Edits and their evaluations as rows of plain data, and as tables for the terminal."""

import json
import math
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import xarray as xr

    from mechlab.methods import Edit

__all__ = ["edit_facts", "plain", "summary_rows", "summary_table"]

_WORDS = {
    "score": "score S",
    "efficacy": "the edited prompts",
    "paraphrase": "paraphrases",
    "neighbourhood": "neighbours, kept",
    "other_relations": "other relations, kept",
    "languages": "other languages",
    "two_hop": "two-hop consequences",
}


def edit_facts(edit: "Edit") -> dict[str, Any]:
    """Return what an edit is: method, layers, rank, norms, division factors."""
    details = edit.details
    options = json.loads(details.attrs.get("options", "{}"))
    method = str(details.attrs.get("method", "edit"))
    names = {"rank_one_edit": str(options.get("variant", "")).upper().replace("P-", "p-"),
             "memit": "MEMIT", "fine_tune_edit": "fine-tuning"}  # fmt: skip
    relative = None
    if "weight_norm" in details:
        relative = edit.norm / math.sqrt(
            sum(
                float(norm) ** 2
                for norm in dict(
                    zip(edit.layers, details["weight_norm"].values.tolist(), strict=True)
                ).values()
            )
        )
    factor = details.get("division_factor")
    return {
        "method": names.get(method, method),
        "requests": len(edit.requests),
        "layers": sorted(set(edit.layers)),
        "site": edit.deltas[0].site,
        "rank": edit.rank,
        "norm": plain(edit.norm),
        "relative_norm": None if relative is None else plain(relative),
        "division_factor": None if factor is None else plain(abs(factor).min()),
        "made_on": list(edit.made_on),
    }


def summary_rows(summary: "xr.Dataset") -> list[dict[str, Any]]:
    """Return the rows of an `edit_summary` that hold a number."""
    names = ("mean", "low", "high", "before", "change", "change_low", "change_high")
    rows = []
    for index, metric in enumerate(summary["metric"].values):
        one = summary.isel(metric=index)
        row = {"metric": str(metric), "n": int(one["n"]), **{n: plain(one[n]) for n in names}}
        if row["mean"] is not None:
            rows.append(row)
    return rows


def summary_table(summary: "xr.Dataset", *, everything: bool = False) -> Any:
    """Return the averages of an evaluation as a table, with 95 % intervals where there are any.

    Args:
        summary: result of `edit_summary`.
        everything: magnitudes too.
    """
    from rich import box
    from rich.table import Table

    rows = [row for row in summary_rows(summary) if everything or row["metric"] in _WORDS]
    several = any(row["low"] is not None for row in rows)
    counted = len({row["n"] for row in rows}) > 1
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1), pad_edge=False)
    table.add_column("", no_wrap=True)
    for column in (*(["n"] if counted else []), "before", "after",
                   *(["95 % interval"] if several else []), "change"):  # fmt: skip
        table.add_column(column, no_wrap=True, justify="right")
    for row in rows:
        percent = row["metric"] in _WORDS
        cells = [_number(row["before"], percent), _number(row["mean"], percent)]
        cells += [_interval(row, percent)] if several else []
        cells.append(_number(row["change"], percent, signed=True))
        table.add_row(_word(row["metric"]), *([str(row["n"])] if counted else []), *cells)
    return table


def _word(metric: str) -> str:
    if metric.endswith("_magnitude"):
        return "  magnitude"
    return _WORDS.get(metric, metric.replace("_", " "))


def _interval(row: dict[str, Any], percent: bool) -> str:
    """Return an interval; that of a share ends where there is nothing beyond."""
    if row["low"] is None:
        return ""
    ends = (row["low"], row["high"])
    if percent or row["metric"].endswith("_magnitude"):
        least = 0.0 if percent else -1.0
        ends = (max(row["low"], least), min(row["high"], 1.0))
    low, high = (_number(end, percent) for end in ends)
    return f"{low} to {high}"


def _number(value: float | None, percent: bool, *, signed: bool = False) -> str:
    if value is None:
        return ""
    sign = "+" if signed else ""
    return f"{100 * value:{sign}.1f} %" if percent else f"{value:{sign}.2g}"


def plain(value: Any) -> float | None:
    """Return a number with six digits; `None` for what is not finite."""
    number = float(value)
    return float(f"{number:.6g}") if math.isfinite(number) else None
