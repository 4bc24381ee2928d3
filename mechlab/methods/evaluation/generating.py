"""Texts that the model goes on to write from a case's generation prompts, and their measures."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from mechlab.engine.generation import DecodeRow, decode
from mechlab.errors import PromptError
from mechlab.methods.evaluation.texts import InverseFrequencies, ngram_entropy
from mechlab.progress import ProgressCallback
from mechlab.prompts import PromptSet

if TYPE_CHECKING:
    from mechlab.models import Model

__all__ = ["Generations", "generations"]


@dataclass(frozen=True)
class Generations:
    """How texts are generated."""

    length: int
    """Tokens of a text with its prompt; 0 for none at all."""
    top_k: int
    seed: int

    def check(self, model: "Model", cases: PromptSet[Any]) -> None:
        """Refuse prompts that cannot be read or leave nothing to be written.

        Raises:
            PromptError: all of them at once.
        """
        prompts = _prompts(cases)
        if not self.length or not prompts:
            return
        lengths = model.tokenize(prompts).lengths
        if long := [n for n, length in enumerate(lengths) if length >= self.length]:
            lines = "\n".join(f"  {prompts[n]!r:.60} has {lengths[n]} tokens" for n in long[:50])
            raise PromptError(
                f"{len(long)} of {len(prompts)} generation prompts have no room in "
                f"generation_length={self.length} tokens:\n{lines}\n"
                "  Allowed: prompts shorter than that.\n  Generate more tokens."
            )

    def write(
        self, model: "Model", prompts: Sequence[str], progress: ProgressCallback | None
    ) -> list[str]:
        """Return each prompt with its continuation, special tokens left out."""
        batch = model.tokenize(prompts)
        ids = [batch.row(n).tolist() for n in range(len(batch))]
        uniform = np.stack([self._numbers(prompt) for prompt in prompts])

        def choose(logits: Tensor, step: int, rows: Sequence[int]) -> Tensor:
            best = logits.topk(self.top_k, dim=-1)
            sure = best.values.double().softmax(-1).cumsum(-1)
            drawn = torch.from_numpy(uniform[list(rows), step]).to(sure)
            place = (sure < drawn[:, None] * sure[:, -1:]).sum(-1, keepdim=True)
            return best.indices.gather(1, place.clamp(max=self.top_k - 1))[:, 0]

        texts = [""] * len(prompts)
        groups = [[DecodeRow(n)] for n in range(len(prompts))]
        longest = self.length - min(map(len, ids))
        for group, (row,) in decode(
            model, ids, groups, max_new_tokens=longest, choose=choose, progress=progress
        ):
            whole = [*ids[group], *row.tokens][: self.length]
            texts[group] = str(model.tokenizer.decode(whole, skip_special_tokens=True))
        return texts

    def _numbers(self, prompt: str) -> Any:
        """Return random numbers that depend on the seed and this prompt alone."""
        label = hashlib.sha256(f"{self.seed}\0{prompt}".encode()).digest()
        draws = np.random.default_rng(int.from_bytes(label[:16], "big"))
        return draws.random(self.length)


def generations(
    model: "Model",
    cases: PromptSet[Any],
    how: Generations,
    width: int,
    progress: ProgressCallback | None,
) -> dict[str, Any]:
    """Return the variables `generation`, `generation_entropy` and `consistency`.

    Args:
        model: the model.
        cases: the cases.
        how: length, sampling and seed.
        width: entries of the axis `prompt`.
        progress: called between batches.
    """
    texts = np.full((len(cases), width), "", object)
    entropy, consistency = np.full(len(cases), np.nan), np.full(len(cases), np.nan)
    prompts = _prompts(cases)
    if how.length and prompts:
        written = dict(zip(prompts, how.write(model, prompts, progress), strict=True))
        words = InverseFrequencies.of(text for case in cases for text in case.reference_texts)
        for number, case in enumerate(cases):
            own = [written[prompt] for prompt in case.generation_prompts]
            if own:
                texts[number, : len(own)] = own
                entropy[number] = np.mean([ngram_entropy(text) for text in own])
                references = " ".join(case.reference_texts)
                consistency[number] = words.similarity(" ".join(own), references)
    return {
        "generation_entropy": ("case", entropy, {"units": "bits"}),
        "consistency": ("case", consistency, {"units": "cosine"}),
        "generation": (("case", "prompt"), texts),
    }


def _prompts(cases: PromptSet[Any]) -> list[str]:
    return list(dict.fromkeys(text for case in cases for text in case.generation_prompts))
