"""Pools of tokens that lists are drawn from, and lists as token ids of one model.

Tokenizers number their entries by how early they were merged, which is about how common they are:
a pool is in the order of ids, so that its first entries are its most common ones.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Protocol

from mechlab.errors import PromptError
from mechlab.prompts.token_kind import TokenList

__all__ = ["HasTokenizer", "as_token_ids", "token_pool"]

_SPACE = "Ġ▁"  # how byte-level and SentencePiece tokenizers write a leading space


class HasTokenizer(Protocol):
    """What pools ask of a model; `mechlab.models.Model` has it."""

    @property
    def tokenizer(self) -> Any:
        """A Hugging Face tokenizer."""
        ...

    @property
    def d_vocab(self) -> int:
        """Number of token ids the model embeds."""
        ...


def token_pool(model: HasTokenizer, pool: str) -> tuple[int, ...]:
    """Return the token ids of a pool, the most common first.

    Args:
        model: whose tokenizer counts.
        pool: `words`, tokens of a leading space and two or more unaccented letters; `tokens`, all
            that are neither special nor added, nor stand for unknown text.
    """
    tokenizer = model.tokenizer
    barred = {*tokenizer.all_special_ids, *tokenizer.added_tokens_decoder}
    names = tokenizer.convert_ids_to_tokens(range(min(len(tokenizer), model.d_vocab)))
    there = [i for i, name in enumerate(names) if name is not None and i not in barred]
    return tuple(there if pool == "tokens" else [i for i in there if _is_word(names[i])])


def _is_word(name: str) -> bool:
    letters = name[1:]
    return name[:1] in _SPACE and len(letters) > 1 and letters.isascii() and letters.isalpha()


def as_token_ids(model: HasTokenizer, prompts: Sequence[TokenList]) -> list[TokenList]:
    """Return lists whose numbers are token ids of the model.

    `others` that the pool does not hold are left out. The pool `auto` is `words` where the
    tokenizer has enough of them for all lists, else `tokens`.

    Raises:
        PromptError: when lists count further than their pool goes, or ids are not in the
            vocabulary; all lists at once.
    """
    pools = {name: _found(model, name, prompts) for name in {one.pool for one in prompts} - {""}}
    problems, found = [], []
    for index, prompt in enumerate(prompts):
        ids = pools.get(prompt.pool)
        limit = model.d_vocab if ids is None else len(ids)
        if beyond := [one for one in prompt.numbers if one >= limit]:
            what = (
                f"the pool {prompt.pool!r} has {limit} tokens" if prompt.pool else f"ids: {limit}"
            )
            problems.append(f"  #{index} reaches {max(beyond)}; {what}")
        else:
            found.append(prompt if ids is None else _translated(prompt, ids))
    if problems:
        raise PromptError(
            f"{len(problems)} of {len(prompts)} token lists go beyond the tokens of "
            f"{getattr(model, 'name', 'the model')}:\n" + "\n".join(problems[:10]) + "\n  Allowed: "
            "lists within the pool.\n  Make shorter lists, take pool='tokens', or lower pool_size."
        )
    return found


def _found(model: HasTokenizer, name: str, prompts: Sequence[TokenList]) -> tuple[int, ...]:
    if name != "auto":
        return token_pool(model, name)
    needed = max(max(prompt.numbers + prompt.others) for prompt in prompts if prompt.pool == "auto")
    words = token_pool(model, "words")
    return words if len(words) > needed else token_pool(model, "tokens")


def _translated(prompt: TokenList, ids: Sequence[int]) -> TokenList:
    return replace(
        prompt,
        source=tuple(ids[i] for i in prompt.source),
        probes=tuple(ids[i] for i in prompt.probes),
        others=tuple(ids[i] for i in prompt.others if i < len(ids)),
        pool="",
    )
