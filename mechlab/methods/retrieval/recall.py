"""`needle_recall`, `retrieval_curve`: what is still found when heads are masked."""

import hashlib
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
import xarray as xr

from mechlab import engine
from mechlab.axes import Head
from mechlab.engine import Decoded, HeadMask
from mechlab.engine.options import HINTS
from mechlab.errors import OptionError
from mechlab.methods.retrieval.layout import Laid, lay_out
from mechlab.methods.retrieval.rouge import rouge1_recall
from mechlab.methods.retrieval.scores import prompt_coordinates
from mechlab.methods.retrieval.writing import Task, check_writing, read_text, write
from mechlab.models import chosen_heads, head_sets, random_heads
from mechlab.progress import Journal, ProgressCallback
from mechlab.prompts import NeedlePrompt, PromptSet, as_prompt_set
from mechlab.results import analysis, new_result

if TYPE_CHECKING:
    from mechlab.models import Model

__all__ = ["needle_recall", "retrieval_curve"]

Mask = Literal["uniform", "zero"]
Phase = Literal["decode", "all"]
Names = Sequence[Head | str]
UNMASKED = "unmasked"


@dataclass(frozen=True)
class _Set:
    """One entry of the axis `head_set`."""

    name: str
    heads: tuple[Head, ...]
    draw: int = -1  # number of the random draw; -1 for heads that were chosen


@analysis(version=1, prompt_kind="needle", default_plot="length_by_depth", per_prompt=False)
def needle_recall(
    model: "Model",
    haystacks: PromptSet[Any] | Sequence[NeedlePrompt] | NeedlePrompt,
    *,
    ablate: Names | Mapping[str, Names] | None = None,
    mask: Mask = "uniform",
    phase: Phase = "decode",
    max_new_tokens: int = 50,
    stop: str | None = None,
    success: float = 50.0,
    chat: bool = False,
    max_batch: int | None = None,
    progress: ProgressCallback | None = None,
    journal: Journal | None = None,
) -> xr.Dataset:
    """Measure how much of the needle a model recalls, with heads masked and without.

    Wu et al. 2024 (arXiv 2404.15574), section 4: with retrieval heads masked a model still writes
    fluently and no longer finds the needle, while masking as many random heads changes little.

    Args:
        model: a decoder with attention.
        haystacks: needle prompts; those of `ml.prompts.closed_book` have nothing to be found.
        ablate: heads that are masked together, or a mapping from names to such sets; `None` masks
            nothing.
        mask: `uniform` sets queries to zero, so that the heads attend evenly to everything before
            them (what the published code does); `zero` sets the heads' outputs to zero.
        phase: `decode` leaves the prompt alone and masks from the query on that produces the first
            token of the answer (as published for generation); `all` masks the prompt too.
        max_new_tokens: at most so many tokens are written.
        stop: characters that end an answer; by default what each prompt says.
        success: recall in per cent beyond which a prompt counts as answered.
        chat: whether prompts are put into the tokenizer's chat template.
        max_batch: upper bound on prompts continued at once; changes no number beyond rounding.
        progress: called after each continuation; may raise `Cancelled`.
        journal: keeps finished continuations, so that a killed run resumes.

    Returns:
        Dataset with `recall[prompt, head_set]`, the ROUGE-1 recall of the answer in per cent;
        `effect` of the same axes, masked minus unmasked; `success`, `text` of the same axes; and
        `unmasked_recall[prompt]`, `unmasked_success`, `unmasked_text`. Without `ablate`, and for a
        set of no heads, nothing is masked and the effect is 0. Coordinates of `head_set`:
        `members`, `k` (how many), `is_control`, `draw` (-1); of `prompt`: `needle`, `length`,
        `tokens`, `depth`, `found`, `answer`, `needle_start`, `needle_tokens`. Attributes `mask` and
        `phase`.

    Raises:
        OptionError: an option outside its range or choices, heads named twice, or a chat template
            that is not there.
        SiteError: heads that this model does not have, or a model without attention.
        PromptError: prompts that cannot be laid out, all at once.
        ModelError: a model that cannot be masked while it writes.
        Cancelled: when `progress` asked to stop.
    """
    started = time.time()
    options = {n: v for n, v in locals().items() if n not in {*HINTS, "haystacks"}}
    prompts = as_prompt_set(haystacks, kind="needle")
    run = _Run(model, mask, phase, max_new_tokens, stop, success, chat, max_batch)
    run.check()
    sets = _named_sets(model, ablate)
    values, coordinates = run.on(prompts, sets, progress, journal)
    return new_result(
        values,
        coordinates,
        method="needle_recall",
        version=1,
        model=model,
        prompts=prompts,
        options=options,
        seed=None,
        started=started,
    ).assign_attrs(mask=mask, phase=phase)


@analysis(version=1, prompt_kind="needle", default_plot="mask_curve", per_prompt=False)
def retrieval_curve(
    model: "Model",
    haystacks: PromptSet[Any] | Sequence[NeedlePrompt] | NeedlePrompt,
    *,
    ranking: Names,
    k: Sequence[int] = (2, 5, 10, 15, 20, 30, 50, 100),
    exclude: Names | None = None,
    draws: int = 5,
    seed: int = 0,
    mask: Mask = "uniform",
    phase: Phase = "decode",
    max_new_tokens: int = 50,
    stop: str | None = None,
    success: float = 50.0,
    chat: bool = False,
    max_batch: int | None = None,
    progress: ProgressCallback | None = None,
    journal: Journal | None = None,
) -> xr.Dataset:
    """Mask the first k heads of a ranking, and as many heads drawn at random, for several k.

    Wu et al. 2024 (arXiv 2404.15574), section 4. Random heads are drawn from all query heads of the
    model but the excluded ones, by seed, draw and k alone: each draw is the same for all prompts.

    Args:
        model: a decoder with attention.
        haystacks: needle prompts, of another needle than the ranking was found with.
        ranking: heads, the first to be masked first; `ml.retrieval_heads` or `ml.top_heads`.
        k: how many heads are masked; those beyond the ranking's length are refused.
        exclude: heads that are never drawn at random; by default the ranking's first max(k).
        draws: random sets for each k.
        seed: of the random sets.
        mask: as for `needle_recall`.
        phase: as for `needle_recall`.
        max_new_tokens: as for `needle_recall`.
        stop: as for `needle_recall`.
        success: as for `needle_recall`.
        chat: as for `needle_recall`.
        max_batch: as for `needle_recall`.
        progress: called after each continuation; may raise `Cancelled`.
        journal: keeps finished continuations, so that a killed run resumes.

    Returns:
        Dataset as of `needle_recall`; `head_set` holds `top k` for each k and `random k draw d`,
        with the coordinates `k`, `is_control` and `draw`. Intervals of means over prompts:
        `ml.statistics.bootstrap_interval(curve.recall, cluster="group")`.

    Raises:
        OptionError: an option outside its range or choices, a ranking shorter than k, or too few
            heads left to draw from.
        SiteError: heads that this model does not have, or a model without attention.
        PromptError: prompts that cannot be laid out, all at once.
        ModelError: a model that cannot be masked while it writes.
        Cancelled: when `progress` asked to stop.

    Differs from the published code, whose random heads come from a square grid, may be retrieval
    heads, and are drawn anew for each prompt.
    """
    started = time.time()
    options = {n: v for n, v in locals().items() if n not in {*HINTS, "haystacks"}}
    prompts = as_prompt_set(haystacks, kind="needle")
    run = _Run(model, mask, phase, max_new_tokens, stop, success, chat, max_batch)
    run.check()
    engine.check_whole("draws", draws, at_least=0)
    engine.check_whole("seed", seed)
    sets = _curve_sets(model, chosen_heads(model, ranking), k, exclude, draws, seed)
    values, coordinates = run.on(prompts, sets, progress, journal)
    return new_result(
        values,
        coordinates,
        method="retrieval_curve",
        version=1,
        model=model,
        prompts=prompts,
        options=options,
        seed=seed if draws else None,
        started=started,
    ).assign_attrs(mask=mask, phase=phase)


# ------------------------------------------------------------------------------------- the sets


def _named_sets(model: "Model", ablate: Names | Mapping[str, Names] | None) -> list[_Set]:
    if ablate is None:
        return [_Set(UNMASKED, ())]
    if isinstance(ablate, Mapping):
        filled = {name: heads for name, heads in ablate.items() if len(heads)}
        found = head_sets(model, filled, together=True) if filled else {}
        if not ablate:
            head_sets(model, {}, together=True)  # says what is allowed
        return [_Set(str(name), found.get(str(name), ())) for name in ablate]
    heads = chosen_heads(model, ablate)
    return [_Set("masked" if heads else UNMASKED, heads)]


def _curve_sets(
    model: "Model",
    ranking: tuple[Head, ...],
    k: Sequence[int],
    exclude: Names | None,
    draws: int,
    seed: int,
) -> list[_Set]:
    counts = _counts(k, len(ranking))
    barred = ranking[: counts[-1]] if exclude is None else chosen_heads(model, exclude)
    sets = [_Set(f"top {count}", ranking[:count]) for count in counts]
    for draw in range(draws):
        for count in counts:
            drawn = random_heads(model, count, seed=_seed(seed, draw, count), exclude=barred)
            sets.append(_Set(f"random {count} draw {draw}", tuple(drawn), draw))
    return sets


def _counts(k: object, ranked: int) -> tuple[int, ...]:
    """Return how many heads are masked, rising.

    Raises:
        OptionError: for what is no list of whole numbers from 1 up to the ranking's length.
    """
    if isinstance(k, str) or not isinstance(k, Sequence | np.ndarray | range) or not len(k):
        raise OptionError(f"k={k!r}. Allowed: a list such as (1, 5, 10). Put it in brackets.")
    for count in k:
        engine.check_whole("k", count, at_least=1)
    if beyond := [int(count) for count in k if count > ranked]:
        raise OptionError(
            f"k={beyond} of a ranking of {ranked} heads. Allowed: up to its length. Lower k, or "
            "rank more heads: ml.top_heads(scores) without at_least ranks all."
        )
    return tuple(sorted({int(count) for count in k}))


def _seed(seed: int, draw: int, k: int) -> int:
    digest = hashlib.sha256(f"{seed}\x1fretrieval\x1f{draw}\x1f{k}".encode()).digest()
    return int.from_bytes(digest[:8], "little")


# -------------------------------------------------------------------------------------- the run


@dataclass(frozen=True)
class _Run:
    """How recall is measured, whatever is masked."""

    model: "Model"
    mask: Mask
    phase: Phase
    max_new_tokens: int
    stop: str | None
    success: float
    chat: bool
    max_batch: int | None

    def check(self) -> None:
        """Refuse options out of range (OptionError, SiteError)."""
        engine.check_choice("mask", self.mask, get_args(Mask))
        engine.check_choice("phase", self.phase, get_args(Phase))
        check_writing(
            self.model,
            max_new_tokens=self.max_new_tokens,
            stop=self.stop,
            success=self.success,
            max_batch=self.max_batch,
        )

    def on(
        self,
        prompts: PromptSet[NeedlePrompt],
        sets: Sequence[_Set],
        progress: ProgressCallback | None,
        journal: Journal | None,
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """Continue every prompt under every set; return variables and coordinates."""
        laid = lay_out(self.model, prompts, chat=self.chat)
        masks = {
            one.heads: HeadMask(one.heads, self.mask, self.phase) if one.heads else None
            for one in (_Set(UNMASKED, ()), *sets)
        }
        tasks = [Task(index, mask) for index in range(len(prompts)) for mask in masks.values()]
        written = write(
            self.model,
            prompts,
            laid,
            tasks,
            max_new_tokens=self.max_new_tokens,
            stop=self.stop,
            attention=False,
            max_batch=self.max_batch,
            pack=_tokens,
            journal=journal,
            report=progress,
        )
        texts = [read_text(self.model, [int(token) for token in one]) for one in written]
        table = np.array(texts, dtype=object).reshape(len(prompts), len(masks))
        columns = [list(masks).index(one.heads) for one in sets]
        return (
            self._variables(prompts, table[:, columns], table[:, 0]),
            _coordinates(prompts, laid, sets),
        )

    def _variables(
        self,
        prompts: PromptSet[NeedlePrompt],
        texts: np.ndarray[Any, Any],
        unmasked: np.ndarray[Any, Any],
    ) -> dict[str, Any]:
        answers = [prompt.answer for prompt in prompts]
        recall = np.array(
            [[rouge1_recall(t, a) for t in row] for row, a in zip(texts, answers, strict=True)]
        )
        before = np.array([rouge1_recall(t, a) for t, a in zip(unmasked, answers, strict=True)])
        cell, percent = ("prompt", "head_set"), {"units": "per cent"}
        return {
            "recall": (cell, recall, percent),
            "effect": (cell, recall - before[:, None], {"units": "percentage points"}),
            "success": (cell, recall > self.success),
            "text": (cell, texts.astype(str, order="C")),  # zarr 3.1 mixes up text in columns
            "unmasked_recall": ("prompt", before, percent),
            "unmasked_success": ("prompt", before > self.success),
            "unmasked_text": ("prompt", unmasked.astype(str)),
        }


def _tokens(_: int, decoded: Decoded) -> np.ndarray[Any, Any]:
    return np.array(decoded.tokens, dtype=np.int64)


def _coordinates(
    prompts: PromptSet[NeedlePrompt], laid: Sequence[Laid], sets: Sequence[_Set]
) -> dict[str, Any]:
    return {
        **prompt_coordinates(prompts, laid),
        "head_set": [one.name for one in sets],
        "members": ("head_set", ["+".join(map(str, one.heads)) for one in sets]),
        "k": ("head_set", [len(one.heads) for one in sets]),
        "is_control": ("head_set", [one.draw >= 0 for one in sets]),
        "draw": ("head_set", [one.draw for one in sets]),
    }
