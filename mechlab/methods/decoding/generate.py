"""`generate`: continue prompts, greedily or by sampling, plainly or by contrast with masked heads.

Gema et al. 2024, section 3 (arXiv 2410.18860), for `decode=DeCoRe(...)`.
"""

import inspect
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import xarray as xr

from mechlab import engine
from mechlab.engine import Choose, Decoded, DecodeRow
from mechlab.engine import decode as run_decode
from mechlab.engine.options import HINTS
from mechlab.errors import OptionError
from mechlab.methods.decoding.decore import DeCoRe
from mechlab.methods.decoding.sampling import Sampling
from mechlab.methods.decoding.steps import COLUMNS, Chooser, Written
from mechlab.methods.decoding.texts import (
    Branches,
    Heads,
    Prompts,
    branches,
    prompt_set,
    read_texts,
    reading,
)
from mechlab.models import stop_tokens
from mechlab.progress import Journal, Progress, ProgressCallback
from mechlab.prompts import PromptPair, PromptSet
from mechlab.results import analysis, new_result

if TYPE_CHECKING:
    from mechlab.models import Model

__all__ = ["generate"]


@dataclass(frozen=True)
class _Plan:
    """A call, checked."""

    prompts: PromptSet[Any]
    texts: tuple[str, ...]
    tokens: list[tuple[int, ...]]
    branches: Branches
    stop: tuple[int, ...]


def _prepare(
    model: "Model",
    prompts: Any,
    *,
    max_new_tokens: int = 50,
    decode: Any = None,
    sampling: Any = None,
    ablate: Heads = (),
    mask: Any = "uniform",
    phase: Any = None,
    stop: str = "",
    max_batch: int | None = None,
) -> _Plan:
    """Check everything that can be checked without a forward pass."""
    engine.check_whole("max_new_tokens", max_new_tokens, at_least=1)
    engine.check_whole("max_batch", max_batch, at_least=1, optional=True)
    if sampling is not None and not isinstance(sampling, Sampling):
        raise OptionError(
            f"sampling={sampling!r:.60}. Allowed: None for the most probable token, or "
            "ml.Sampling(temperature=..., top_k=..., top_p=..., seed=...). Give one of these."
        )
    chosen = branches(model, decode, ablate, mask, phase, default="decode")
    given = prompt_set(prompts)
    texts = read_texts(given)
    return _Plan(given, texts, reading(model, texts), chosen, stop_tokens(model, stop))


def _check_all(model: "Model", prompts: PromptSet[Any], **options: Any) -> None:
    """Check a whole set, so that the store names all offenders before it computes the first."""
    known = inspect.signature(_prepare).parameters
    plan = _prepare(model, prompts, **{n: value for n, value in options.items() if n in known})
    every = range(len(plan.prompts))
    _groups(model, plan, every, options.get("max_new_tokens", 50), None, engine.greedy)


@analysis(
    version=1,
    prompt_kind="any",
    default_plot="written_tokens",
    per_prompt=False,  # prompts are decoded side by side; a journal keeps those that are finished
    check=_check_all,
)
def generate(
    model: "Model",
    prompts: Prompts,
    *,
    max_new_tokens: int = 50,
    decode: DeCoRe | None = None,
    sampling: Sampling | None = None,
    ablate: Heads = (),
    mask: Literal["uniform", "zero"] = "uniform",
    phase: Literal["decode", "all"] | None = None,
    stop: str = "",
    max_batch: int | None = None,
    progress: ProgressCallback | None = None,
    journal: Journal | None = None,
) -> xr.Dataset:
    """Continue prompts token by token.

    A twin of the model that shares its weights runs them with fast attention. Hooks that somebody
    hung on the bridge or on the Hugging Face modules do not act there.

    Args:
        model: a decoder with attention.
        prompts: a text, texts, facts, or pairs, whose clean prompts are continued.
        max_new_tokens: most tokens per prompt; the end of the context ends it earlier.
        decode: `DeCoRe(...)` chooses tokens by contrast with a second branch, in which heads are
            masked; both read one prompt, and the same tokens after it.
        sampling: how tokens are drawn; the most probable one is taken without it.
        ablate: heads to mask, without any contrast: `ml.Head` or `"L9H6"`.
        mask: how heads of `ablate` are masked: `uniform` sets their queries to zero, `zero` their
            outputs.
        phase: when heads of `ablate` are masked: `decode` (default) from the query on that produces
            the first new token, `all` in the prompt too.
        stop: characters of which any ends a text, with the token that holds it left out, besides
            the model's own end of text.
        max_batch: upper bound on rows per batch (a prompt takes two with DeCoRe); changes no number
            beyond rounding.
        progress: called after each prompt; may raise `Cancelled`.
        journal: keeps finished prompts, so that a killed run resumes.

    Returns:
        Dataset of the axes prompt and step. `text[prompt]`, what was written; `token[prompt, step]`
        and its `token_id`; `log_probability` of it in the distribution that was decoded (before
        temperature, top-k and top-p), `base_log_probability` and `masked_log_probability` in either
        branch; `entropy` of the base branch and `alpha`, 0 without a contrast; all in nats, of the
        axes (prompt, step). `base_token`: what would have been chosen from the base branch at that
        step, after the same tokens and with the same draw; `changed`: 1 where it is another.
        `n_tokens[prompt]`; `stopped[prompt]`, whether the text ended by itself. Beyond the end of a
        text numbers are NaN, tokens empty, ids -1. The step at which it ended is not kept.

    Raises:
        OptionError: an option outside its range or choices.
        SiteError: heads that this model does not have.
        PromptError: prompts that are empty, cannot be tokenised or fill the context; all at once.
        ModelError: a model without attention, or one that cannot be run with fast attention.
        Cancelled: when `progress` asked to stop.
    """
    started = time.time()
    options = {name: value for name, value in locals().items() if name not in HINTS}
    plan = _prepare(
        model,
        prompts,
        max_new_tokens=max_new_tokens,
        decode=decode,
        sampling=sampling,
        ablate=ablate,
        mask=mask,
        phase=phase,
        stop=stop,
        max_batch=max_batch,
    )
    written = _written(model, plan, max_new_tokens, max_batch, sampling, progress, journal)
    return new_result(
        _variables(model, plan, written, max_new_tokens),
        _coordinates(plan, max_new_tokens),
        method="generate",
        version=1,
        model=model,
        prompts=plan.prompts,
        options=options,
        seed=None if sampling is None else int(sampling.seed),
        started=started,
    ).assign_attrs(phase=plan.branches.phase or "none")


def _written(
    model: "Model",
    plan: _Plan,
    most: int,
    max_batch: int | None,
    sampling: Sampling | None,
    progress: ProgressCallback | None,
    journal: Journal | None,
) -> list[Written]:
    """Continue every prompt that no journal has, and return all in order."""
    keys = [f"{i}-{plan.prompts.prompt_digest(i)[:16]}" for i in range(len(plan.prompts))]
    held = {i: journal.get(key) for i, key in enumerate(keys)} if journal is not None else {}
    found = {i: Written.unpacked(one) for i, one in held.items() if one is not None}
    left = [i for i in range(len(keys)) if i not in found]
    chooser = Chooser(plan.branches, sampling, [plan.texts[i] for i in left])
    for group, rows in _groups(model, plan, left, most, max_batch, chooser):
        index = left[group]
        found[index] = chooser.written(group, rows)
        if journal is not None:
            journal.put(keys[index], found[index].packed())
        if progress is not None:
            progress(Progress(len(found), len(keys), "prompts"))
    return [found[index] for index in range(len(keys))]


def _groups(
    model: "Model",
    plan: _Plan,
    prompts: Sequence[int],
    most: int,
    max_batch: int | None,
    choose: Choose,
) -> Iterator[tuple[int, list[Decoded]]]:
    """Return the engine's run, a group of branches per prompt; nothing runs before it is read."""
    return run_decode(
        model,
        plan.tokens,
        [[DecodeRow(index, mask) for mask in plan.branches.masks] for index in prompts],
        max_new_tokens=most,
        stop=plan.stop,
        at_once=max_batch,
        choose=choose,
    )


# --- the result -----------------------------------------------------------------------------------


def _variables(
    model: "Model", plan: _Plan, written: Sequence[Written], most: int
) -> dict[str, Any]:
    shape, cell = (len(written), most), ("prompt", "step")
    columns = {name: np.full(shape, np.nan) for name in (*COLUMNS, "changed")}
    for row, one in enumerate(written):
        for name in COLUMNS:
            columns[name][row, : len(one.table)] = one.column(name)
        changed = one.column("token_id") != one.column("base_token_id")
        columns["changed"][row, : len(one.table)] = changed
    ids, own = (
        np.nan_to_num(columns.pop(name), nan=-1).astype(np.int64)
        for name in ("token_id", "base_token_id")
    )
    tokens = [[int(i) for i in row if i >= 0] for row in ids]
    units = {"alpha": {}, "changed": {"units": "share of steps"}}
    return {
        "text": ("prompt", [_text(model, *both) for both in zip(plan.tokens, tokens, strict=True)]),
        "token": (cell, _strings(model, ids)),
        "token_id": (cell, ids),
        "base_token": (cell, _strings(model, own)),
        **{
            name: (cell, values, units.get(name, {"units": "nats"}))
            for name, values in columns.items()
        },
        "n_tokens": ("prompt", [len(row) for row in tokens], {"units": "tokens"}),
        "stopped": ("prompt", [one.stopped for one in written]),
    }


def _coordinates(plan: _Plan, most: int) -> dict[str, Any]:
    pairs = plan.prompts.kind == "pair"
    wanted = [p.answer if isinstance(p, PromptPair) else p.target for p in plan.prompts]
    coords: dict[str, Any] = {
        "prompt": list(plan.prompts.labels),
        "step": np.arange(most),
        "prompt_text": ("prompt", list(plan.texts)),
        "answer": ("prompt", [answer.strip() for answer in wanted]),
    }
    if pairs:
        others = [pair.wrong_answer.strip() for pair in plan.prompts]
        coords["wrong_answer"] = ("prompt", others)
    return coords


def _strings(model: "Model", ids: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    known = {int(i): model.token_string(int(i)) if i >= 0 else "" for i in np.unique(ids)}
    return np.array([known[int(i)] for i in ids.ravel()], dtype=str).reshape(ids.shape)


def _text(model: "Model", prompt: Sequence[int], written: Sequence[int]) -> str:
    """Return what was written as it continues the prompt, its leading space included.

    Some tokenizers drop the space in front of whatever they decode first.
    """
    if not written:
        return ""
    before, whole = (
        str(model.tokenizer.decode(list(ids), skip_special_tokens=True))
        for ids in (prompt, [*prompt, *written])
    )
    if whole.startswith(before):
        return whole[len(before) :]
    return str(model.tokenizer.decode(list(written), skip_special_tokens=True))
