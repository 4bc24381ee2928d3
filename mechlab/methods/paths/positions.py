"""The option `positions`: where senders are patched, for all pairs alike or pair by pair."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from mechlab.engine import Node
from mechlab.engine.positions import place_tokens, plain_positions, position_lists
from mechlab.errors import OptionError, PromptError
from mechlab.prompts import PromptPair, PromptSet

if TYPE_CHECKING:
    from mechlab.models import Model

__all__ = ["Where", "check_site_positions", "positions_of"]

Where = tuple[int, ...] | None
"""Positions counted from the start, sorted; `None` for all of them."""


def positions_of(
    model: "Model", pairs: PromptSet[PromptPair], given: object, lengths: Sequence[int]
) -> list[Where]:
    """Return the positions of each pair.

    Args:
        model: the model, which finds the tokens of named places.
        pairs: the pairs.
        given: `all`, `last`, whole numbers, names of places, or a list of either per pair.
        lengths: tokens of each pair's prompts.

    Raises:
        OptionError: what is none of these, truth values, positions named twice, places that no
            pair has.
        PromptError: positions or places that a prompt does not have, two that are one token of it,
            places at other tokens of the corrupted prompt; all offenders at once.
    """
    given = plain_positions(given)
    if given == "all":
        return [None] * len(lengths)
    lists = _lists(given, len(lengths))
    clean = place_tokens(model, pairs, lists, lengths, words="'all', 'last'")
    corrupted = place_tokens(model, pairs, lists, lengths, corrupted=True)
    shifted = [
        f"  #{index} {pair.clean!r:.60}: {', '.join(map(str, names))} at {list(a)} and {list(b)}"
        for index, (pair, names, a, b) in enumerate(
            zip(pairs, lists, clean, corrupted, strict=True)
        )
        if a != b
    ]
    if shifted:
        raise PromptError(
            f"{len(shifted)} of {len(lengths)} pairs have places at other tokens of their "
            "corrupted prompt:\n"
            + "\n".join(shifted)
            + "\n  Allowed: places that both prompts have at the same tokens, as the residual of "
            "one is put into the other.\n  Leave these pairs out, or give positions as numbers."
        )
    return [tuple(sorted(here)) for here in clean]


def _lists(given: object, count: int) -> Sequence[tuple[int | str, ...]]:
    """Return one list of numbers or of names per pair.

    Raises:
        OptionError: with all that is wrong.
    """
    if given == "last":
        return [(-1,)] * count
    lists, per_pair = position_lists(given if isinstance(given, list | str) else [given])
    if per_pair and len(lists) != count:
        raise OptionError(
            f"positions={given!r:.80}: {len(lists)} lists for {count} pairs. Allowed: one list for "
            f"all, or one such list for each of the {count} pairs, in their order. Give as many."
        )
    return lists if per_pair else lists * count


def check_site_positions(nodes: Sequence[Node], lengths: Sequence[int]) -> None:
    """Refuse sites at positions that some prompt does not have.

    Raises:
        PromptError: naming all of them.
    """
    named = sorted({site.pos for node in nodes for site in node if site.pos is not None})
    if not (far := [pos for pos in named if pos >= min(lengths)]):
        return
    short = [f"#{i} ({length} tokens)" for i, length in enumerate(lengths) if length <= max(far)]
    raise PromptError(
        f"a node names position {', '.join(map(str, far))}, which {len(short)} of {len(lengths)} "
        f"prompts do not have: {', '.join(short)}.\n  Allowed: positions that every prompt has.\n"
        "  Leave pos out of the site and give positions per pair."
    )
