"""From text to token ids, one way only, with every text that cannot be used named at once.

The rule about the beginning-of-sequence (BOS) token is decided here, once per model: it is put in
front exactly when the Hugging Face tokenizer itself puts it there, so that numbers equal those of
plain Hugging Face code. (TransformerLens decides by architecture instead, which gives GPT-2 a BOS
that its tokenizer does not add.) End-of-sequence tokens that a tokenizer appends are never used:
a prompt is to be continued.
"""

import threading
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from mechlab.errors import ModelError, OptionError, PromptError
from mechlab.models.tokens import Span

__all__ = ["Encoded", "Encoder", "make_encoder", "shorten"]


@dataclass(frozen=True)
class Encoded:
    """One text as token ids, BOS included, with the characters `[start, end)` of each token."""

    ids: tuple[int, ...]
    offsets: tuple[Span, ...]


@dataclass(frozen=True)
class Encoder:
    """A tokenizer with its rules fixed.

    Attributes:
        tokenizer: a fast Hugging Face tokenizer (one that knows character offsets).
        bos_id: the token put in front of every text, or `None` for none.
        n_ctx: longest row in tokens, or `None` when the architecture has no limit.
        d_vocab: number of token ids the model has embeddings for.
        filler: the id written into padded positions.
    """

    tokenizer: Any
    bos_id: int | None
    n_ctx: int | None
    d_vocab: int
    filler: int
    _busy: threading.Lock = field(default_factory=threading.Lock, repr=False, compare=False)

    def encode(self, texts: Sequence[str]) -> list[Encoded]:
        """Tokenise texts that must all be usable.

        Raises:
            PromptError: when there are no texts; for texts that are empty, too long, begin with
                the BOS text although BOS is put there anyway, or hold characters the tokenizer
                does not know. Every offender is listed with its index.
        """
        self._refuse(texts, [_not_text(text) for text in texts])
        encoded = self.encode_unchecked(texts)
        pairs = zip(texts, encoded, strict=True)
        self._refuse(texts, [self.complaint(text, row) for text, row in pairs])
        return encoded

    def _refuse(self, texts: Sequence[str], complaints: Sequence[str]) -> None:
        lines = [
            f"  #{index} {shorten(texts[index])} {complaint}"
            for index, complaint in enumerate(complaints)
            if complaint
        ]
        if lines or not texts:
            limit = f"1 to {self.n_ctx}" if self.n_ctx is not None else "1 or more"
            raise PromptError(
                f"{len(lines)} of {len(texts)} texts cannot be given to the model"
                + ("" if texts else " (no text was given)")
                + "".join(f"\n{line}" for line in lines)
                + f"\n  Allowed: texts of {limit} tokens, all known to the tokenizer.\n"
                "  Change or drop these texts; model.show_tokens(text) shows what the model sees."
            )

    def unlimited(self) -> "Encoder":
        """Return the same rules without a limit on length."""
        return replace(self, n_ctx=None)

    def encode_unchecked(self, texts: Sequence[str]) -> list[Encoded]:
        """Tokenise texts without looking at the outcome."""
        front = ((self.bos_id,), ((0, 0),)) if self.bos_id is not None else ((), ())
        with self._busy:  # fast tokenizers refuse two threads that set their padding at once
            rows = self.tokenizer(
                list(texts),
                add_special_tokens=False,
                return_offsets_mapping=True,
                return_attention_mask=False,
                return_token_type_ids=False,
                padding=False,
                truncation=False,
                verbose=False,
            )
        return [
            Encoded((*front[0], *ids), (*front[1], *((int(a), int(b)) for a, b in offsets)))
            for ids, offsets in zip(rows["input_ids"], rows["offset_mapping"], strict=True)
        ]

    def complaint(self, text: str, row: Encoded) -> str:
        """Say why a text, as `encode_unchecked` returned it, cannot be used; or nothing."""
        skip = 0 if self.bos_id is None else 1
        ids, offsets = row.ids[skip:], row.offsets[skip:]
        if not ids:
            return "has no tokens"
        if ids[0] == self.bos_id:
            return (
                f"begins with {self.tokenizer.decode([self.bos_id])!r}, which is put there anyway"
            )
        if self.n_ctx is not None and len(row.ids) > self.n_ctx:
            return f"has {len(row.ids)} tokens, the model's context is {self.n_ctx}"
        if unknown := self._unknown(text, ids, offsets):
            return f"has no token for {', '.join(map(repr, unknown[:5]))}"
        return ""

    def _unknown(self, text: str, ids: Sequence[int], offsets: Sequence[Span]) -> list[str]:
        """Return pieces that became the unknown token, an id without embedding, or nothing."""
        unknown = _unknown_id(self.tokenizer)
        bad = [
            text[a:b]
            for token, (a, b) in zip(ids, offsets, strict=True)
            if token == unknown or token >= self.d_vocab
        ]
        return list(dict.fromkeys([*bad, *_dropped(text, offsets)]))


def make_encoder(
    tokenizer: Any, *, prepend_bos: bool | None, n_ctx: int | None, d_vocab: int
) -> Encoder:
    """Fix a tokenizer's rules.

    Args:
        tokenizer: a fast Hugging Face tokenizer.
        prepend_bos: `None` follows the tokenizer's own convention.
        n_ctx: longest row in tokens, `None` for no limit.
        d_vocab: number of token ids the model has embeddings for.

    Raises:
        ModelError: for a tokenizer without character offsets, or one made for a larger vocabulary.
        OptionError: when a BOS is asked for and the tokenizer has none.
    """
    _check_tokenizer(tokenizer, d_vocab)
    own = None if prepend_bos is False else _own_bos(tokenizer)
    wanted = own is not None if prepend_bos is None else prepend_bos
    bos = (own if own is not None else tokenizer.bos_token_id) if wanted else None
    if wanted and bos is None:
        raise OptionError(
            "prepend_bos=True, but this tokenizer has no beginning-of-sequence token.\n"
            "  Allowed here: None (follow the tokenizer) or False.\n"
            "  Set tokenizer.bos_token first if the model was trained with one."
        )
    return Encoder(tokenizer, bos, n_ctx, d_vocab, _filler(tokenizer, d_vocab))


def shorten(text: object, width: int = 40) -> str:
    """Return the text quoted and cut to about `width` characters, for error messages."""
    text = text if isinstance(text, str) else repr(text)
    return repr(text if len(text) <= width else text[: width - 1] + "…")


def _not_text(text: object) -> str:
    """Say why this cannot be handed to any tokenizer, or nothing."""
    if not isinstance(text, str):
        return f"is {type(text).__name__}, not text"
    if any(0xD800 <= ord(character) < 0xE000 for character in text):
        return "holds half of a surrogate pair"
    return "" if text else "is empty"


def _check_tokenizer(tokenizer: Any, d_vocab: int) -> None:
    if not getattr(tokenizer, "is_fast", False):
        raise ModelError(
            f"the tokenizer {type(tokenizer).__name__} does not report character offsets, which "
            "are needed to find subjects in prompts.\n"
            "  Allowed: a fast tokenizer (transformers.PreTrainedTokenizerFast, tokenizer.json).\n"
            "  Convert it: AutoTokenizer.from_pretrained(folder).save_pretrained(folder)."
        )
    if tokenizer.vocab_size > d_vocab:
        raise ModelError(
            f"the tokenizer has {tokenizer.vocab_size} entries, the model embeds only {d_vocab}: "
            "they do not belong together.\n"
            f"  Allowed: a tokenizer of at most {d_vocab} entries.\n"
            "  Load the tokenizer that was saved with the model."
        )


def _own_bos(tokenizer: Any) -> int | None:
    """Return the one token that the tokenizer puts in front by itself, found by trying."""
    plain = list(tokenizer.encode("a", add_special_tokens=False))
    full = list(tokenizer.encode("a", add_special_tokens=True))
    starts = range(len(full) - len(plain) + 1)
    start = next((i for i in starts if full[i : i + len(plain)] == plain), 0) if plain else 0
    front = full[:start] if plain else [i for i in full[:1] if i == tokenizer.bos_token_id]
    if len(front) > 1:
        raise ModelError(
            f"the tokenizer puts {len(front)} special tokens in front of a text "
            f"({tokenizer.convert_ids_to_tokens(front)}).\n  Allowed: none or one.\n"
            "  Models of this kind are not supported yet; wrap_model(..., prepend_bos=False) "
            "uses the text alone."
        )
    return int(front[0]) if front else None


def _unknown_id(tokenizer: Any) -> int | None:
    """Return the id that stands for unknown text only (GPT-2 names its end of text so as well)."""
    others = {tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id}
    token = tokenizer.unk_token_id
    return None if token is None or token in others else int(token)


def _dropped(text: str, offsets: Sequence[Span]) -> list[str]:
    """Return characters that no token covers, spaces and combining or control marks aside."""
    covered = {place for start, end in offsets for place in range(start, end)}
    left = [character for place, character in enumerate(text) if place not in covered]
    return [c for c in left if not c.isspace() and unicodedata.category(c)[0] not in "MC"]


def _filler(tokenizer: Any, d_vocab: int) -> int:
    for token in (tokenizer.pad_token_id, tokenizer.eos_token_id):
        if token is not None and token < d_vocab:
            return int(token)
    return 0
