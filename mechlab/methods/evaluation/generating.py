"""Texts that the model goes on to write from a case's generation prompts, and their measures."""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from mechlab.engine.generation import DecodeRow, decode
from mechlab.errors import PromptError
from mechlab.methods.evaluation.texts import InverseFrequencies, ngram_entropy
from mechlab.progress import ProgressCallback
from mechlab.prompts import EditCase, PromptSet

if TYPE_CHECKING:
    from mechlab.models import Model

__all__ = ["Generations", "text_variables"]


@dataclass(frozen=True)
class Generations:
    """How texts are generated."""

    length: int
    """Tokens of a text with its prompt; 0 for none at all."""
    top_k: int
    seed: int

    def check(self, model: "Model", cases: Iterable[EditCase]) -> None:
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
        self, model: "Model", cases: Iterable[EditCase], progress: ProgressCallback | None
    ) -> Mapping[str, str]:
        """Return the text of each generation prompt, the prompt included, special tokens left out.

        Nothing is written when the length is 0.
        """
        if not self.length or not (prompts := _prompts(cases)):
            return {}
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
        return dict(zip(prompts, texts, strict=True))

    def _numbers(self, prompt: str) -> Any:
        """Return random numbers that depend on the seed and this prompt alone."""
        label = hashlib.sha256(f"{self.seed}\0{prompt}".encode()).digest()
        draws = np.random.default_rng(int.from_bytes(label[:16], "big"))
        return draws.random(self.length)


def text_variables(
    cases: PromptSet[Any], written: Sequence[Mapping[str, str]], width: int
) -> dict[str, Any]:
    """Return the variables `generation`, `generation_entropy` and `consistency`.

    Args:
        cases: the cases.
        written: for each case the text of each of its generation prompts; none for no text at all.
        width: entries of the axis `prompt`.
    """
    texts = np.full((len(cases), width), "", object)
    entropy, consistency = np.full(len(cases), np.nan), np.full(len(cases), np.nan)
    words = InverseFrequencies.of(text for case in cases for text in case.reference_texts)
    for number, (case, found) in enumerate(zip(cases, written, strict=True)):
        if own := [found[prompt] for prompt in case.generation_prompts if prompt in found]:
            texts[number, : len(own)] = own
            entropy[number] = np.mean([ngram_entropy(text) for text in own])
            references = " ".join(case.reference_texts)
            consistency[number] = words.similarity(" ".join(own), references)
    return {
        "generation_entropy": ("case", entropy, {"units": "bits"}),
        "consistency": ("case", consistency, {"units": "cosine"}),
        "generation": (("case", "prompt"), texts),
    }


def _prompts(cases: Iterable[EditCase]) -> list[str]:
    return list(dict.fromkeys(text for case in cases for text in case.generation_prompts))
