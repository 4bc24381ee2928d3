"""Which layers and heads of a model are meant: parsed, range-checked, and drawn at random."""

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from mechlab.axes import Head, heads
from mechlab.errors import OptionError, SiteError

if TYPE_CHECKING:
    from mechlab.models.model import Model

__all__ = ["chosen_heads", "chosen_layers", "head_sets", "random_heads"]

HeadNames = Sequence[Head | str]
"""Heads as values or in the field's notation, `[Head(9, 6), "L10H7"]`."""


def chosen_layers(model: "Model", layers: Sequence[int] | None) -> tuple[int, ...]:
    """Return the layers meant, all of them for `None`.

    Raises:
        SiteError: layers out of range or named twice, all at once.
        OptionError: when `layers` is not a list.
    """
    if layers is None:
        return tuple(range(model.n_layers))
    if isinstance(layers, str) or not isinstance(layers, Iterable):
        raise OptionError(f"layers={layers!r}. Allowed: a list of numbers. Put it in brackets.")
    found, last = tuple(layers), model.n_layers - 1
    wrong = [n for n in found if not _is_index(n) or n > last]
    if wrong or not found or len(set(found)) != len(found):
        raise SiteError(
            f"layers {wrong or list(found)} of {model.name}: layers go from 0 to {last}, each "
            "named once, at least one. Leave layers out for all of them."
        )
    return tuple(int(layer) for layer in found)


def chosen_heads(model: "Model", names: HeadNames, *, kv: bool = False) -> tuple[Head, ...]:
    """Return the heads meant, in the order given.

    Args:
        model: the model.
        names: heads as values or as text such as `L9H6`.
        kv: whether the second number counts key and value heads instead of query heads.

    Raises:
        OptionError: what is no head, or a head named twice; all at once.
        SiteError: heads out of range on this model, all at once; or a model without heads.
    """
    found = _parsed(names)
    _refuse_outside(model, found, kv=kv)
    return found


def head_sets(
    model: "Model", names: HeadNames | Mapping[str, HeadNames], *, together: bool, kv: bool = False
) -> dict[str, tuple[Head, ...]]:
    """Return named sets of heads.

    Args:
        model: the model.
        names: a list of heads, or a mapping from the name of a set to its heads.
        together: whether a list is one set (named `L9H6+L10H0`), or each of its heads a set.
        kv: as in `chosen_heads`.

    Raises:
        OptionError, SiteError: as in `chosen_heads`; or a set without heads.
    """
    if isinstance(names, Mapping):
        sets = {str(name): _parsed(given) for name, given in names.items()}
        _refuse_outside(model, [head for group in sets.values() for head in group], kv=kv)
    else:
        found = chosen_heads(model, names, kv=kv)
        groups = [found] if together else [(head,) for head in found]
        sets = {"+".join(map(str, group)): group for group in groups}
    if not sets or (empty := [name for name, group in sets.items() if not group]):
        raise OptionError(
            f"sets without heads: {', '.join(map(repr, empty)) if sets else 'no set at all'}. "
            "Allowed: at least one head per set. Name some."
        )
    return sets


def random_heads(
    model: "Model",
    k: int | None = None,
    *,
    seed: int = 0,
    exclude: HeadNames = (),
    layers: Sequence[int] | None = None,
    same_layers_as: HeadNames | None = None,
) -> list[Head]:
    """Draw different heads at random: the control of every claim about chosen ones.

    Args:
        model: the model.
        k: how many; with `same_layers_as` it may be left out.
        seed: the same seed draws the same heads.
        exclude: heads never drawn, such as the chosen ones.
        layers: layers to draw from; all by default.
        same_layers_as: draw as many heads from each layer as these have there.

    Returns:
        The heads, by layer and head.

    Raises:
        OptionError: when there are not enough heads to draw from, or the options contradict.
        SiteError: heads or layers that the model does not have.
    """
    barred = set(chosen_heads(model, exclude))
    wanted = _wanted(model, k, layers, same_layers_as)
    random = np.random.default_rng(seed)
    found: list[Head] = []
    for group, count in wanted:
        pool = [Head(n, h) for n in group for h in range(_head_count(model))]
        pool = [head for head in pool if head not in barred]
        if count > len(pool):
            raise OptionError(
                f"random_heads: {count} heads of layers {list(group)} are asked for, {len(pool)} "
                "are left to draw from. Ask for fewer, or exclude fewer."
            )
        found += [pool[i] for i in random.choice(len(pool), count, replace=False)]
    return sorted(found)


def _wanted(
    model: "Model", k: int | None, layers: Sequence[int] | None, like: HeadNames | None
) -> list[tuple[tuple[int, ...], int]]:
    """Return how many heads to draw from which layers."""
    if like is None:
        if k is None or not _is_index(k):
            raise OptionError(f"k={k!r} random heads. Allowed: whole numbers from 0. Give one.")
        return [(chosen_layers(model, layers), k)]
    pattern = chosen_heads(model, like)
    if layers is not None or (k is not None and k != len(pattern)):
        raise OptionError(
            f"random_heads: same_layers_as names {len(pattern)} heads, which fixes layers and "
            f"number; received layers={layers}, k={k}. Leave these out."
        )
    at = [head.layer for head in pattern]
    return [((layer,), at.count(layer)) for layer in sorted(set(at))]


def _parsed(names: HeadNames) -> tuple[Head, ...]:
    """Return heads from values and text; all that are none, or named twice, in one error."""
    if isinstance(names, str | Head) or not isinstance(names, Iterable):
        raise OptionError(f"heads={names!r}. Allowed: a list of heads. Put it in brackets.")
    given = tuple(names)
    if wrong := [name for name in given if not isinstance(name, str | Head)]:
        raise OptionError(
            f"not a head: {', '.join(map(repr, wrong))}. Allowed: ml.Head(layer, head) or "
            "'L<layer>H<head>'. Write them like this."
        )
    heads(*(name for name in given if isinstance(name, str)))  # names all that cannot be read
    found = tuple(name if isinstance(name, Head) else heads(name)[0] for name in given)
    if twice := [str(head) for head in dict.fromkeys(found) if found.count(head) > 1]:
        raise OptionError(f"heads named more than once: {', '.join(twice)}. Name each once.")
    return found


def _refuse_outside(model: "Model", found: Sequence[Head], *, kv: bool) -> None:
    count = _head_count(model, kv=kv)
    outside = [str(h) for h in found if h.layer >= model.n_layers or h.head >= count]
    if outside:
        axis = "kv_heads" if kv else "heads"
        raise SiteError(
            f"heads that {model.name} does not have: {', '.join(dict.fromkeys(outside))}. Allowed: "
            f"layers 0 to {model.n_layers - 1}, {axis} 0 to {count - 1}. Correct them."
        )


def _head_count(model: "Model", *, kv: bool = False) -> int:
    count = model.n_kv_heads if kv else model.n_heads
    if count is None:
        raise SiteError(f"{model.name} ({model.family}) is recurrent and has no attention heads.")
    return count


def _is_index(number: object) -> bool:
    whole = isinstance(number, int | np.integer) and not isinstance(number, bool)
    return whole and number >= 0  # type: ignore[operator]
