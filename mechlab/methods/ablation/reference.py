"""What stands in for an ablated activation: its mean over other prompts, or its value in one."""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from torch import Tensor

from mechlab import engine
from mechlab.engine import Base, Grid, Positions
from mechlab.errors import OptionError, PromptError
from mechlab.hooks import Place
from mechlab.prompts import PromptSet, as_prompt_set

if TYPE_CHECKING:
    from mechlab.models import Model

__all__ = ["Average", "Reference", "draw_others", "mean_banks"]

Average = Literal["by_position", "over_positions"]


@dataclass(frozen=True)
class Reference:
    """The prompts that an ablation reads.

    Attributes:
        prompts: the set, whose digest is the reference's fingerprint.
        texts: what the model reads (the clean prompt of a pair).
        lengths: tokens of each.
        by_length: whether only prompts of the ablated prompt's length can stand in for it.
    """

    prompts: PromptSet[Any]
    texts: tuple[str, ...]
    lengths: tuple[int, ...]
    by_length: bool

    @classmethod
    def make(cls, model: "Model", given: object, *, by_length: bool) -> "Reference":
        """Tokenise the reference.

        Raises:
            OptionError: when there is none.
            PromptError: when it holds no prompts, or some that cannot be tokenised.
        """
        if given is None:
            raise OptionError(
                "kind='mean' and kind='resample' need reference=...: the prompts whose activations "
                "stand in. Allowed: a PromptSet or a list of prompts. Give some, or kind='zero'."
            )
        prompts = as_prompt_set(given, kind="any")
        texts = tuple(prompt.text for prompt in prompts)
        return cls(prompts, texts, model.tokenize(texts).lengths, by_length)

    def fitting(self, length: int) -> list[int]:
        """Return the reference prompts that can stand in for one of `length` tokens."""
        return [i for i, own in enumerate(self.lengths) if not self.by_length or own == length]

    def others(self, text: str, length: int) -> list[int]:
        """Return those that fit and are another text; all that fit when there is no other."""
        fitting = self.fitting(length)
        return [i for i in fitting if self.texts[i] != text] or fitting

    def check(self, positions: Positions, lengths: Sequence[int]) -> None:
        """Refuse prompts for which no reference prompt fits.

        Raises:
            PromptError: naming all of them; or reference prompts without positions listed for all.
        """
        positions.check(self.lengths)
        without = [f"#{i} ({n} tokens)" for i, n in enumerate(lengths) if not self.fitting(n)]
        if without:
            known = ", ".join(map(str, sorted(set(self.lengths))))
            raise PromptError(
                f"no reference prompt has as many tokens as {len(without)} of {len(lengths)} "
                f"prompts: {', '.join(without)}. Lengths in the reference: {known}. Allowed: a "
                "reference with prompts of every length, positions counted from the end, or for "
                "means average='over_positions'."
            )

    def check_draws(self, texts: Sequence[str], lengths: Sequence[int], draws: int) -> None:
        """Refuse prompts that have fewer stand-ins than draws.

        Raises:
            PromptError: naming all of them.
        """
        counts = [len(self.others(*pair)) for pair in zip(texts, lengths, strict=True)]
        few = [f"#{i} ({count})" for i, count in enumerate(counts) if count < draws]
        if few:
            raise PromptError(
                f"draws={draws}: {len(few)} of {len(texts)} prompts have fewer reference prompts "
                f"to draw from: {', '.join(few)}. Allowed: draws up to their number. Lower draws, "
                "or give a larger reference."
            )


def draw_others(
    reference: Reference, text: str, length: int, *, draws: int, seed: int
) -> list[int]:
    """Return different reference prompts for one prompt; its company plays no part."""
    digest = hashlib.sha256(f"{seed}\x1f{text}".encode()).digest()
    random = np.random.default_rng(int.from_bytes(digest[:8], "little"))
    others = reference.others(text, length)
    return [others[i] for i in random.permutation(len(others))[:draws]]


def mean_banks(
    model: "Model", reference: Reference, grid: Grid, lengths: Iterable[int], average: Average
) -> tuple[dict[str, Tensor], dict[int, int]]:
    """Return the means to write, as banks of the engine.

    Args:
        model: the model.
        reference: the prompts to average over.
        grid: the cells; a bank is made for each of their places, named by `bank_name`.
        lengths: tokens of the prompts that are ablated.
        average: at each position, or over all positions of all prompts.

    Returns:
        Banks `[length, pos, ...]`, and the entry of each length of prompt.
    """
    entry = {length: i for i, length in enumerate(sorted(set(lengths)))}
    width, places = max(entry), [(grid.site, layer) for layer in grid.layers]
    sums: dict[Place, Tensor] = {}
    counts = torch.zeros(len(entry), dtype=torch.float64, device=model.device)
    for recording in engine.record(model, [Base(text) for text in reference.texts], places):
        own = reference.lengths[recording.base]
        fits = [i for n, i in entry.items() if not reference.by_length or n == own]
        counts[fits] += own if average == "over_positions" else 1
        for place, value in recording.values.items():
            value = value.double()
            if place not in sums:
                sums[place] = value.new_zeros(len(entry), width, *value.shape[1:])
            for length, i in entry.items():
                if i in fits:
                    _add(sums[place][i, :length], value, grid.positions, average)
    means = {
        place: (total / counts.view(-1, *[1] * (total.ndim - 1))).to(model.dtype)
        for place, total in sums.items()
    }
    wanted = {place for unit in grid.units for place in unit.places}
    banks = {bank_name(layer, head): _head(means[grid.site, layer], head) for layer, head in wanted}
    return banks, entry


def bank_name(layer: int, head: int | None) -> str:
    """Return the name of the bank of one place."""
    return f"L{layer}" if head is None else f"L{layer}H{head}"


def _add(total: Tensor, value: Tensor, positions: Positions, average: Average) -> None:
    """Add one reference prompt to the sums of one length of prompt, `[pos, ...]`."""
    if average == "over_positions":
        total += value.sum(0)
    elif positions.listed is None:
        total += value
    else:
        for pos in positions.listed:
            total[pos] += value[pos]


def _head(mean: Tensor, head: int | None) -> Tensor:
    return mean if head is None else mean[:, :, head]
