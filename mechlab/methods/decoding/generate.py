"""`generate`: continue prompts, greedily or by sampling, plainly or by contrast with masked heads.

Gema et al. 2024, section 3 (arXiv 2410.18860), for `decode=DeCoRe(...)`.
"""

import inspect
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from mechlab import engine
from mechlab.engine import Choose, Decoded, DecodeRow
from mechlab.engine import decode as run_decode
from mechlab.engine.options import HINTS
from mechlab.errors import OptionError
from mechlab.methods.decoding.decore import DeCoRe, mix
from mechlab.methods.decoding.sampling import Sampling, pick, uniforms
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
from mechlab.progress import Progress, ProgressCallback
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
    _groups(model, plan, options.get("max_new_tokens", 50), None, engine.greedy)


@analysis(version=1, prompt_kind="any", default_plot="written_tokens", check=_check_all)
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
) -> xr.Dataset:
    """Continue prompts token by token.

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
        progress: called between batches; may raise `Cancelled`.

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
    chooser = _Chooser(plan.branches, sampling, plan.texts)
    found: dict[int, list[Decoded]] = {}
    for index, rows in _groups(model, plan, max_new_tokens, max_batch, chooser):
        found[index] = rows
        if progress is not None:
            progress(Progress(len(found), len(plan.prompts), "prompts"))
    written = [found[index] for index in range(len(plan.prompts))]
    return new_result(
        _variables(model, plan, written, chooser, max_new_tokens),
        _coordinates(plan, max_new_tokens),
        method="generate",
        version=1,
        model=model,
        prompts=plan.prompts,
        options=options,
        seed=None if sampling is None else int(sampling.seed),
        started=started,
    ).assign_attrs(phase=plan.branches.phase or "none")


def _groups(
    model: "Model", plan: _Plan, most: int, max_batch: int | None, choose: Choose
) -> Iterator[tuple[int, list[Decoded]]]:
    """Return the engine's run, a group of branches per prompt; nothing runs before it is read."""
    return run_decode(
        model,
        plan.tokens,
        [[DecodeRow(i, mask) for mask in plan.branches.masks] for i in range(len(plan.tokens))],
        max_new_tokens=most,
        stop=plan.stop,
        at_once=max_batch,
        choose=choose,
    )


@dataclass(frozen=True)
class _Note:
    """What is known of one step of one prompt when its token is chosen."""

    log_probability: float
    entropy: float
    alpha: float
    base_token: int


@dataclass
class _Chooser:
    """Chooses a token for all branches of a prompt, and keeps what it saw.

    Attributes:
        branches: the rows of each prompt, and how they are contrasted.
        sampling: how to draw.
        texts: the prompts; a draw depends on the text, not on its place among others.
        notes: by prompt and step; a batch that is begun again writes the same ones.
    """

    branches: Branches
    sampling: Sampling | None
    texts: Sequence[str]
    notes: dict[tuple[int, int], _Note] = field(default_factory=dict)

    def __call__(self, logits: Tensor, step: int, rows: Sequence[int]) -> Tensor:
        """Return one token id per row, the same for the branches of a prompt."""
        width = len(self.branches.masks)
        prompts = [row // width for row in rows[::width]]
        masked = logits[1::width] if self.branches.rule is not None else None
        mixed = mix(logits[::width], masked, self.branches.rule)
        draws = torch.tensor(
            uniforms(self.sampling, [self.texts[prompt] for prompt in prompts], step),
            dtype=mixed.base.dtype,
            device=logits.device,
        )
        chosen = pick(mixed.scores, self.sampling, draws)
        own = pick(mixed.base, self.sampling, draws)
        score = mixed.log_probabilities.gather(-1, chosen[:, None])[:, 0]
        columns = [part.tolist() for part in (score, mixed.entropy, mixed.alpha, own)]
        for prompt, *values in zip(prompts, *columns, strict=True):
            self.notes[prompt, step] = _Note(*values)
        return chosen.repeat_interleave(width)


# --- the result -----------------------------------------------------------------------------------


def _variables(
    model: "Model",
    plan: _Plan,
    written: Sequence[Sequence[Decoded]],
    chooser: _Chooser,
    most: int,
) -> dict[str, Any]:
    shape = (len(written), most)
    names = ("log_probability", "base_log_probability", "masked_log_probability", "entropy")
    numbers = {name: np.full(shape, np.nan) for name in (*names, "alpha", "changed")}
    ids, own = np.full(shape, -1, np.int64), np.full(shape, -1, np.int64)
    for row, branch in enumerate(written):
        count = len(branch[0].tokens)
        notes = [chooser.notes[row, step] for step in range(count)]
        ids[row, :count] = branch[0].tokens
        own[row, :count] = [note.base_token for note in notes]
        numbers["log_probability"][row, :count] = [note.log_probability for note in notes]
        numbers["entropy"][row, :count] = [note.entropy for note in notes]
        numbers["alpha"][row, :count] = [note.alpha for note in notes]
        numbers["changed"][row, :count] = ids[row, :count] != own[row, :count]
        numbers["base_log_probability"][row, :count] = branch[0].logprob
        if plan.branches.rule is not None:
            numbers["masked_log_probability"][row, :count] = branch[1].logprob
    cell = ("prompt", "step")
    units = {"alpha": "", "changed": "share of steps"}
    tokens = [list(branch[0].tokens) for branch in written]
    return {
        "text": ("prompt", [_text(model, *both) for both in zip(plan.tokens, tokens, strict=True)]),
        "token": (cell, _strings(model, ids)),
        "token_id": (cell, ids),
        "base_token": (cell, _strings(model, own)),
        **{
            name: (cell, values, {"units": units.get(name, "nats")})
            for name, values in numbers.items()
        },
        "n_tokens": ("prompt", [len(row) for row in tokens], {"units": "tokens"}),
        "stopped": ("prompt", [branch[0].stopped for branch in written]),
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
