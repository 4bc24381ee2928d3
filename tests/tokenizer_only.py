"""What prompts ask of a model, without a model: a tokenizer alone."""

from importlib.resources import files
from types import SimpleNamespace
from typing import Any

import transformers

from mechlab.models.answers import continuation_tokens
from mechlab.models.encoding import make_encoder

__all__ = ["TokenizerOnly", "atlas_tokenizer"]


class TokenizerOnly:
    """Has `tokenize` and `answer_tokens` as `mechlab.models.Model` has them, and no weights."""

    def __init__(self, tokenizer: Any) -> None:
        self.encoder = make_encoder(tokenizer, prepend_bos=None, n_ctx=512, d_vocab=len(tokenizer))

    def tokenize(self, texts: Any) -> Any:
        rows = self.encoder.encode(list(texts))
        return SimpleNamespace(
            lengths=tuple(len(row.ids) for row in rows), offsets=tuple(row.offsets for row in rows)
        )

    def answer_tokens(self, prompts: Any, answers: Any, *, answer: Any) -> Any:
        return continuation_tokens(self.encoder, prompts, answers, answer=answer)


def atlas_tokenizer() -> TokenizerOnly:
    """The tokenizer of the shipped model `atlas`: byte-level, many names are single tokens."""
    folder = files("mechlab.organisms").joinpath("atlas")
    return TokenizerOnly(transformers.AutoTokenizer.from_pretrained(str(folder)))
