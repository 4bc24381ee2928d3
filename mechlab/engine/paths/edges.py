"""Which node can reach which: the order of a decoder's nodes, and the positions they share.

A node is named by the site it writes: `z` (a head), `attn_out` (all heads of a block), `mlp_out`,
`embed`. As a receiver `q`, `k`, `v` name one input of a head, `pattern` its queries and keys, `z`
all three; `mlp_out` names the input of that MLP. No site at all stands for the final residual.
"""

from collections.abc import Sequence

import numpy as np

from mechlab.hooks import Site

__all__ = ["Node", "edge_exists", "reachable", "touched_positions"]

Node = tuple[Site, ...]
"""Sites that are overwritten together; as a receiver, `()` is the final residual."""


def edge_exists(sender: Site, receiver: Site | None, *, parallel: bool) -> bool:
    """Whether the order of the nodes lets a sender's write reach a receiver's input.

    Args:
        sender: the writing node.
        receiver: the reading node, `None` for the final residual.
        parallel: whether attention and MLP of a block read the same residual.
    """
    if receiver is None or sender.layer is None:
        return True
    assert receiver.layer is not None  # only the embedding has no layer, and it receives nothing
    if sender.layer != receiver.layer:
        return sender.layer < receiver.layer
    return sender.name != "mlp_out" and receiver.name == "mlp_out" and not parallel


def reachable(sender: Node, receiver: Node, *, parallel: bool) -> bool:
    """Whether any site of a sender reaches any site of a receiver."""
    ends: Sequence[Site | None] = receiver or (None,)
    return any(edge_exists(s, r, parallel=parallel) for s in sender for r in ends)


def touched_positions(site: Site, positions: Sequence[int] | None, length: int) -> tuple[int, ...]:
    """Return the positions at which a sender's site is overwritten in a prompt of `length`."""
    if site.pos is not None:
        return (site.pos,)
    return tuple(range(length)) if positions is None else tuple(positions)


def shared_positions(
    sender: Node,
    receiver: Node,
    positions: Sequence[int] | None,
    length: int,
    *,
    parallel: bool,
) -> bool:
    """Whether some edge of two nodes starts and ends at one position.

    With the heads held, a change moves along the residual of its own position only.
    """
    for s in sender:
        written = touched_positions(s, positions, length)
        for r in receiver or (None,):
            read = length - 1 if r is None else r.pos
            there = bool(written) if read is None else read in written
            if there and edge_exists(s, r, parallel=parallel):
                return True
    return False


def edges_of(
    senders: Sequence[Node],
    receivers: Sequence[Node],
    positions: Sequence[Sequence[int] | None],
    lengths: Sequence[int],
    *,
    parallel: bool,
) -> np.ndarray:
    """Return which edges exist, `[prompt, sender, receiver]`."""
    found: dict[tuple[object, int], np.ndarray] = {}
    for where, length in zip(positions, lengths, strict=True):
        key = (None if where is None else tuple(where), length)
        if key not in found:
            found[key] = np.array(
                [
                    [shared_positions(s, r, where, length, parallel=parallel) for r in receivers]
                    for s in senders
                ],
                dtype=bool,
            )
    keys = [
        (None if where is None else tuple(where), length)
        for where, length in zip(positions, lengths, strict=True)
    ]
    return np.stack([found[key] for key in keys])
