"""What is read, what is masked in it, and which answers are scored; checked before a run."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mechlab.engine import HeadMask
from mechlab.engine.options import check_choice
from mechlab.errors import ModelError, OptionError, PromptError
from mechlab.methods.decoding.decore import DeCoRe
from mechlab.models import chosen_heads
from mechlab.prompts import Fact, PromptPair, PromptSet, as_prompt_set

if TYPE_CHECKING:
    from mechlab.models import Model

__all__ = [
    "Branches",
    "Heads",
    "Prompts",
    "answer_lists",
    "branches",
    "prompt_set",
    "read_texts",
    "reading",
]

Prompts = (
    str | Sequence[str] | PromptSet[Any] | Sequence[Fact] | Sequence[PromptPair] | Fact | PromptPair
)
Heads = Sequence[Any]


@dataclass(frozen=True)
class Branches:
    """Which masks a prompt runs under, side by side; the first one is the base.

    Attributes:
        masks: the base's mask (`None`: nothing), and for DeCoRe that of the second branch.
        rule: how they are contrasted.
        phase: in which phase heads are masked, or an empty text where none are.
    """

    masks: tuple[HeadMask | None, ...]
    rule: DeCoRe | None
    phase: str


def prompt_set(prompts: Any) -> PromptSet[Any]:
    """Return facts or pairs; a plain text becomes a fact that is all about itself.

    Raises:
        PromptError: texts that are empty, or prompts of another kind.
    """
    given = [prompts] if isinstance(prompts, str) else prompts
    if isinstance(given, list | tuple) and given and all(isinstance(one, str) for one in given):
        if empty := [f"#{index}" for index, text in enumerate(given) if not text.strip()]:
            raise PromptError(
                f"{len(empty)} of {len(given)} texts are empty: {', '.join(empty[:10])}.\n"
                "  Allowed: text to be continued.\n  Leave these out."
            )
        given = [Fact(text, subject=text) for text in given]
    return as_prompt_set(given, kind="any")


def read_texts(prompts: PromptSet[Any]) -> tuple[str, ...]:
    """Return what the model reads: the prompt of a fact, the clean one of a pair."""
    return tuple(p.clean if isinstance(p, PromptPair) else p.prompt for p in prompts)


def reading(model: "Model", texts: Sequence[str]) -> list[tuple[int, ...]]:
    """Return the tokens of each text, as the model sees them.

    Raises:
        PromptError: texts that cannot be tokenised, all at once.
    """
    batch = model.tokenize(texts)
    rows = batch.tokens.tolist()
    return [tuple(row[start:]) for row, start in zip(rows, batch.starts, strict=True)]


def branches(
    model: "Model", decode: object, ablate: Heads, mask: Any, phase: Any, *, default: Any
) -> Branches:
    """Check what is masked, and return it.

    Args:
        model: the model.
        decode: `None` or a `DeCoRe`.
        ablate: heads masked in a plain run.
        mask: how these are masked.
        phase: when these are masked; `None` for `default`.
        default: the phase where none was chosen, for either.

    Raises:
        OptionError: an option outside its choices, or contrast and ablation together.
        SiteError: heads that the model does not have.
        ModelError: a model without attention.
    """
    check_choice("mask", mask, ("uniform", "zero"))
    if phase is not None:
        check_choice("phase", phase, ("decode", "all"))
    if decode is not None and not isinstance(decode, DeCoRe):
        raise OptionError(
            f"decode={decode!r:.60}. Allowed: None for the model as it is, or ml.DeCoRe(heads, "
            "...). Give one of these."
        )
    if not model.has_attention:
        raise ModelError(
            f"{model.name} ({model.family}) is recurrent and has no attention heads.\n"
            "  Allowed: decoders with attention.\n  Use another model."
        )
    masked = chosen_heads(model, ablate)
    if masked and decode is not None:
        raise OptionError(
            f"ablate={[str(head) for head in masked]} together with decode=DeCoRe(...). Allowed: "
            "one of them. DeCoRe masks its own heads, in its second branch."
        )
    if decode is not None:
        contrast = decode.head_mask(default)
        chosen_heads(model, contrast.heads)
        return Branches((None, contrast), decode, contrast.phase)
    if masked:
        one = HeadMask(masked, mask, phase or default)
        return Branches((one,), None, one.phase)
    return Branches((None,), None, "")


def answer_lists(
    prompts: PromptSet[Any], given: Any
) -> tuple[list[tuple[str, ...]], tuple[str, ...]]:
    """Return the answers of each prompt, and the names of the axis `answer`.

    Raises:
        OptionError: when they are no lists of text, or not one list per prompt.
        PromptError: prompts that bring no answer when none is given.
    """
    if given is None:
        return _own_answers(prompts)
    rows = list(given) if isinstance(given, list | tuple) else []
    if rows and all(isinstance(one, str) for one in rows):
        if twice := sorted({one for one in rows if rows.count(one) > 1}):
            raise OptionError(f"answers given more than once: {twice}. Name each once.")
        return [tuple(rows)] * len(prompts), tuple(rows)
    lists = [tuple(row) if isinstance(row, list | tuple) else () for row in rows]
    filled = all(row and all(isinstance(one, str) for one in row) for row in lists)
    if not lists or not filled or len(lists) != len(prompts):
        raise OptionError(
            f"answers={given!r:.80} for {len(prompts)} prompts. Allowed: a list of texts, scored "
            "after every prompt; a list of lists of texts, one per prompt; or None for the answers "
            "of facts and pairs. Give one of these."
        )
    return lists, tuple(str(index) for index in range(max(map(len, lists))))


def _own_answers(prompts: PromptSet[Any]) -> tuple[list[tuple[str, ...]], tuple[str, ...]]:
    if prompts.kind == "pair":
        both: list[tuple[str, ...]] = [(pair.answer, pair.wrong_answer) for pair in prompts]
        return both, ("answer", "wrong_answer")
    if without := [f"#{index}" for index, fact in enumerate(prompts) if not fact.target]:
        raise PromptError(
            f"{len(without)} of {len(prompts)} prompts have no target to score: "
            f"{', '.join(without[:10])}.\n  Allowed: facts with a target, pairs, or answers=[...]."
            "\n  Give the answers."
        )
    return [(fact.target,) for fact in prompts], ("answer",)
