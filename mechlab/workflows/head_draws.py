"""Sets of heads and their controls: random heads of the same layers, or of the nearest with any.

A small model may have too few other heads in a layer (all four of the second layer of `echo` are
induction heads); drawing from the next layers then is told by `layer_distance`, which is 0 where
layers match exactly, and gives no p-value.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from mechlab.axes import Head
from mechlab.errors import OptionError
from mechlab.models import chosen_heads

if TYPE_CHECKING:
    from mechlab.models import Model

__all__ = [
    "INTACT",
    "ControlledSet",
    "Names",
    "controlled_sets",
    "matched_draws",
    "set_coordinates",
]

_ATTEMPTS = 50
"""So many draws are tried for each that is wanted, before sets count as exhausted."""


INTACT = "intact"
Names = Sequence[Head | str]


@dataclass(frozen=True)
class ControlledSet:
    """One entry of the axis `head_set`: heads that were chosen, or drawn beside such.

    Attributes:
        name: its label.
        heads: heads that are ablated together.
        control_of: the group that it is drawn for; empty for groups themselves.
        draw: number of the draw, -1 for groups.
        layer_distance: how many layers its heads are away from those that they stand for, on
            average.
    """

    name: str
    heads: tuple[Head, ...]
    control_of: str = ""
    draw: int = -1
    layer_distance: float = 0.0


def controlled_sets(
    model: "Model", groups: Mapping[str, Names], k: int | None, draws: int, seed: int
) -> tuple[list[ControlledSet], str]:
    """Return the groups, each followed by its random sets, and `ok` or what these cannot say.

    Args:
        model: whose heads they are.
        groups: heads by name.
        k: take the first so many of each; all when `None`.
        draws: random sets per group.
        seed: of all draws.

    Raises:
        OptionError: no groups, one called as the model without ablation, fewer than k heads, or too
            few left to draw from.
        SiteError: heads that the model does not have.
    """
    if not isinstance(groups, Mapping) or not groups or INTACT in groups:
        raise OptionError(
            f"groups={groups!r:.80}. Allowed: a mapping from names, but not {INTACT!r}, to lists "
            "of heads. Correct it."
        )
    chosen = {str(name): chosen_heads(model, heads) for name, heads in groups.items()}
    if short := [f"{n} ({len(h)})" for n, h in chosen.items() if k is not None and len(h) < k]:
        raise OptionError(
            f"k={k} heads of groups that have fewer: {', '.join(short)}. Allowed: as many as the "
            "smallest has. Lower k, or name more heads."
        )
    chosen = {name: heads[:k] for name, heads in chosen.items()}
    barred = [head for heads in chosen.values() for head in heads]
    sets, missing = [], []
    for number, (name, heads) in enumerate(chosen.items()):
        found = matched_draws(model, heads, draws, barred=barred, seed=[seed, number])
        sets.append(ControlledSet(name, heads))
        sets += [
            ControlledSet(f"{name} random {i}", drawn, name, i, away)
            for i, (drawn, away) in enumerate(found.items())
        ]
        missing += _shortcomings(str(name), found, draws) if heads else []
    return sets, "; ".join(missing) or "ok"


def _shortcomings(name: str, found: Mapping[tuple[Head, ...], float], draws: int) -> list[str]:
    """Return what the random sets of a group cannot say, in words."""
    told = []
    if away := max(found.values(), default=0.0):
        told.append(
            f"{name}: no layer-matched control: its layers have too few other heads, and random "
            f"ones lie {away:.1f} layers away on average. So there is no p-value"
        )
    if len(found) < draws:
        least = "" if away else f", so p is never below {1 / (1 + len(found)):.2g}"
        told.append(f"{name}: only {len(found)} different random sets of {draws}{least}")
    return told


def set_coordinates(sets: Sequence[ControlledSet]) -> dict[str, Any]:
    """Return the coordinates of the axis `head_set`, the intact model first."""
    every = [ControlledSet(INTACT, ()), *sets]
    columns: dict[str, list[Any]] = {
        "members": ["+".join(map(str, one.heads)) for one in every],
        "k": [len(one.heads) for one in every],
        "is_control": [one.draw >= 0 for one in every],
        "control_of": [one.control_of for one in every],
        "draw": [one.draw for one in every],
        "layer_distance": [one.layer_distance for one in every],
    }
    named = {name: ("head_set", values) for name, values in columns.items()}
    return {"head_set": [one.name for one in every]} | named


def matched_draws(
    model: "Model", members: Sequence[Head], draws: int, *, barred: Sequence[Head], seed: Any
) -> dict[tuple[Head, ...], float]:
    """Return random sets as large as `members`, with their distance in layers from these.

    Each layer gives as many heads as there are members in it, as far as it has so many; the nearest
    ones give the rest.

    Args:
        model: whose heads are drawn.
        members: heads that are stood for.
        draws: how many sets; fewer come back where there are not so many different ones.
        barred: heads never drawn.
        seed: of numpy's generator.

    Returns:
        Different sets, each with the mean distance in layers, 0 where layers match.

    Raises:
        OptionError: when the model has too few other heads.
    """
    if not members:
        return {}
    per_layer = model.n_heads or 0
    taken = set(barred)
    free = {
        layer: [one for h in range(per_layer) if (one := Head(layer, h)) not in taken]
        for layer in range(model.n_layers)
    }
    if (left := sum(map(len, free.values()))) < len(members):
        raise OptionError(
            f"{len(members)} random heads of {model.name} are asked for, {left} are left to draw "
            "from beside those that are ablated. Ablate fewer, or set draws=0."
        )
    random = np.random.default_rng(seed)
    found: dict[tuple[Head, ...], float] = {}
    for _ in range(_ATTEMPTS * draws):
        if len(found) == draws:
            break
        drawn, away = _drawn(free, members, random)
        found.setdefault(drawn, away)
    return found


def _drawn(
    free: dict[int, list[Head]], members: Sequence[Head], random: np.random.Generator
) -> tuple[tuple[Head, ...], float]:
    left = {
        layer: [heads[i] for i in random.permutation(len(heads))] for layer, heads in free.items()
    }
    chosen: list[Head] = []
    unmatched = []  # served last, so that they take no place of a head that can be matched
    for layer in sorted(head.layer for head in members):
        if left[layer]:
            chosen.append(left[layer].pop())
        else:
            unmatched.append(layer)
    away = 0
    for layer in unmatched:
        near = min((one for one in left if left[one]), key=lambda one: (abs(one - layer), one))
        away += abs(near - layer)
        chosen.append(left[near].pop())
    return tuple(sorted(chosen)), away / len(members)
