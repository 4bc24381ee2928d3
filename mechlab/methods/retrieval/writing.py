"""What a model writes after needle prompts, with and without masked heads."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from mechlab import engine
from mechlab.canonical import digest
from mechlab.engine import Decoded, DecodeRow, HeadMask, decode
from mechlab.errors import OptionError, SiteError
from mechlab.methods.retrieval.layout import Laid
from mechlab.models import stop_tokens
from mechlab.progress import Journal, Progress
from mechlab.prompts import NeedlePrompt, PromptSet

if TYPE_CHECKING:
    from mechlab.models import Model

__all__ = ["Task", "check_writing", "read_text", "write"]


@dataclass(frozen=True)
class Task:
    """One prompt to be continued, with some heads masked or none."""

    prompt: int
    mask: HeadMask | None = None


def check_writing(
    model: "Model", *, max_new_tokens: object, stop: object, success: object, max_batch: object
) -> None:
    """Refuse options that no run could take.

    Raises:
        OptionError: a number out of range, or a stop that is no text.
        SiteError: a model without attention heads.
    """
    engine.check_whole("max_new_tokens", max_new_tokens, at_least=1)
    engine.check_whole("max_batch", max_batch, at_least=1, optional=True)
    engine.check_number("success", success, at_least=0)
    if float(success) >= 100:  # type: ignore[arg-type]
        raise OptionError(
            f"success={success!r} per cent, which no recall exceeds. Allowed: from 0, below 100. "
            "Give 50 for the published rule."
        )
    if stop is not None and not isinstance(stop, str):
        raise OptionError(
            f"stop={stop!r}. Allowed: characters that end an answer, such as '\\n', '' for none, "
            "or None for those of each prompt. Give one of these."
        )
    if not model.has_attention:
        raise SiteError(f"{model.name} ({model.family}) is recurrent and has no attention heads.")


def write(
    model: "Model",
    prompts: PromptSet[NeedlePrompt],
    laid: Sequence[Laid],
    tasks: Sequence[Task],
    *,
    max_new_tokens: int,
    stop: str | None,
    attention: bool,
    max_batch: int | None,
    pack: Callable[[int, Decoded], np.ndarray[Any, Any]],
    journal: Journal | None,
    report: Callable[[Progress], None] | None,
) -> list[np.ndarray[Any, Any]]:
    """Continue prompts greedily, and return what `pack` makes of each continuation, in order.

    Args:
        model: the model.
        prompts: the prompts.
        laid: the same in tokens.
        tasks: which prompts, and what is masked.
        max_new_tokens: at most so many tokens each.
        stop: characters that end an answer; `None` for those of each prompt.
        attention: whether to keep where heads attend.
        max_batch: upper bound on continuations decoded at once.
        pack: `(task, continuation) -> numbers`, small enough to keep for all tasks.
        journal: keeps what was packed, so that a killed run resumes.
        report: called after each continuation.
    """
    done: dict[int, np.ndarray[Any, Any]] = {}
    for index in range(len(tasks) if journal is not None else 0):
        if journal is not None and (kept := journal.get(_key(prompts, tasks[index]))) is not None:
            done[index] = kept
    for marks, indices in _by_stop(prompts, tasks, stop, done).items():
        found = decode(
            model,
            [one.tokens for one in laid],
            [[DecodeRow(tasks[index].prompt, tasks[index].mask)] for index in indices],
            max_new_tokens=max_new_tokens,
            stop=stop_tokens(model, marks),
            attention=attention,
            watch=[one.answer for one in laid] if attention else None,
            at_once=max_batch,
        )
        for group, (decoded,) in found:
            index = indices[group]
            done[index] = pack(index, decoded)
            if journal is not None:
                journal.put(_key(prompts, tasks[index]), done[index])
            if report is not None:
                report(Progress(len(done), len(tasks), "continuations"))
    return [done[index] for index in range(len(tasks))]


def _key(prompts: PromptSet[NeedlePrompt], task: Task) -> str:
    mask = task.mask
    heads = [] if mask is None else [*map(str, mask.heads)]
    kind = None if mask is None else f"{mask.mask}, {mask.phase}"
    return digest([task.prompt, prompts.prompt_digest(task.prompt), heads, kind])[:32]


def _by_stop(
    prompts: PromptSet[NeedlePrompt],
    tasks: Sequence[Task],
    stop: str | None,
    done: dict[int, np.ndarray[Any, Any]],
) -> dict[str, list[int]]:
    """Return the tasks still to do, by the characters that end their answers."""
    groups: dict[str, list[int]] = {}
    for index, task in enumerate(tasks):
        if index not in done:
            marks = prompts[task.prompt].stop if stop is None else stop
            groups.setdefault("".join(sorted(set(marks))), []).append(index)
    return groups


def read_text(model: "Model", tokens: Sequence[int]) -> str:
    """Return what was written, without special tokens and white space around it."""
    return str(model.tokenizer.decode(list(tokens), skip_special_tokens=True)).strip()
