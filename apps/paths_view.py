"""What the paths page shows of results, as plain values. Nothing here touches Streamlit."""

import re
from dataclasses import replace
from typing import Any

import numpy as np

import mechlab as ml
from paths_request import head_of

__all__ = [
    "MOST_EDGES", "checks", "edges_shown", "is_trail", "partial_views", "says_little",
    "sender_at", "sender_grid", "strongest", "trail_of", "trail_text",
]  # fmt: skip

MOST_EDGES = 40
_MLP = re.compile(r"MLP ?\d{1,6}", re.IGNORECASE | re.ASCII)


def sender_grid(result: Any, *, prompt: int | None = None) -> Any:
    """Return the senders by layer, coloured by what they do through the receiver."""
    receiver = str(result["receiver"].values[0])
    view = ml.plots.sender_views(result, receiver=receiver, prompt=prompt)[0]
    return replace(view, title=f"Senders to {receiver}")


def sender_at(view: Any, row: int, column: int) -> str:
    """Return the name of a cell's sender: `L5H4`, `L5 MLP`, or a listed set."""
    label = view.col_labels[column]
    if view.col_name == "sender":
        return str(label)
    return (
        f"L{view.row_labels[row]}H{label}"
        if label.isdecimal()
        else f"{label} {view.row_labels[row]}"
    )


def strongest(result: Any) -> float:
    """Return the size of the strongest mean effect; the end of the threshold's slider."""
    edges, _ = ml.plots.path_edges(result, most=1)
    return abs(edges[0].effect) if edges else 0.0


def edges_shown(result: Any, threshold: float) -> tuple[list[Any], int]:
    """Return at most 40 edges of at least that size, strongest first, and how many there are."""
    edges, total = ml.plots.path_edges(result, most=MOST_EDGES)
    return [edge for edge in edges if abs(edge.effect) >= threshold], total


def checks(result: Any) -> str:
    """Return how the parts compare with the whole, in words; empty when that cannot be told.

    The whole is the effect of the corrupted prompt (of the clean one, when denoising). Paths of
    heads alone leave out what MLPs and embeddings send, and effects need not add up.
    """
    whole, total = _whole(result), float(np.nansum(result["effect"].mean("prompt").values))
    if abs(whole) < 1e-6 or not np.isfinite(total):
        return ""
    told = f"all paths together {total:+.2f} of {whole:+.2f} ({100 * total / whole:.0f} %)"
    return told.replace("-", "−").replace("(−0 %)", "(0 %)")


def says_little(result: Any) -> bool:
    """Return whether no path moves the answer by a hundredth of what the other prompt does.

    The grid then shows very small effects at full colour.
    """
    return strongest(result) < 0.01 * abs(_whole(result))


def _whole(result: Any) -> float:
    gap = float((result["corrupted_metric"] - result["clean_metric"]).mean())
    return gap if result.attrs.get("direction", "noising") == "noising" else -gap


def partial_views(partial: Any) -> list[Any] | None:
    """Return the sender grid of an unfinished result; None while there is nothing to draw."""
    if not np.isfinite(partial["effect"].values).any():
        return None
    return [sender_grid(partial)]


# The trail: receivers walked so far, the logits first -----------------------------------------


def trail_of(text: str, receiver: str) -> list[str]:
    """Return the receivers of a trail, ending with the present one.

    Args:
        text: as the URL holds it, `logits~L5H4.q`; what is no receiver is left out.
        receiver: the present one; what stands behind it in the trail is forgotten.
    """
    found = [part for part in text.split("~") if is_trail(part)]
    if receiver in found:
        return found[: found.index(receiver) + 1]
    return [*found, receiver]


def trail_text(trail: list[str]) -> str:
    """Return a trail as the URL holds it."""
    return "~".join(trail)


def is_trail(part: str) -> bool:
    """Return whether a part of a trail names a receiver."""
    return part == "logits" or head_of(part) is not None or _MLP.fullmatch(part) is not None
