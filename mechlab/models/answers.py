"""The tokens with which an answer continues a prompt."""

from collections.abc import Sequence
from typing import Literal, get_args

from mechlab.errors import OptionError, PromptError
from mechlab.models.encoding import Encoded, Encoder, shorten

__all__ = ["AnswerMode", "AnswerTokenWarning", "continuation", "continuation_tokens"]

AnswerMode = Literal["first", "full"]
"""Score the first token of an answer, or all of them."""


class AnswerTokenWarning(UserWarning):
    """Some answers have several tokens and only the first is scored."""


def check_mode(answer: str) -> None:
    """Refuse an unknown `answer` option.

    Raises:
        OptionError: when it is neither 'first' nor 'full'.
    """
    if answer not in get_args(AnswerMode):
        raise OptionError(
            f"answer={answer!r} is not a way to score an answer.\n  Allowed: 'first', 'full'.\n"
            "  Use 'first' for the first token, 'full' to sum log-probabilities over all tokens."
        )


def continuation(prompt: str, answer: str) -> str:
    """Return the answer as it continues the prompt: one space between them, if none is there."""
    spaced = not prompt or prompt[-1].isspace() or answer[:1].isspace()
    return answer if spaced else f" {answer}"


def continuation_tokens(
    encoder: Encoder, prompts: Sequence[str], answers: Sequence[str], *, answer: str
) -> list[tuple[int, ...]]:
    """Return all tokens of each answer after its prompt, also under `answer="first"`.

    Prompt and answer are tokenised as one text, and the prompt's own tokens must be its
    beginning: only then does the answer start at a position that the model predicts.

    Raises:
        PromptError: for empty answers, characters without a token, an answer that merges with
            the end of its prompt, or one that has to be scored in full and does not fit into the
            context. All offenders are listed with their index.
        OptionError: when there are not as many answers as prompts.
    """
    if len(prompts) != len(answers):
        raise OptionError(
            f"{len(answers)} answers for {len(prompts)} prompts.\n"
            "  Allowed: one answer for each prompt.\n  Pass two lists of the same length."
        )
    _refuse([(i, a, "is empty") for i, a in enumerate(answers) if not a.strip()], len(answers))
    heads = encoder.encode(prompts)
    texts = [p + continuation(p, a) for p, a in zip(prompts, answers, strict=True)]
    wholes = encoder.unlimited().encode(texts)
    limit = encoder.n_ctx if answer == "full" else None
    complaints = [_complaint(*pair, limit) for pair in zip(heads, wholes, strict=True)]
    _refuse(
        [
            (index, answers[index], f"{complaint} {shorten(prompts[index])}")
            for index, complaint in enumerate(complaints)
            if complaint
        ],
        len(answers),
    )
    return [whole.ids[len(head.ids) :] for head, whole in zip(heads, wholes, strict=True)]


def _complaint(head: Encoded, whole: Encoded, limit: int | None) -> str:
    if whole.ids[: len(head.ids)] != head.ids or len(whole.ids) == len(head.ids):
        return "changes the tokens of its prompt"
    if limit is not None and len(whole.ids) - 1 > limit:  # the last token is predicted, not read
        return f"needs {len(whole.ids) - 1} tokens of a context of {limit} after"
    return ""


def _refuse(offenders: Sequence[tuple[int, str, str]], count: int) -> None:
    if offenders:
        lines = "\n".join(f"  #{index} {answer!r} {reason}" for index, answer, reason in offenders)
        raise PromptError(
            f"{len(offenders)} of {count} answers cannot continue their prompt:\n{lines}\n"
            "  Allowed: text whose tokens follow those of the prompt.\n"
            "  End prompts without a space, and look at model.show_tokens(prompt + ' ' + answer)."
        )
