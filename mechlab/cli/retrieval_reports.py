"""Results about retrieval heads in words: scores, recall under masks, contrasted texts."""

import json
import math
from typing import TYPE_CHECKING, Any

import numpy as np

from mechlab.cli.report_kind import Report, report_of_parts

if TYPE_CHECKING:
    import plotly.graph_objects as go
    import xarray as xr

__all__ = ["retrieval_report"]


def retrieval_report(method: str, top: int = 10) -> Report:
    """Return how results of a method about retrieval heads are shown.

    Args:
        method: `retrieval_score`, `retrieval_curve`, `needle_recall` or `generate`.
        top: how many heads or texts are listed.
    """
    draw, more, tell = {
        "retrieval_score": (_draw_scores, _more_scores, _tell_scores),
        "retrieval_curve": (_draw_curve, _no_more, _tell_recall),
        "needle_recall": (_draw_map, _no_more, _tell_recall),
        "generate": (_draw_texts, _no_more, _tell_texts),
    }[method]

    return report_of_parts(
        method,
        draw,
        lambda result: tell(result, top),
        lambda result: {**_numbers(result, top), "prompts": _rows(result)},
        more=more,
    )


# --- pictures -------------------------------------------------------------------------------------


def _draw_scores(result: "xr.Dataset") -> "go.Figure | None":
    from mechlab import plots

    if not bool(np.isfinite(result["retrieval_score"]).any()):
        return None
    return plots.sorted_scores(result)


def _more_scores(result: "xr.Dataset") -> "dict[str, go.Figure]":
    from mechlab import plots

    figures = {"map": plots.length_by_depth(result, title="Needles found")}
    if bool(np.isfinite(result["retrieval_score_all"]).any()):
        figures["heads"] = plots.head_grid(result["retrieval_score_all"].mean("prompt"))
    return figures


def _draw_curve(result: "xr.Dataset") -> "go.Figure":
    from mechlab import plots

    return plots.mask_curve(result)


def _draw_map(result: "xr.Dataset") -> "go.Figure":
    from mechlab import plots

    return plots.length_by_depth(result)


def _draw_texts(result: "xr.Dataset") -> "go.Figure | None":
    from mechlab import plots

    written = result.isel(prompt=np.flatnonzero(result["n_tokens"].values))
    return plots.written_tokens(written) if written.sizes["prompt"] else None


def _no_more(_: "xr.Dataset") -> "dict[str, go.Figure]":
    return {}


# --- words ----------------------------------------------------------------------------------------


def _tell_scores(result: "xr.Dataset", top: int) -> list[str]:
    from mechlab.methods import retrieval_heads, retrieval_histogram

    answered, count = int(result["success"].sum()), result.sizes["prompt"]
    lines = [f"{answered} of {count} needles found (ROUGE-1 recall above the success rule)"]
    for length, some in result["rouge1_recall"].groupby("length"):
        lines.append(f"  {int(length):>7,} tokens: recall {float(some.mean()):.1f} %")
    if not answered:
        return [*lines, "no needle was found, so that no head has a score"]
    mean = result["retrieval_score"].mean("prompt")
    chosen = retrieval_heads(result)
    histogram = retrieval_histogram(result)
    lines.append(f"{len(chosen)} of {mean.size} heads are retrieval heads (mean score from 0.1):")
    for head in chosen[:top]:
        score = float(mean.sel(layer=head.layer, head=head.head))
        mass = float(result["mass"].sel(layer=head.layer, head=head.head).mean())
        lines.append(f"  {head!s:<7} score {score:.3f}   attention on the needle {mass:.3f}")
    bins = zip(histogram["bin"].values, histogram.values, strict=True)
    lines.append("heads by score: " + ", ".join(f"{name}: {int(n)}" for name, n in bins))
    return lines


def _tell_recall(result: "xr.Dataset", top: int) -> list[str]:
    lines = [f"recall, nothing masked: {float(result['unmasked_recall'].mean()):.1f} %"]
    which = json.loads(result.attrs.get("options", "{}"))
    lines.append(f"mask {which.get('mask')}, phase {which.get('phase')}:")
    for k in np.unique(result["k"].values):
        for control, word in ((False, "chosen"), (True, "random")):
            some = result["recall"].isel(
                head_set=((result["k"] == k) & (result["is_control"] == control)).values
            )
            if some.sizes["head_set"]:
                draws = f" (mean of {some.sizes['head_set']} draws)" if control else ""
                lines.append(f"  {int(k):>4} {word} heads: {float(some.mean()):.1f} %{draws}")
    return lines


def _tell_texts(result: "xr.Dataset", top: int) -> list[str]:
    changed = result["changed"]
    steps = int(np.isfinite(changed).sum())
    lines = [
        f"{steps} tokens written, {int(np.nansum(changed.values))} of them other than without the "
        f"contrast; mean alpha {float(result['alpha'].mean()):.2f}"
    ]
    if "wrong_answer" in result.coords:
        shares = [
            f"{words} {100 * np.mean(_begins(result, name)):.0f} %"
            for name, words in (("answer", "the context"), ("wrong_answer", "memory"))
        ]
        lines.append(f"answers begin with that of {', with that of '.join(shares)}")
    for prompt, text in _texts(result)[:top]:
        lines.append(f"  …{prompt[-60:]}|{text}")
    return lines


def _begins(result: "xr.Dataset", name: str) -> list[bool]:
    return [
        str(text).strip().startswith(str(answer))
        for text, answer in zip(result["text"].values, result[name].values, strict=True)
    ]


def _texts(result: "xr.Dataset") -> list[tuple[str, str]]:
    """Return what was read and what was written, on one line each."""
    both = zip(result["prompt_text"].values, result["text"].values, strict=True)
    return [(str(a).replace("\n", "\\n"), str(b).replace("\n", "\\n")) for a, b in both]


def _numbers(result: "xr.Dataset", top: int) -> dict[str, Any]:
    if "retrieval_score" in result:
        from mechlab.results import top_heads

        mean = result["retrieval_score_all"].mean("prompt")
        answered = result["retrieval_score"].mean("prompt")
        ranked = answered if bool(answered.notnull().any()) else mean
        return {
            "found": int(result["success"].sum()),
            "heads": [
                {
                    "head": str(head),
                    "score": _plain(answered.sel(layer=head.layer, head=head.head)),
                    "score_all": _plain(mean.sel(layer=head.layer, head=head.head)),
                }
                for head in top_heads(ranked, k=min(top, mean.size))
            ],
        }
    if "unmasked_recall" in result:
        return {
            "unmasked_recall": _plain(result["unmasked_recall"].mean()),
            "head_sets": [
                {
                    "head_set": str(name),
                    "members": str(result["members"].sel(head_set=name).item()),
                    "recall": _plain(result["recall"].sel(head_set=name).mean()),
                }
                for name in result["head_set"].values
            ],
        }
    return {"changed": _plain(result["changed"].mean()), "alpha": _plain(result["alpha"].mean())}


def _rows(result: "xr.Dataset") -> list[dict[str, Any]]:
    names = ("text", "rouge1_recall", "success", "unmasked_recall", "length", "depth", "needle")
    rows: list[dict[str, Any]] = []
    for index, label in enumerate(result["prompt"].values):
        row: dict[str, Any] = {"prompt": str(label)}
        for name in names:
            if name in result.variables and result[name].dims == ("prompt",):
                value = result[name].values[index].item()
                row[name] = value if not isinstance(value, float) or math.isfinite(value) else None
        rows.append(row)
    return rows


def _plain(value: Any) -> float | None:
    number = float(value)
    return float(f"{number:.6g}") if math.isfinite(number) else None
