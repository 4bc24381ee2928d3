"""Which heads are pruned: the first k of each ranking, and random ones of the same layers."""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from mechlab.axes import Head
from mechlab.engine import check_number
from mechlab.errors import OptionError
from mechlab.models import head_sets

if TYPE_CHECKING:
    from mechlab.models import Model

__all__ = ["Pruned", "counts_of", "pruned_sets"]


@dataclass(frozen=True)
class Pruned:
    """One curve over k.

    Attributes:
        name: of the ranking, or of the control.
        heads: the heads pruned at each k.
        control_of: name of the ranking that a control belongs to, else empty.
        chosen_too: per k, how many heads of a control are among the chosen ones as well, because
            their layer has no others left.
    """

    name: str
    heads: tuple[tuple[Head, ...], ...]
    control_of: str = ""
    chosen_too: tuple[int, ...] = ()


def counts_of(model: "Model", k: object) -> tuple[int, ...]:
    """Return how many heads to prune, rising, 0 first; fractions are parts of all heads.

    Raises:
        OptionError: what is no list of whole numbers from 0 or fractions below 1.
    """
    given = list(k) if isinstance(k, Iterable) and not isinstance(k, str) else []
    if not given:
        raise OptionError(f"k={k!r}. Allowed: a list such as (1, 3, 5, 10). Put it in brackets.")
    total = model.n_layers * (model.n_heads or 0)
    found = {0}
    for number in given:
        check_number("k", number, at_least=0)
        whole = float(number).is_integer()
        count = int(number) if whole else round(float(number) * total)
        if (not whole and number > 1) or count > total:
            raise OptionError(
                f"k={number!r}. Allowed: whole numbers from 0 to {total}, the heads of "
                f"{model.name}, or fractions between 0 and 1, parts of them. Correct it."
            )
        found.add(count)
    return tuple(sorted(found))


def pruned_sets(
    model: "Model", rankings: Any, counts: Sequence[int], controls: int, seed: int
) -> list[Pruned]:
    """Return the curves: every ranking, and after it its controls.

    Raises:
        OptionError: no ranking, heads named twice in one, or fewer heads than the largest k.
        SiteError: heads that this model does not have.
    """
    if not isinstance(rankings, Mapping):
        raise OptionError(
            f"heads={rankings!r:.60}. Allowed: a mapping from names to ranked heads, such as "
            "ml.conflict_rankings(scores) or {'memory': ['L5H4', 'L6H4']}. Name the ranking."
        )
    ordered = head_sets(model, rankings, together=True)
    if short := [f"{n!r} ({len(h)})" for n, h in ordered.items() if len(h) < counts[-1]]:
        raise OptionError(
            f"k={counts[-1]}: rankings with fewer heads: {', '.join(short)}. Allowed: k up to the "
            "length of every ranking. Lower k, or rank more heads."
        )
    found = []
    for name, heads in ordered.items():
        found.append(Pruned(name, tuple(heads[:k] for k in counts), "", (0,) * len(counts)))
        for draw in range(controls):
            drawn = [_control(model, heads[:k], _seed(seed, name, draw, k)) for k in counts]
            shared = [len(set(d) & set(heads[:k])) for d, k in zip(drawn, counts, strict=True)]
            label = f"{name} control {draw}"
            found.append(Pruned(label, tuple(drawn), name, tuple(shared)))
    return found


def _control(model: "Model", chosen: Sequence[Head], seed: int) -> tuple[Head, ...]:
    """Draw as many heads of each layer as are chosen there, others than these while they last."""
    random = np.random.default_rng(seed)
    found: list[Head] = []
    for layer in sorted({head.layer for head in chosen}):
        own = [head for head in chosen if head.layer == layer]
        others = [h for i in range(model.n_heads or 0) if (h := Head(layer, i)) not in own]
        pools = [(others, min(len(own), len(others))), (own, max(0, len(own) - len(others)))]
        for pool, count in pools:
            found += [pool[i] for i in random.choice(len(pool), count, replace=False)]
    return tuple(sorted(found))


def _seed(seed: int, name: str, draw: int, k: int) -> int:
    digest = hashlib.sha256(f"{seed}\x1f{name}\x1f{draw}\x1f{k}".encode()).digest()
    return int.from_bytes(digest[:8], "little")
