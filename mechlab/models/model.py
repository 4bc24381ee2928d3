"""`Model`: a thin view on one TransformerLens bridge, with tokenising decided once."""

import threading
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch

from mechlab.canonical import digest
from mechlab.models.answers import (
    AnswerMode,
    AnswerTokenWarning,
    check_mode,
    continuation_tokens,
)
from mechlab.models.encoding import Encoded, Encoder, shorten
from mechlab.models.fingerprint import bare_weights, tokenizer_digest, weight_digest
from mechlab.models.spans import HasSubject, subject_tokens
from mechlab.models.strings import show_table, token_string
from mechlab.models.tokens import TokenBatch, pad_left, position_ids

__all__ = ["Checks", "Model", "Origin", "Shape"]


@dataclass(frozen=True)
class Shape:
    """Counts that the architecture fixes; `None` where it has no such thing."""

    family: str
    n_layers: int
    n_heads: int | None
    n_kv_heads: int | None
    d_head: int | None
    d_model: int
    d_vocab: int
    n_ctx: int | None


@dataclass(frozen=True)
class Origin:
    """Where a model came from, without its place on this machine.

    Attributes:
        name: shipped name, final component of a folder, hub name, or the name given.
        source: `shipped`, `folder`, `hub` or `memory`.
        revision: hub revision as asked for, or the checkpoint of a shipped model.
        commit: hub commit that was loaded; recorded, but not part of the fingerprint, which
            holds a digest of the weights themselves.
        weights: `raw` or `processed`.
        raw_digest: digest of the weights before processing, `None` when still unchanged.
    """

    name: str
    source: str
    revision: str | None = None
    commit: str | None = None
    weights: str = "raw"
    raw_digest: str | None = None


class Checks(Protocol):
    """What `engine.verify` leaves on a model (the engine has the full type)."""

    @property
    def sites(self) -> Mapping[str, Any]:
        """Site name to its status: exists, fires, verified, reason."""
        ...

    @property
    def parallel_blocks(self) -> bool | None:
        """Whether attention and MLP read the same state; `None` for recurrent blocks."""
        ...

    @property
    def engine_agrees(self) -> bool:
        """Whether the engine's fast runs equal one plain run per row."""
        ...

    @property
    def padding_exact(self) -> bool:
        """Whether prompts of different length may share a batch."""
        ...

    @property
    def resumes_inside(self) -> bool:
        """Whether rows may resume inside a block, from the heads' outputs on."""
        ...

    def usable(self, site: str) -> bool:
        """Return whether a site may be used on this model."""
        ...

    def reason(self, site: str) -> str:
        """Return why a site may not be used, or an empty string."""
        ...


class Model:
    """One language model, ready to be looked into.

    Made by `load_model` or `wrap_model`. The bridge is in evaluation mode, on one device, with
    eager attention and frozen parameters.

    Attributes:
        name: what the model is called in results.
        bridge: the `TransformerBridge`, for everything mechlab does not offer. Work that hooks or
            edits it should hold `lock`.
        hf: the Hugging Face module inside the bridge.
        tokenizer: the Hugging Face tokenizer as it was loaded or given.
        device: where the weights lie.
        dtype: their precision.
        family: the Hugging Face `model_type`, such as `gpt2`, `gpt_neox`, `llama`, `mamba`.
        n_layers: number of blocks.
        n_heads: query heads per block, `None` for recurrent models.
        n_kv_heads: key and value heads per block (fewer under grouped queries), or `None`.
        d_head: width of one head, or `None`.
        d_model: width of the residual stream.
        d_vocab: rows of the embedding, which may exceed the tokenizer's entries.
        n_ctx: longest input in tokens, `None` for recurrent models.
        prepend_bos: whether a beginning-of-sequence token is put in front of every text.
        lock: held by whoever hooks or edits the model.
        checks: what `engine.verify` found; `None` until it ran.
        unwrapped_run: token ids and their logits before the bridge was put on, the witness that
            `engine.verify` compares with; `None` when there is none.
        edits: digests of weight edits in force, in order; part of the fingerprint. Whoever edits
            weights under `lock` appends here and removes it on restoring them. Other threads see
            none: what they compute waits for the lock, and by then the weights are restored.
    """

    def __init__(
        self, bridge: Any, hf: Any, encoder: Encoder, *, shape: Shape, origin: Origin
    ) -> None:
        """Put the parts together; use `load_model` or `wrap_model` instead."""
        weight = next(hf.parameters())
        self.name = origin.name
        self.bridge = bridge
        self.hf = hf
        self.tokenizer = encoder.tokenizer
        self.device: torch.device = weight.device
        self.dtype: torch.dtype = weight.dtype
        self.family = shape.family
        self.n_layers = shape.n_layers
        self.n_heads = shape.n_heads
        self.n_kv_heads = shape.n_kv_heads
        self.d_head = shape.d_head
        self.d_model = shape.d_model
        self.d_vocab = shape.d_vocab
        self.n_ctx = shape.n_ctx
        self.prepend_bos = encoder.bos_id is not None
        self.lock = threading.RLock()
        self.checks: Checks | None = None
        self.unwrapped_run: tuple[torch.Tensor, torch.Tensor] | None = None
        self._edits: tuple[str, ...] = ()
        self._editor = threading.get_ident()
        self._encoder = encoder
        self._origin = origin
        self._digests: tuple[str, str] | None = None
        self._hashing = threading.Lock()
        self._strings: dict[int, str] = {}
        self._warned = False

    def __repr__(self) -> str:
        """Return name, family, size, precision and device on one line."""
        return (
            f"Model({self.name!r}, {self.family}, {self.n_layers} layers x {self.d_model}, "
            f"{str(self.dtype).removeprefix('torch.')}, {self.device})"
        )

    # --- what it is -------------------------------------------------------------------------

    @property
    def edits(self) -> tuple[str, ...]:
        """Digests of the weight edits that this thread has in force, in order."""
        return self._edits if self._editor == threading.get_ident() else ()

    @edits.setter
    def edits(self, digests: tuple[str, ...]) -> None:
        self._edits, self._editor = digests, threading.get_ident()

    @property
    def has_attention(self) -> bool:
        """Whether the blocks hold attention (False for Mamba and Mamba-2)."""
        return self.n_heads is not None

    @property
    def sites(self) -> Mapping[str, Any] | None:
        """Site name to its status on this model; `None` until `engine.verify(model)` ran."""
        return None if self.checks is None else self.checks.sites

    @property
    def parallel_blocks(self) -> bool | None:
        """Whether attention and MLP of a block read the same state, as measured.

        `None` until `engine.verify(model)` ran, and for recurrent models. No configuration flag
        is trusted for this.
        """
        return None if self.checks is None else self.checks.parallel_blocks

    @property
    def fingerprint(self) -> str:
        """The sha256 (hex) of everything that changes this model's numbers.

        Name, revision, precision, weight processing, attention implementation, BOS rule, weight
        bytes, tokenizer, and edits in force. Not the device, not the path. The first use hashes
        all weights (about a second for 0.5 GB); later uses cost nothing.
        """
        fields = {**self._identity(), **({"edits": list(self.edits)} if self.edits else {})}
        return digest(fields)

    @property
    def provenance(self) -> dict[str, str | int | float | bool | None]:
        """What results record about the model, as JSON scalars."""
        return {
            **self._identity(),
            "source": self._origin.source,
            "commit": self._origin.commit,
            "family": self.family,
            "device": str(self.device),
            "edits": ",".join(self.edits) or None,
            "fingerprint": self.fingerprint,
        }

    def _identity(self) -> dict[str, str | bool | None]:
        weights, tokenizer = self._content()
        return {
            "name": self.name,
            "revision": self._origin.revision,
            "dtype": str(self.dtype).removeprefix("torch."),
            "weights": self._origin.weights,
            "attention": self.hf.config._attn_implementation if self.has_attention else None,
            "prepend_bos": self.prepend_bos,
            "weight_digest": weights,
            "tokenizer_digest": tokenizer,
        }

    def _content(self) -> tuple[str, str]:
        with self._hashing:  # not `lock`: a key must be had while a long run holds the model
            if self._digests is None:
                weights = self._origin.raw_digest or weight_digest(bare_weights(self.hf))
                self._digests = (weights, tokenizer_digest(self.tokenizer))
            return self._digests

    # --- what it reads ----------------------------------------------------------------------

    def tokenize(self, texts: Sequence[str] | str) -> TokenBatch:
        """Turn texts into one left-padded batch under a mask.

        Args:
            texts: one or more texts; a single string is a batch of one.

        Returns:
            `TokenBatch` with tokens and mask `[batch, pos]` on the model's device.

        Raises:
            PromptError: for texts that are empty, too long for the context, hold characters
                without a token, or begin with the BOS that is put there anyway; all at once.
        """
        texts = (texts,) if isinstance(texts, str) else tuple(texts)
        rows = self._encoder.encode(texts)
        tokens, mask = pad_left([row.ids for row in rows], self._encoder.filler)
        lengths = tuple(len(row.ids) for row in rows)
        return TokenBatch(
            tokens.to(self.device),
            mask.to(self.device),
            lengths,
            tuple(tokens.shape[1] - length for length in lengths),
            tuple(row.offsets for row in rows),
            texts,
        )

    def position_ids(self, mask: torch.Tensor) -> torch.Tensor:
        """Return `[batch, pos]` positions counted from each row's first real token."""
        return position_ids(mask)

    def subject_positions(self, fact: HasSubject) -> tuple[int, int]:
        """Return the first and last token of a fact's subject in its unpadded prompt.

        Args:
            fact: anything with `prompt` and `subject_span`, such as `mechlab.prompts.Fact`.

        Raises:
            PromptError: when the prompt cannot be tokenised or no token covers the subject.
        """
        return subject_tokens(self._encode_one(fact.prompt), fact)

    def answer_tokens(
        self, prompts: Sequence[str], answers: Sequence[str], *, answer: AnswerMode = "first"
    ) -> list[tuple[int, ...]]:
        """Return the token ids to score for each answer, as it continues its prompt.

        An answer follows its prompt after one space, unless either brings its own white space.

        Args:
            prompts: the prompts.
            answers: one answer for each prompt, with or without a leading space.
            answer: `first` returns one id per answer, `full` all of them.

        Returns:
            One tuple of ids per answer.

        Raises:
            PromptError: for answers that are empty, hold unknown characters or merge with the
                end of their prompt; all at once.
            OptionError: for another `answer`, or lists of different length.
        """
        check_mode(answer)
        found = continuation_tokens(self._encoder, prompts, answers, answer=answer)
        if answer == "full":
            return found
        self._warn_of_long_answers(answers, found)
        return [tokens[:1] for tokens in found]

    def token_string(self, token: int) -> str:
        """Return one token id as text, leading space kept; part of a character as `<0xE6>`."""
        if token not in self._strings:
            self._strings[token] = token_string(self.tokenizer, token)
        return self._strings[token]

    def token_strings(self, text: str) -> list[str]:
        """Return the tokens of a text as the model sees it, BOS included."""
        return [self.token_string(token) for token in self._encode_one(text).ids]

    def show_tokens(self, text: str) -> str:
        """Return a table of what the model sees: position, id, token, characters.

        White space is made visible: ␠ space, ↵ line feed, ⇥ tab. Works for any text, also for one
        that `tokenize` refuses.
        """
        return show_table(self.tokenizer, text, self._encoder.encode_unchecked([text])[0])

    def _encode_one(self, text: str) -> Encoded:
        return self._encoder.encode([text])[0]

    def _warn_of_long_answers(
        self, answers: Sequence[str], found: Sequence[tuple[int, ...]]
    ) -> None:
        long = [(a, ids) for a, ids in zip(answers, found, strict=True) if len(ids) > 1]
        if not long or self._warned:
            return
        self._warned = True
        text, ids = long[0]
        pieces = " + ".join(repr(self.token_string(token)) for token in ids)
        warnings.warn(
            f"{len(long)} of {len(answers)} answers have several tokens on {self.name}. Only the "
            f"first token of an answer is scored: of {shorten(text)} = {pieces} that is "
            f"{self.token_string(ids[0])!r} alone, and whatever else begins so counts the same. "
            "model.answer_tokens(prompts, answers, answer='full') gives all of them. "
            "(Said once per model.)",
            AnswerTokenWarning,
            stacklevel=3,
        )
