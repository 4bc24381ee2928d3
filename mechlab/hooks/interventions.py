"""What one counterfactual run changes: interventions as frozen values.

An intervention holds no model and no closure. It hashes and compares by content, so that it can be
packed into batches, kept in a store key and printed. `source` of `Patch`, `Freeze` and a resampling
`Ablate` is the index of another base run of the same call.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from mechlab.errors import OptionError, SiteError
from mechlab.hooks.sites import SITES, Site

__all__ = [
    "Ablate",
    "AddNoise",
    "Block",
    "FrozenArray",
    "Freeze",
    "Insert",
    "Intervention",
    "Patch",
    "Scale",
    "Steer",
    "single_sites",
    "source_of",
]


class FrozenArray:
    """A read-only array that hashes and compares by bytes, dtype and shape."""

    __slots__ = ("digest", "values")

    def __init__(self, values: Any) -> None:
        """Copy `values` and compute the digest of their bytes, dtype and shape."""
        copy = np.array(values, copy=True, order="C")
        copy.setflags(write=False)
        self.values: np.ndarray[Any, np.dtype[Any]] = copy
        header = f"{copy.dtype.str}{copy.shape}".encode()
        self.digest = hashlib.sha256(header + copy.tobytes()).hexdigest()

    def __eq__(self, other: object) -> bool:
        """Compare by content."""
        return isinstance(other, FrozenArray) and self.digest == other.digest

    def __hash__(self) -> int:
        """Hash by content."""
        return hash(self.digest)

    def to_json(self) -> str:
        """Return the digest: as part of an option of a run, an array is keyed by its contents."""
        return self.digest

    def __repr__(self) -> str:
        """Show shape and digest rather than numbers."""
        return f"FrozenArray({self.values.dtype}{list(self.values.shape)}, {self.digest[:12]})"


@dataclass(frozen=True, slots=True)
class Patch:
    """Replace a site's value by its value in another run of the same call.

    Attributes:
        site: where to write. A site without `pos` is replaced at every position.
        source: index of the base run to read from.
        source_pos: position to read in that run, when its prompt differs; default `site.pos`.
    """

    site: Site
    source: int
    source_pos: int | None = None


@dataclass(frozen=True, slots=True)
class Freeze:
    """Hold sites at their values in another run, whatever happens upstream (path patching).

    Attributes:
        sites: where to write.
        source: index of the base run to read from.
    """

    sites: tuple[Site, ...]
    source: int


@dataclass(frozen=True, slots=True)
class Insert:
    """Replace a site's value by one that was worked out outside the model.

    The values come with the call, as `banks={name: tensor}` of `engine.run`. A bank is
    `[index, pos, ...]` with `pos` counted in the row's unpadded prompt and the trailing axes of the
    site (`[d_head]` alone where `site.head` names one head).

    Attributes:
        site: where to write; every position, or `site.pos` alone. Not `scores` or `pattern`.
        bank: name of the tensor.
        index: which entry of it.
    """

    site: Site
    bank: str
    index: int

    def __post_init__(self) -> None:
        """Refuse sites whose values depend on the padding.

        Raises:
            SiteError: for `scores` and `pattern`.
        """
        if SITES[self.site.name].axes == "bhqk":
            raise SiteError(
                f"Insert cannot write {self.site.name!r}. Allowed: sites with one vector per "
                "position. Use Block or Scale to change attention weights."
            )


@dataclass(frozen=True, slots=True)
class Ablate:
    """Remove what a site carries.

    Attributes:
        site: where.
        kind: `zero`; `mean` writes `reference` (`[d]` of the site, per head where a head is named);
            `resample` writes the value of base run `source`.
        reference: the mean to write.
        source: index of the base run to read from.
    """

    site: Site
    kind: Literal["zero", "mean", "resample"] = "zero"
    reference: FrozenArray | None = None
    source: int | None = None

    def __post_init__(self) -> None:
        """Refuse a kind without what it needs.

        Raises:
            OptionError: unknown kind, or reference/source missing or superfluous.
        """
        needs = {"zero": (False, False), "mean": (True, False), "resample": (False, True)}
        if self.kind not in needs:
            raise OptionError(f"Ablate: unknown kind {self.kind!r}. Kinds: {', '.join(needs)}.")
        if (self.reference is not None, self.source is not None) != needs[self.kind]:
            raise OptionError(
                f"Ablate(kind={self.kind!r}): reference={self.reference}, source={self.source}. "
                "'zero' takes neither, 'mean' takes reference, 'resample' takes source."
            )


@dataclass(frozen=True, slots=True)
class AddNoise:
    """Add Gaussian noise to a span of positions.

    The draw is a function of (seed, text of the prompt, draw) alone: batch order, batch size and
    the other prompts never change it.

    Attributes:
        site: where; its `pos` must be `None`, the span gives the positions.
        first, last: span of positions, both included, in the unpadded prompt.
        std: standard deviation of the noise, in the units of the site.
        seed: seed of the whole sweep.
        draw: which sample.
    """

    site: Site
    first: int
    last: int
    std: float
    seed: int
    draw: int

    def __post_init__(self) -> None:
        """Refuse spans and scales that mean nothing.

        Raises:
            OptionError: an empty or negative span, or a negative or non-finite `std`.
        """
        if not 0 <= self.first <= self.last:
            raise OptionError(f"AddNoise: span [{self.first}, {self.last}] is empty or negative.")
        if not (np.isfinite(self.std) and self.std >= 0):
            raise OptionError(f"AddNoise: std={self.std} must be finite and not negative.")
        if self.site.pos is not None or SITES[self.site.name].axes != "bpd":
            raise SiteError(
                "AddNoise acts on a span of a [batch, pos, d_model] site; leave Site.pos out."
            )


@dataclass(frozen=True, slots=True)
class Steer:
    """Add `scale * vector` to a site.

    Attributes:
        site: where.
        vector: direction, `[d]` of the site (`[d_head]` where the site has heads).
        scale: factor.
    """

    site: Site
    vector: FrozenArray
    scale: float = 1.0


@dataclass(frozen=True, slots=True)
class Scale:
    """Multiply a site by a number (head scaling: `z` of one query head).

    Attributes:
        site: where.
        alpha: factor; 1 changes nothing, 0 removes.
    """

    site: Site
    alpha: float


@dataclass(frozen=True, slots=True)
class Block:
    """Cut attention edges.

    Attributes:
        layer: block index.
        queries, keys: token positions; every (query, key) pair with key <= query is cut.
        heads: query heads; `None` for all.
        mode: `mask` sets the scores to minus infinity before the softmax, so that the other keys
            share the weight; `zero` sets the weights to 0 after it, so that rows sum to less.
    """

    layer: int
    queries: tuple[int, ...]
    keys: tuple[int, ...]
    heads: tuple[int, ...] | None = None
    mode: Literal["mask", "zero"] = "mask"
    site: Site = field(init=False)

    def __post_init__(self) -> None:
        """Work out the site and refuse rows that would attend to nothing.

        Raises:
            OptionError: no edges, an unknown mode, or a query whose every key is masked.
        """
        if not self.queries or not self.keys or min(*self.queries, *self.keys, 0) < 0:
            raise OptionError("Block needs at least one query and one key, none of them negative.")
        if self.mode not in ("mask", "zero"):
            raise OptionError(f"Block: unknown mode {self.mode!r}. Modes: mask, zero.")
        if self.mode == "mask" and (
            empty := [q for q in self.queries if set(range(q + 1)) <= set(self.keys)]
        ):
            raise OptionError(
                f"Block: queries {empty} would have every key masked, and a softmax over nothing "
                "is undefined. Keep a key, or use mode='zero'."
            )
        name = "scores" if self.mode == "mask" else "pattern"
        object.__setattr__(self, "site", Site(name, self.layer))


Intervention = Patch | Freeze | Insert | Ablate | AddNoise | Steer | Scale | Block


def single_sites(
    intervention: Intervention,
) -> "Iterator[Patch | Insert | Ablate | AddNoise | Steer | Scale | Block]":
    """Spell a `Freeze` out as one `Patch` per site; anything else is itself."""
    if isinstance(intervention, Freeze):
        yield from (Patch(site, intervention.source) for site in intervention.sites)
    else:
        yield intervention


def source_of(intervention: Intervention) -> int | None:
    """Return the base run that an intervention reads, if any."""
    if isinstance(intervention, Patch | Freeze):
        return intervention.source
    return intervention.source if isinstance(intervention, Ablate) else None
