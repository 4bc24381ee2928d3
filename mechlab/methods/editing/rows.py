"""Requests as token rows: where the subject ends, and which tokens are predicted."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mechlab.errors import OptionError, PromptError
from mechlab.models.spans import subject_tokens
from mechlab.prompts import EditRequest

if TYPE_CHECKING:
    from mechlab.models import Model

__all__ = ["TokenRow", "as_requests", "check_targets", "prompt_rows", "subject_rows"]


@dataclass(frozen=True)
class TokenRow:
    """One text as the model reads it, unpadded.

    Attributes:
        ids: token ids.
        lookup: position of the subject's last token.
        owner: index of the request.
        targets: ids of the object, of which all but the last stand at the end of `ids`; none for
            the rows on which the model shall stay as it was.
    """

    ids: tuple[int, ...]
    lookup: int
    owner: int
    targets: tuple[int, ...] = ()

    @property
    def reads(self) -> tuple[int, ...]:
        """Positions whose prediction counts: before each object token, else the lookup."""
        if not self.targets:
            return (self.lookup,)
        return tuple(range(len(self.ids) - len(self.targets), len(self.ids)))


@dataclass(frozen=True)
class _Placed:
    prompt: str
    subject_span: tuple[int, int]


def as_requests(requests: object) -> tuple[EditRequest, ...]:
    """Return one or more requests as a tuple.

    Raises:
        PromptError: when something else is among them, or there are none; offenders are listed.
    """
    given = (requests,) if isinstance(requests, EditRequest) else requests
    held = tuple(given) if isinstance(given, Sequence) and not isinstance(given, str) else (given,)
    wrong = [
        f"#{i} ({type(r).__name__})" for i, r in enumerate(held) if not isinstance(r, EditRequest)
    ]
    if wrong or not held:
        raise PromptError(
            f"{', '.join(wrong[:10]) or 'no request'} is not an EditRequest. "
            "Allowed: one ml.EditRequest(template, subject, target), or a list of them. Make them "
            "like this."
        )
    return held


def check_targets(model: "Model", requests: Sequence[EditRequest]) -> None:
    """Refuse requests whose old and new object begin with the same token on this model.

    Raises:
        PromptError: listing them all, and what cannot be tokenised.
    """
    prompts = [request.prompt for request in requests]
    new = model.answer_tokens(prompts, [r.target for r in requests], answer="full")
    known = [i for i, request in enumerate(requests) if request.target_true]
    if not known:
        return
    old = model.answer_tokens(
        [prompts[i] for i in known], [requests[i].target_true for i in known], answer="full"
    )
    same = [
        f"\n  #{i} {requests[i].label!r:.60} and {requests[i].target_true!r:.30} both begin with "
        f"{model.token_string(new[i][0])!r}"
        for i, ids in zip(known, old, strict=True)
        if ids[0] == new[i][0]
    ]
    if same:
        raise PromptError(
            f"{len(same)} of {len(requests)} requests have an old and a new object that begin "
            f"with the same token on {model.name}:{''.join(same)}\n"
            "  Allowed: objects that differ in their first token, or no target_true.\n"
            "  Drop these requests, or leave target_true empty."
        )


def prompt_rows(
    model: "Model", requests: Sequence[EditRequest], contexts: Sequence[str]
) -> list[TokenRow]:
    """Return one row per request and context: context, prompt, and the object's tokens but one.

    Raises:
        PromptError: for texts and objects that cannot be tokenised, all at once.
    """
    texts = [context + request.prompt for request in requests for context in contexts]
    objects = [request.target for request in requests for _ in contexts]
    spans = [
        (len(context) + request.subject_span[0], len(context) + request.subject_span[1])
        for request in requests
        for context in contexts
    ]
    encoded = model._encoder.encode(texts)
    targets = model.answer_tokens(texts, objects, answer="full")
    rows = []
    for index, (text, span) in enumerate(zip(texts, spans, strict=True)):
        _, lookup = subject_tokens(encoded[index], _Placed(text, span))
        ids = (*encoded[index].ids, *targets[index][:-1])
        rows.append(TokenRow(ids, lookup, index // len(contexts), targets[index]))
    return rows


def subject_rows(
    model: "Model", requests: Sequence[EditRequest], template: str = "{} is a"
) -> list[TokenRow]:
    """Return one row per request that ends with the subject, in the sentence of `template`.

    What follows the subject decides its tokens but not what the model computes there, so it is
    cut off.

    Raises:
        OptionError: when the template does not hold `{}` exactly once.
        PromptError: for texts that cannot be tokenised, all at once.
    """
    if not isinstance(template, str) or template.count("{}") != 1:
        raise OptionError(
            f"kl_template={template!r}. Allowed: text with {{}} exactly once, where the subject "
            "stands. Write it like '{} is a'."
        )
    before, after = template.split("{}")
    texts = [f"{before}{request.subject}{after}" for request in requests]
    encoded = model._encoder.encode(texts)
    rows = []
    for index, (text, request) in enumerate(zip(texts, requests, strict=True)):
        span = (len(before), len(before) + len(request.subject))
        _, lookup = subject_tokens(encoded[index], _Placed(text, span))
        rows.append(TokenRow(encoded[index].ids[: lookup + 1], lookup, index))
    return rows
