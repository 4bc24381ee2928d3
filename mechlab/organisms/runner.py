"""Batched next-token scores of a small Hugging Face model, for measuring skills."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from tokenizers import Tokenizer

__all__ = ["Runner"]


class Runner:
    """A model with its raw tokenizer; every prompt gets a BOS token."""

    def __init__(self, model: Any, tokenizer: "Tokenizer", bos: int = 0) -> None:
        """Hold `model` (a causal language model) and `tokenizer`."""
        self.model = model
        self.tokenizer = tokenizer
        self.bos = bos

    def ids(self, text: str) -> list[int]:
        """Return the token ids of a text, BOS first."""
        return [self.bos, *self.tokenizer.encode(text, add_special_tokens=False).ids]

    def first_token(self, answer: str) -> int:
        """Return the id of an answer's first token after a space."""
        return int(self.tokenizer.encode(f" {answer}", add_special_tokens=False).ids[0])

    def last_log_probabilities(self, texts: Sequence[str], rows: int = 64) -> np.ndarray:
        """Return log-probabilities of the token after each text, float32 [prompt, vocab]."""
        return self.after([self.ids(text) for text in texts], rows)

    def after(self, sequences: Sequence[Sequence[int]], rows: int = 64) -> np.ndarray:
        """Return log-probabilities after each token sequence, float32 [prompt, vocab]."""
        import torch

        order = sorted(range(len(sequences)), key=lambda i: len(sequences[i]))
        found: list[np.ndarray | None] = [None] * len(sequences)
        for start in range(0, len(order), rows):
            chosen = order[start : start + rows]
            lengths = torch.tensor([len(sequences[i]) for i in chosen])
            # Padding on the right changes nothing before it in a causal model.
            tokens = torch.zeros(len(chosen), int(lengths.max()), dtype=torch.long)
            for row, index in enumerate(chosen):
                tokens[row, : lengths[row]] = torch.tensor(sequences[index])
            with torch.inference_mode():
                states = self.model.get_decoder()(input_ids=tokens, use_cache=False)[0]
                last = states[torch.arange(len(chosen)), lengths - 1]
                logits = self.model.get_output_embeddings()(last).float()
                scores = logits.log_softmax(-1).numpy()
            for row, index in enumerate(chosen):
                found[index] = scores[row]
        return np.stack([row for row in found if row is not None])

    def losses(self, tokens: np.ndarray, rows: int = 32) -> np.ndarray:
        """Return the loss of predicting `tokens[:, 1:]`, in nats, float32 [prompt, pos - 1]."""
        import torch

        found = []
        for start in range(0, len(tokens), rows):
            part = torch.from_numpy(tokens[start : start + rows])
            with torch.inference_mode():
                logits = self.model(input_ids=part, use_cache=False).logits[:, :-1].float()
                loss = torch.nn.functional.cross_entropy(
                    logits.transpose(1, 2), part[:, 1:], reduction="none"
                )
            found.append(loss.numpy())
        return np.concatenate(found)

    def continue_greedily(self, text: str, count: int) -> str:
        """Return the text of the next `count` most likely tokens."""
        ids = self.ids(text)
        start = len(ids)
        for _ in range(count):
            ids.append(int(self.after([ids])[0].argmax()))
        return str(self.tokenizer.decode(ids[start:], skip_special_tokens=False))
