"""What stands in for an ablated output, as vectors: zeros, a mean, or values of other prompts."""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from torch import Tensor

from mechlab import engine
from mechlab.engine import Base
from mechlab.errors import OptionError, PromptError
from mechlab.hooks import Ablate, FrozenArray, Place, Site
from mechlab.prompts import PromptSet, as_prompt_set

if TYPE_CHECKING:
    from mechlab.models import Model

__all__ = ["Kind", "StandIns", "Where"]

Kind = Literal["zero", "mean", "resample"]
Where = Literal["last", "all"]


@dataclass(frozen=True)
class StandIns:
    """Which values are written where.

    Attributes:
        kind: `zero`, `mean` or `resample`.
        where: at the last position, or at all of them.
        draws: how many reference prompts per prompt; 1 unless resampled.
        seed: decides which.
        reference: the prompts read, or `None`.
        texts, lengths: of the reference, as the model reads them.
    """

    kind: Kind
    where: Where
    draws: int
    seed: int
    reference: PromptSet[Any] | None
    texts: tuple[str, ...]
    lengths: tuple[int, ...]

    @classmethod
    def make(
        cls, model: "Model", kind: Kind, where: Where, reference: object, draws: int, seed: int
    ) -> "StandIns":
        """Check the options against each other and tokenise the reference.

        Raises:
            OptionError: a reference that is missing or not read.
            PromptError: a reference that cannot be tokenised.
        """
        if (kind == "zero") != (reference is None):
            raise OptionError(
                f"kind={kind!r} with reference={'none' if reference is None else 'prompts'}. "
                "Allowed: 'zero' without a reference, 'mean' and 'resample' with one: the prompts "
                "whose outputs stand in. Change one of the two."
            )
        if reference is None:
            return cls(kind, where, 1, seed, None, (), ())
        prompts = as_prompt_set(reference, kind="any")
        texts = tuple(dict.fromkeys(prompt.text for prompt in prompts))
        draws = draws if kind == "resample" else 1
        return cls(kind, where, draws, seed, prompts, texts, model.tokenize(texts).lengths)

    def check(self, texts: Sequence[str], lengths: Sequence[int]) -> None:
        """Refuse prompts that have fewer stand-ins than draws.

        Raises:
            PromptError: naming all of them.
        """
        if self.kind != "resample":
            return
        counts = [len(self._others(*pair)) for pair in zip(texts, lengths, strict=True)]
        few = [f"#{i} ({count})" for i, count in enumerate(counts) if count < self.draws]
        if few:
            raise PromptError(
                f"draws={self.draws}: {len(few)} of {len(texts)} prompts have fewer reference "
                f"prompts to draw from: {', '.join(few[:20])}.\n  Allowed: as many as are drawn; "
                "with positions='all' those of the same number of tokens.\n  Lower draws, or give "
                "a larger reference."
            )

    def _others(self, text: str, length: int) -> list[int]:
        """Return the reference prompts that fit and are another text; else all that fit."""
        whole = self.where == "all"
        fitting = [i for i, own in enumerate(self.lengths) if not whole or own == length]
        return [i for i in fitting if self.texts[i] != text] or fitting

    def drawn(self, text: str, length: int) -> list[int]:
        """Return the reference prompts of one prompt (`[-1]` where none is drawn).

        They depend on the seed, the text and the reference alone, not on other prompts.
        """
        if self.kind != "resample":
            return [-1]
        digest = hashlib.sha256(f"{self.seed}\x1f{text}".encode()).digest()
        random = np.random.default_rng(int.from_bytes(digest[:8], "little"))
        others = self._others(text, length)
        return [others[i] for i in random.permutation(len(others))[: self.draws]]

    def values(
        self, model: "Model", places: Sequence[Place], prompts: Iterable[tuple[str, int]]
    ) -> "Values":
        """Run what of the reference is read for prompts (text, tokens), and keep its outputs."""
        kept: dict[int, dict[Place, Tensor]] = {}
        used: Sequence[int] = range(len(self.texts))
        if self.kind == "resample":
            used = sorted({other for prompt in prompts for other in self.drawn(*prompt)})
        if not used:
            return Values(self, kept, {})
        sums = dict.fromkeys(places, torch.zeros(model.d_model, dtype=torch.float64))
        count = 0
        for recording in engine.record(model, [Base(self.texts[i]) for i in used], places):
            last = slice(-1, None) if self.where == "last" else slice(None)
            found = {place: value[last].cpu() for place, value in recording.values.items()}
            if self.kind == "resample":
                kept[used[recording.base]] = found
            for place, value in found.items():
                sums[place] = sums[place] + value.double().sum(0)
            count += len(next(iter(found.values())))
        return Values(self, kept, {place: total / count for place, total in sums.items()})


@dataclass(frozen=True, eq=False)
class Values:
    """Outputs of the reference prompts, `[pos, d_model]` each, and their mean, `[d_model]`."""

    about: StandIns
    kept: dict[int, dict[Place, Tensor]]
    mean: dict[Place, Tensor]

    def steps(self, place: Place, other: int, length: int) -> tuple[Ablate, ...]:
        """Return the interventions that ablate one place of a prompt of `length` tokens."""
        name, layer = place
        whole = self.about.where == "all"
        site = Site(name, layer) if whole else Site(name, layer, pos=length - 1)
        if self.about.kind == "zero":
            return (Ablate(site),)
        if self.about.kind == "mean":
            return (Ablate(site, "mean", _frozen(self.mean[place])),)
        rows = self.kept[other][place]
        places = [Site(name, layer, pos=pos) for pos in range(length)] if whole else [site]
        return tuple(Ablate(at, "mean", _frozen(row)) for at, row in zip(places, rows, strict=True))


def _frozen(vector: Tensor) -> FrozenArray:
    wide = vector if vector.dtype == torch.float64 else vector.float()
    return FrozenArray(wide.numpy())
