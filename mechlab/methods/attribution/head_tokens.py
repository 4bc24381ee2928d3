"""`head_tokens`: the tokens that a head's output speaks for and against."""

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from mechlab import engine
from mechlab.axes import Head
from mechlab.engine.readout import LinearReadout, exact, linear_readout
from mechlab.errors import OptionError
from mechlab.hooks import Intervention
from mechlab.methods.attribution.writes import Writes
from mechlab.models import chosen_heads
from mechlab.progress import Progress, ProgressCallback
from mechlab.prompts import Fact, PromptPair, PromptSet, as_prompt_set
from mechlab.results import analysis, new_result

if TYPE_CHECKING:
    from mechlab.models import Model

__all__ = ["head_tokens"]

AT_ONCE = 8
_HINTS = ("model", "prompts", "progress", "max_batch", "started")


@analysis(version=1, prompt_kind="any", default_plot="lines")
def head_tokens(
    model: "Model",
    prompts: PromptSet[Any] | Sequence[Fact] | Sequence[PromptPair] | Fact | PromptPair,
    *,
    heads: Sequence[Head | str],
    top_k: int = 8,
    run: Literal["clean", "corrupted"] = "clean",
    interventions: Sequence[Intervention] = (),
    max_batch: int | None = None,
    progress: ProgressCallback | None = None,
) -> xr.Dataset:
    """Decode what heads write at the last token: the words they raise most, and lower most.

    A head's output there (attention weights times values, times its output matrix: the OV circuit
    at work, Elhage et al. 2021) goes through the final norm, with the scale that the run's own
    final residual has, and the unembedding. That is linear: for an answer the logit is the head's
    share in `direct_logit_attribution`.

    Args:
        model: a decoder with attention whose heads are added to the residual stream as they are.
        prompts: facts or pairs; answers are not needed.
        heads: heads (`ml.Head` or `"L9H6"`), in the order of the axis `head_set`.
        top_k: number of tokens kept at either end.
        run: which prompt of a pair is run.
        interventions: changes that hold in the run.
        max_batch: prompts that run side by side.
        progress: called between batches; may raise `Cancelled`.

    Returns:
        Dataset with `raised_token` and `raised_logit` of (prompt, head_set, k), falling, and
        `lowered_token` and `lowered_logit`, rising, in logits, the average over the vocabulary
        subtracted (adding a constant to all logits changes no probability).

    Raises:
        OptionError: an option outside its choices, no head or what is none, facts with
            `run="corrupted"`.
        SiteError: a recurrent model; heads out of range, all at once; heads that are not added to
            the residual stream as they are.
        PromptError: prompts that cannot be tokenised, all at once.
        ModelError: a readout that is not linear behind a frozen norm.
        Cancelled: when `progress` asked to stop.
    """
    started = time.time()
    options = {name: value for name, value in locals().items() if name not in _HINTS}
    given = as_prompt_set(prompts, kind="any")
    chosen = _checked(model, given, heads, top_k, run, max_batch)
    options["heads"] = [str(head) for head in chosen]
    texts = [_text(prompt, run) for prompt in given]
    bases = engine.check_bases(model, texts, model.tokenize(texts).lengths, interventions)
    checks = engine.verify(model)
    ends: list[tuple[tuple[Any, Any], tuple[Any, Any]]] = []
    with model.lock, torch.no_grad():
        writes, readout = Writes(model, heads=True), linear_readout(model)
        for seen in engine.record(model, bases, writes.places, at_once=max_batch or AT_ONCE):
            logits = _decoded(model, writes, readout, seen, chosen)
            ends.append(_ends(model, logits, logits.argsort(-1, descending=True), top_k))
            if progress is not None:
                progress(Progress(len(ends), len(bases), "prompts"))
    return new_result(
        _variables(ends),
        {
            "prompt": list(given.labels),
            "head_set": [str(head) for head in chosen],
            "k": np.arange(top_k),
            "prompt_text": ("prompt", texts),
        },
        method="head_tokens",
        version=1,
        model=model,
        prompts=given,
        options=options,
        seed=None,
        started=started,
        checks={"verify": checks.summary()},
    )


def _checked(
    model: "Model", prompts: PromptSet[Any], heads: Any, top_k: int, run: str, max_batch: int | None
) -> tuple[Head, ...]:
    """Check everything that can be checked without a forward pass, and return the heads."""
    engine.require_heads(model, "models with attention")
    engine.check_choice("run", run, ("clean", "corrupted"))
    engine.check_whole("top_k", top_k, at_least=1)
    engine.check_whole("max_batch", max_batch, at_least=1, optional=True)
    if top_k > model.d_vocab:
        raise OptionError(f"top_k={top_k} of {model.d_vocab} tokens. Allowed: 1 to that. Lower it.")
    if prompts.kind != "pair" and run == "corrupted":
        raise OptionError(
            "run='corrupted' of facts, which have one prompt. Allowed: 'clean'. Use pairs."
        )
    chosen = chosen_heads(model, heads)
    if not chosen:
        raise OptionError("heads=[]. Allowed: at least one, such as ['L5H3']. Name one.")
    return chosen


def _text(prompt: Any, run: str) -> str:
    return str(prompt.corrupted if run == "corrupted" else prompt.text)


def _decoded(
    model: "Model",
    writes: Writes,
    readout: LinearReadout,
    recording: engine.Recording,
    heads: Sequence[Head],
) -> Tensor:
    """Return the centred logits of what heads wrote, `[head, vocab]`."""
    seen = writes.look(recording)
    scale = readout.prove(model, seen.final[None], seen.logits[None])
    normed = readout.norm(writes.head_vectors(seen, heads), scale[:, None])
    unembed = readout.unembed
    logits = readout.multiplier * exact(normed.to(unembed.dtype) @ unembed)
    return logits - logits.mean(-1, keepdim=True)


def _ends(
    model: "Model", logits: Tensor, order: Tensor, top_k: int
) -> tuple[tuple[Any, Any], tuple[Any, Any]]:
    """Return tokens and logits of both ends of one prompt, each `[head, k]`."""

    def kept(ids: Tensor) -> tuple[Any, Any]:
        names = [[model.token_string(int(token)) for token in row] for row in ids]
        return names, logits.gather(1, ids).float().cpu().numpy()

    return kept(order[:, :top_k]), kept(order.flip(-1)[:, :top_k])


def _variables(ends: Sequence[tuple[tuple[Any, Any], tuple[Any, Any]]]) -> dict[str, Any]:
    cell, unit = ("prompt", "head_set", "k"), {"units": "logits", "centred": "over the vocabulary"}
    found: dict[str, Any] = {}
    for place, name in enumerate(("raised", "lowered")):
        found[f"{name}_token"] = (cell, np.array([one[place][0] for one in ends], dtype=str))
        found[f"{name}_logit"] = (cell, np.stack([one[place][1] for one in ends]), unit)
    return found
