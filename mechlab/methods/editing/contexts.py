"""Texts that are put before a prompt, so that a key is that of the subject and not of one sentence.

They are sampled from the model itself, seeded, and stored with every edit. (The reference draws
them once per process without a seed.)
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from mechlab.canonical import digest
from mechlab.engine import check_whole
from mechlab.errors import ModelError, OptionError

if TYPE_CHECKING:
    from mechlab.models import Model

__all__ = ["MEMIT_STARTS", "check_contexts", "check_templates", "memit_contexts", "rome_contexts"]

MEMIT_STARTS = ("The", "Therefore", "Because", "I", "You")
_TOP_K = 5


def rome_contexts(
    model: "Model", *, seed: int = 0, lengths: Sequence[tuple[int, int]] = ((10, 5), (10, 10))
) -> tuple[str, ...]:
    """Return what is put before the prompt: nothing, then texts that the model writes.

    Args:
        model: the model.
        seed: of the drawing.
        lengths: pairs (how many, of how many tokens, the beginning-of-sequence token counted).

    Returns:
        21 texts by default, the first one empty.
    """
    first = _first_token(model)
    texts = [""]
    for count, length in lengths:
        starts = [[first]] * count
        texts += _written(model, starts, length, seed, f"rome {length}")
    return tuple(texts)


def memit_contexts(model: "Model", *, seed: int = 0, length: int = 10) -> tuple[str, ...]:
    """Return nothing, then one text of `length` tokens for each word of `MEMIT_STARTS`."""
    texts = [""]
    for word in MEMIT_STARTS:
        ids = [int(token) for token in model.tokenize(word).row(0)]
        texts += _written(model, [ids], length, seed, f"memit {word}")
    return tuple(texts)


def check_contexts(contexts: Sequence[str] | None) -> None:
    """Refuse contexts that are not a sequence of texts with the empty one first.

    Raises:
        OptionError: saying what was received.
    """
    if contexts is None:
        return
    sequence = isinstance(contexts, Sequence) and not isinstance(contexts, str)
    texts = sequence and all(isinstance(text, str) for text in contexts)
    if not texts or not contexts or contexts[0] != "":
        raise OptionError(
            f"contexts={contexts!r:.80}. Allowed: None (drawn from the model), or texts that are "
            "put before the prompt, the first one empty for the bare prompt, such as "
            "('', 'It is said. '). Give them like this."
        )


def check_templates(templates: Sequence[str]) -> None:
    """Refuse what is no sequence of texts that each hold `{}` once.

    Raises:
        OptionError: saying what was received.
    """
    sequence = isinstance(templates, Sequence) and not isinstance(templates, str)
    if not sequence or not all(isinstance(t, str) and t.count("{}") == 1 for t in templates):
        raise OptionError(
            f"key_templates={templates!r:.80}. Allowed: a list of texts with {{}} exactly once, "
            "where the subject stands, or none. Write them like ['{}', 'About {}:']."
        )


def _first_token(model: "Model") -> int:
    tokenizer = model.tokenizer
    for token in (model._encoder.bos_id, tokenizer.bos_token_id, tokenizer.eos_token_id):
        if token is not None:
            return int(token)
    raise ModelError(
        f"{model.name} has no token that a text can begin with, so it cannot write contexts.\n"
        "  Allowed: a tokenizer with a beginning- or end-of-sequence token.\n"
        "  Give contexts=('', ...) yourself."
    )


@torch.no_grad()
def _written(
    model: "Model", starts: Sequence[Sequence[int]], length: int, seed: int, label: str
) -> list[str]:
    """Sample continuations, top-k, and return them as texts that end in a full stop."""
    check_whole("seed", seed, at_least=0)
    generator = torch.Generator().manual_seed(int(digest([seed, label])[:15], 16))
    ids = torch.tensor([list(start) for start in starts], device=model.device)
    forbidden = torch.tensor(_never_written(model), device=model.device)
    with model.lock:
        while ids.shape[1] < length:
            logits = model.bridge(ids, use_cache=False)[:, -1].float()
            logits[:, forbidden] = -torch.inf
            best = logits.topk(min(_TOP_K, logits.shape[1]))
            shares = torch.softmax(best.values, -1).cpu()
            drawn = torch.multinomial(shares, 1, generator=generator).to(model.device)
            ids = torch.cat([ids, best.indices.gather(1, drawn)], 1)
    texts = [model.tokenizer.decode(row, skip_special_tokens=True) for row in ids.tolist()]
    clean = [" ".join(text.replace("\ufffd", " ").split()) for text in texts]
    return [f"{text}. " if text else "" for text in clean]


def _never_written(model: "Model") -> list[int]:
    """Return special tokens and rows of the embedding that no token has."""
    known = set(model.tokenizer.get_vocab().values())
    special = {int(token) for token in model.tokenizer.all_special_ids}
    return sorted(special | {token for token in range(model.d_vocab) if token not in known})
