"""Rankings of heads from conflict scores, and halves of prompt sets that share no country."""

import hashlib
from typing import Any

import xarray as xr

from mechlab.axes import Head
from mechlab.engine import check_number, check_whole
from mechlab.errors import OptionError, PromptError
from mechlab.prompts import PromptPair, PromptSet, as_prompt_set
from mechlab.results import top_heads

__all__ = ["conflict_rankings", "split_pairs"]


def conflict_rankings(scores: xr.Dataset | xr.DataArray) -> dict[str, list[Head]]:
    """Return all heads in the order in which PH3 prunes them, for either direction.

    Args:
        scores: a result of `conflict_heads`, or its `conflict_score`; choose prompts before.

    Returns:
        `memory`: heads by falling conflict score, the strongest memory head first (prune these to
        raise context use); `context`: by rising score (prune these to raise memory use).

    Raises:
        OptionError: when it is no conflict score.
    """
    array = scores["conflict_score"] if "conflict_score" in _names(scores) else scores
    if not isinstance(array, xr.DataArray) or not {"layer", "head"} <= set(array.dims):
        raise OptionError(
            f"{type(scores).__name__} with axes {tuple(getattr(scores, 'dims', ()))} holds no "
            "conflict score. Allowed: a result of conflict_heads, or an array with the axes layer "
            "and head. Give one of these."
        )
    mean = array.mean([dim for dim in array.dims if dim not in ("layer", "head")])
    return {"memory": top_heads(mean), "context": top_heads(-mean)}


def _names(scores: object) -> set[str]:
    return set(map(str, scores.data_vars)) if isinstance(scores, xr.Dataset) else set()


def split_pairs(
    pairs: PromptSet[Any], *, by: str | None = "country", share: float = 0.5, seed: int = 0
) -> tuple[PromptSet[PromptPair], PromptSet[PromptPair]]:
    """Split pairs into those for finding heads and those held out, without a value in common.

    Which side a value falls on depends on it and the seed alone: two sets, of other relations or
    another wording, are split alike, so that what is held out of one is held out of the other.

    Args:
        pairs: the pairs.
        by: which of the things known about every pair is never on both sides; `None` for the
            clean prompt itself.
        share: expected part of the values on the finding side.
        seed: of the split.

    Returns:
        Finding set and held-out set, both in the order of `pairs`.

    Raises:
        OptionError: `share` outside (0, 1).
        PromptError: pairs that say nothing about `by`, or when a side would be empty.
    """
    check_number("share", share)
    check_whole("seed", seed)
    if not 0 < share < 1:
        raise OptionError(f"share={share!r}. Allowed: between 0 and 1. Give 0.5 for halves.")
    prompts = as_prompt_set(pairs, kind="pair")
    values = [pair.clean for pair in prompts] if by is None else list(prompts.about(by))
    find = [_draw(value, seed) < share for value in values]
    if all(find) or not any(find):
        raise PromptError(
            f"all {len(prompts)} pairs fall on one side: {len(set(values))} different "
            f"{by or 'prompts'}, share {share:g}.\n  Allowed: pairs that can be split.\n"
            "  Give more pairs, or another seed or share."
        )
    return prompts.select(find), prompts.select([not found for found in find])


def _draw(value: object, seed: int) -> float:
    digest = hashlib.sha256(f"{seed}\x1fsplit\x1f{value}".encode()).digest()
    return int.from_bytes(digest[:8], "little") / 2**64
