"""Prompts of tokens as rows of one model: what it reads, and where lists and probes stand in it."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mechlab.engine.batching import rows_that_fit
from mechlab.errors import PromptError
from mechlab.models.encoding import make_encoder
from mechlab.prompts import PromptSet, Text, TokenList, as_token_ids, without_repeats

if TYPE_CHECKING:
    from mechlab.models import Model

__all__ = ["Laid", "lay_out", "lay_out_controls", "lay_out_texts", "same_length"]


@dataclass(frozen=True)
class Laid:
    """One prompt as a model reads it.

    Attributes:
        tokens: token ids, beginning-of-sequence token included.
        front: tokens before the first one of the prompt itself, 1 with a BOS.
        length: tokens of the list (of a text: all that are read).
        matches: for each token after the list its place in the list, -1 for one that is not in it.
    """

    tokens: tuple[int, ...]
    front: int
    length: int
    matches: tuple[int, ...] = ()

    @property
    def source(self) -> range:
        """Positions of the list."""
        return range(self.front, self.front + self.length)

    @property
    def probes(self) -> list[tuple[int, int]]:
        """Position of each probe and its place in the list; no more probes than the list is long.

        Of a list that is repeated several times this is the first repetition.
        """
        start = self.front + self.length
        pairs = enumerate(self.matches[: self.length])
        return [(start + index, place) for index, place in pairs if place >= 0]


def lay_out(model: "Model", prompts: PromptSet[TokenList]) -> list[Laid]:
    """Return token lists as rows.

    Raises:
        PromptError: lists longer than the context or beyond the pool; all at once.
        OptionError: lists with a BOS on a model that has none.
    """
    found = as_token_ids(model, list(prompts))
    rows = [_laid(model, one, one.matches) for one in found]
    _refuse_long(model, prompts, rows)
    return rows


def lay_out_controls(model: "Model", prompts: PromptSet[TokenList]) -> list[Laid]:
    """Return the rows of lists whose probes are others, paired with the places of the real ones.

    Raises:
        PromptError: lists without enough other tokens on this model.
    """
    found = as_token_ids(model, list(prompts))
    others = without_repeats(PromptSet(tuple(found), prompts.name))
    pairs = zip(others, found, strict=True)
    return [_laid(model, other, one.matches) for other, one in pairs]


def lay_out_texts(
    model: "Model", texts: PromptSet[Text], *, copies: int = 1, at_least: int = 1, cut: bool = False
) -> list[Laid]:
    """Return texts as rows, with the BOS that the model puts in front of texts.

    Args:
        model: whose tokenizer and context count.
        texts: the texts.
        copies: how often each is read.
        at_least: tokens that each must have.
        cut: whether only the first `at_least` tokens are read.

    Raises:
        PromptError: texts that cannot be tokenised, are too short, or too long for the context; all
            at once.
    """
    encoder = make_encoder(
        model.tokenizer,
        prepend_bos=model.prepend_bos,
        n_ctx=None if cut else model.n_ctx,
        d_vocab=model.d_vocab,
    )
    front = int(model.prepend_bos)
    encoded = [one.ids for one in encoder.encode([text.text for text in texts])]
    short = [
        f"  #{index} {texts.labels[index]!r:.60} has {len(ids) - front}"
        for index, ids in enumerate(encoded)
        if len(ids) - front < at_least
    ]
    if short:
        raise PromptError(
            f"{len(short)} of {len(texts)} texts have fewer than the {at_least} tokens that are "
            "read:\n" + "\n".join(short[:10]) + "\n  Allowed: longer texts.\n  Leave these out, or "
            "ask for earlier tokens."
        )
    rows = []
    for ids in encoded:
        own = ids[front : front + at_least] if cut else ids[front:]
        rows.append(Laid((*ids[:front], *own * copies), front, len(own)))
    cure = "Ask for earlier tokens." if cut else "Take shorter texts, or fewer copies."
    _refuse_long(model, texts, rows, "what is read of a text, with BOS,", cure)
    return rows


def same_length(
    model: "Model", rows: Sequence[tuple[int, ...]], max_batch: int | None
) -> Iterator[list[int]]:
    """Yield indices of rows that run together: of one length, as many as fit."""
    by_length: dict[int, list[int]] = {}
    for index, row in enumerate(rows):
        by_length.setdefault(len(row), []).append(index)
    for width, which in by_length.items():
        step = rows_that_fit(model, width, max_batch)
        even = -(-len(which) // -(-len(which) // step))
        yield from (which[start : start + even] for start in range(0, len(which), even))


def _laid(model: "Model", prompt: TokenList, matches: tuple[int, ...]) -> Laid:
    front = (_bos(model),) if prompt.bos else ()
    return Laid((*front, *prompt.numbers), len(front), len(prompt.source), matches)


def _bos(model: "Model") -> int:
    encoder = make_encoder(
        model.tokenizer, prepend_bos=True, n_ctx=model.n_ctx, d_vocab=model.d_vocab
    )
    assert encoder.bos_id is not None  # make_encoder refuses a tokenizer without one
    return encoder.bos_id


def _refuse_long(
    model: "Model",
    prompts: PromptSet[Any],
    rows: Sequence[Laid],
    what: str = "list, copies and BOS",
    cure: str = "Make shorter lists, or fewer copies.",
) -> None:
    if model.n_ctx is None:
        return
    long = [
        f"  #{index} {label!r:.60} has {len(row.tokens)} tokens"
        for index, (label, row) in enumerate(zip(prompts.labels, rows, strict=True))
        if len(row.tokens) > model.n_ctx
    ]
    if long:
        raise PromptError(
            f"{len(long)} of {len(prompts)} prompts are longer than the context of {model.name}, "
            f"{model.n_ctx} tokens:\n" + "\n".join(long[:10]) + f"\n  Allowed: {what} "
            f"within the context.\n  {cure}"
        )
