"""Direct logit attribution: which parts of a model write the answer into its logits.

Yu, Merullo and Pavlick 2023 (arXiv 2310.15910) attribute to heads; McGrath et al. 2023 (arXiv
2307.15771) to layers, as the "unembedding effect". Both rest on the residual stream being a sum of
writes (Elhage et al. 2021).
"""

import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from mechlab import engine
from mechlab.engine import Base
from mechlab.engine.options import check_choice, check_whole
from mechlab.engine.readout import linear_readout
from mechlab.errors import OptionError
from mechlab.hooks import Intervention
from mechlab.methods.attribution.shares import Share, Shares
from mechlab.methods.attribution.writes import Component, Writes
from mechlab.models import Scored, ScoredPairs, scored_pairs, scored_prompts
from mechlab.progress import Progress, ProgressCallback
from mechlab.prompts import Fact, PromptPair, PromptSet, as_prompt_set
from mechlab.results import analysis, new_result

if TYPE_CHECKING:
    from mechlab.models import Model

__all__ = ["direct_logit_attribution"]

AT_ONCE = 16
BY_COMPONENT = "the decomposition in which every mixer is one component, by='component'"
_HINTS = ("model", "prompts", "pairs", "progress", "max_batch")
_BY = ("component", "head", "head_source")
_METRICS = ("logit_diff", "logit")
_NORMS = ("frozen", "clean", "none")


def _check_all(model: "Model", prompts: PromptSet[Any], **options: Any) -> None:
    """Tokenise all prompts, so that the store names all offenders before it starts."""
    _scored(model, prompts, options.get("metric", "logit_diff"), options.get("run", "clean"))


@analysis(version=1, prompt_kind="any", default_plot="head_grid", check=_check_all)
def direct_logit_attribution(
    model: "Model",
    pairs: PromptSet[Any] | Sequence[PromptPair] | Sequence[Fact] | PromptPair | Fact,
    *,
    by: Literal["component", "head", "head_source"] = "head",
    metric: Literal["logit_diff", "logit"] = "logit_diff",
    run: Literal["clean", "corrupted"] = "clean",
    norm: Literal["frozen", "clean", "none"] = "frozen",
    interventions: Sequence[Intervention] = (),
    max_batch: int | None = None,
    progress: ProgressCallback | None = None,
) -> xr.Dataset:
    """Split the logits of the answers into what each part of the model wrote directly.

    The residual stream at the last position is a sum of writes. With the scale of the final norm
    held at its value in this run, the way from there to the logits is linear, so every write has a
    share, and the shares add up to the model's own logits: `total` is the sum of
    `component_attribution` plus `unexplained`, which is rounding. Raw weights are used as they are.

    `logit_diff` is logit(answer) minus logit(wrong answer): **positive writes the answer, negative
    the wrong answer**. In a conflict of context and memory with the in-context word as the answer,
    in-context heads are positive and memory heads negative (Yu et al. 2023).

    Args:
        model: any decoder whose blocks add their outputs to the residual stream.
        pairs: pairs; or, with `metric="logit"`, facts with a target.
        by: how far attention is split. `component` gives whole modules, `head` also every head,
            `head_source` also every head by the token that it read (value times attention weight;
            the "Token Lens" of arXiv 2502.20475 per head). Each step adds variables and leaves the
            others as they are.
        metric: `logit_diff`, or the `logit` of the answer, centred over the vocabulary (a single
            logit means nothing: adding a constant to all of them changes no probability).
        run: which prompt of a pair is run; the answers stay as they are.
        norm: scale of the final norm. `frozen`: that of the run. `clean`: that of the clean prompt
            without interventions; `unexplained` then holds the share of the changed scale. `none`:
            writes times unembedding, with neither scale nor gain nor bias; nothing adds up then.
        interventions: changes that hold in the run (ablation, scaling, blocked edges, noise).
        max_batch: prompts that run side by side.
        progress: called between batches; may raise `Cancelled`.

    Returns:
        Dataset, in logits: `component_attribution[prompt, component]` with the components `embed`,
        `pos_embed` (learned positions), `L0.attn` (all heads), `L0.attn_bias` (output bias),
        `L0.mlp`, or `L0.mixer`, and so on, `final_norm_bias`, `unembed_bias`, each where the model
        has it; `head_attribution[prompt, layer, head]`, which sums over heads to `L*.attn`;
        `source_attribution[prompt, layer, head, pos]`, which sums over positions to
        `head_attribution`; `total[prompt]`, the model's own value of the metric;
        `unexplained[prompt]`. `component_logit` and `head_logit` are the same with an axis `answer`
        (`answer`, `wrong_answer`) instead of the metric, centred over the vocabulary, and
        `logit[prompt, answer]` is what they add up to. `final_scale[prompt]` is the scale used.
        Positions count from the first token of the unpadded prompt; beyond its end cells are NaN.

    Raises:
        OptionError: an option outside its choices, or facts where two answers are needed.
        PromptError: prompts or answers that cannot be tokenised, answers of one pair that begin
            with the same token; all offenders at once.
        SiteError: a recurrent model asked for heads; attention whose heads are not added as they
            are; modules whose outputs do not add up to the residual stream.
        ModelError: a final norm that is neither LayerNorm nor RMSNorm, something else between it
            and the logits, or shares that do not add up.
        Cancelled: when `progress` asked to stop.

    Differs from the paper (Yu et al.): they do not say how they treat the final norm; here its
    scale is frozen and its gain, bias and centring applied. Logits are those before a soft cap.
    """
    started = time.time()
    options = {name: value for name, value in locals().items() if name not in _HINTS}
    del options["started"]
    check_choice("by", by, _BY)
    check_choice("metric", metric, _METRICS)
    check_choice("run", run, ("clean", "corrupted"))
    check_choice("norm", norm, _NORMS)
    check_whole("max_batch", max_batch, at_least=1, optional=True)
    if by != "component":
        engine.require_heads(model, BY_COMPONENT)
    prompts = as_prompt_set(pairs, kind="any")
    scored = _scored(model, prompts, metric, run)
    texts = _texts(scored, run)
    bases = engine.check_bases(model, texts, model.tokenize(texts).lengths, interventions)
    checks = engine.verify(model)
    with model.lock, torch.no_grad():
        writes = Writes(model, heads=by != "component", sources=by == "head_source")
        readout = linear_readout(model)
        shares = Shares(model, writes, readout, norm, _weights(scored, metric))
        clean = [Base(text) for text in scored.texts] if norm == "clean" else []
        at_once = max_batch or AT_ONCE
        found: list[Share] = []
        for group in _groups(len(bases), at_once):
            seen = [writes.look(r) for r in _recorded(model, bases, group, writes.places)]
            scale_of = [r.final for r in _recorded(model, clean, group, [])] if clean else None
            answers = [scored.answers[i] for i in group]
            found += shares.split(seen, answers, scale_of)
            if progress is not None:
                progress(Progress(len(found), len(bases), "prompts"))
    return new_result(
        _variables(model, writes, found, by),
        _coordinates(model, prompts, scored, texts, shares.components, by),
        method="direct_logit_attribution",
        version=1,
        model=model,
        prompts=prompts,
        options=options,
        seed=None,
        started=started,
        checks={"verify": checks.summary()},
    )


# --- prompts --------------------------------------------------------------------------------------


def _scored(model: "Model", prompts: PromptSet[Any], metric: str, run: str) -> Scored:
    """Tokenise prompts and answers, and refuse what the metric cannot compare.

    Raises:
        OptionError: facts with options that need pairs.
        PromptError: see `scored_prompts`.
    """
    if prompts.kind == "pair":
        return scored_pairs(model, prompts, same_length=False)
    if metric == "logit_diff" or run == "corrupted":
        raise OptionError(
            f"metric={metric!r} and run={run!r} of facts, which have one prompt and one answer. "
            "Allowed for facts: metric='logit', run='clean'. Use these, or pairs."
        )
    return scored_prompts(model, prompts, metric)


def _texts(scored: Scored, run: str) -> tuple[str, ...]:
    if run == "clean":
        return scored.texts
    assert isinstance(scored, ScoredPairs)
    return scored.corrupted


def _weights(scored: Scored, metric: str) -> list[float]:
    """Return the weight of each answer's logit in the metric."""
    second = -1.0 if metric == "logit_diff" else 0.0
    return [1.0, second][: len(scored.answers[0])]


def _groups(count: int, at_once: int) -> Iterator[range]:
    for start in range(0, count, at_once):
        yield range(start, min(start + at_once, count))


def _recorded(
    model: "Model", bases: Sequence[Base], group: range, places: Sequence[Any]
) -> Iterator[engine.Recording]:
    some = [bases[i] for i in group]
    return engine.record(model, some, places, at_once=len(some))


# --- the result -----------------------------------------------------------------------------------


def _variables(
    model: "Model", writes: Writes, found: Sequence[Share], by: str
) -> dict[str, tuple[Any, np.ndarray, dict[str, str]]]:
    """Return the variables of a result."""
    kind = np.float64 if model.dtype == torch.float64 else np.float32

    def stacked(values: Sequence[Tensor]) -> np.ndarray:
        return torch.stack(list(values)).cpu().numpy().astype(kind)

    unit = {"units": "logits"}
    centred = {"units": "logits", "centred": "over the vocabulary"}
    prompt, head = ("prompt",), ("prompt", "layer", "head")
    variables: dict[str, tuple[Any, np.ndarray, dict[str, str]]] = {
        "total": (prompt, stacked([one.metric(one.logit) for one in found]), unit),
        "unexplained": (prompt, stacked([one.metric(one.left) for one in found]), unit),
        "logit": (("prompt", "answer"), stacked([one.logit for one in found]), centred),
        "component_attribution": (
            ("prompt", "component"),
            stacked([one.metric(one.component) for one in found]),
            unit,
        ),
        "component_logit": (
            ("prompt", "component", "answer"),
            stacked([one.component for one in found]),
            centred,
        ),
        "final_scale": (prompt, np.array([one.scale for one in found], kind), {}),
    }
    if by != "component":
        heads = [one.head for one in found if one.head is not None]
        weights = found[0].weights
        variables["head_attribution"] = (head, stacked([value @ weights for value in heads]), unit)
        variables["head_logit"] = ((*head, "answer"), stacked(heads), centred)
    if by == "head_source":
        sources = [one.metric(one.source) for one in found if one.source is not None]
        width = max(source.shape[-1] for source in sources)
        padded = np.full((len(found), *sources[0].shape[:2], width), np.nan, kind)
        for row, source in enumerate(sources):
            padded[row, :, :, : source.shape[-1]] = source.cpu().numpy()
        variables["source_attribution"] = ((*head, "pos"), padded, unit)
    return variables


def _coordinates(
    model: "Model",
    prompts: PromptSet[Any],
    scored: Scored,
    texts: Sequence[str],
    components: Sequence[Component],
    by: str,
) -> dict[str, Any]:
    """Return the coordinates of a result."""
    names = ["answer", "wrong_answer"][: len(scored.answers[0])]
    tokens = [[model.token_string(token) for token in row] for row in scored.answers]
    coords: dict[str, Any] = {
        "prompt": list(prompts.labels),
        "component": [one.label for one in components],
        "answer": names,
        "component_kind": ("component", [one.kind for one in components]),
        "component_layer": ("component", [one.layer for one in components]),
        "answer_token": (("prompt", "answer"), tokens),
        "prompt_text": ("prompt", list(texts)),
    }
    if by != "component":
        coords |= {"layer": np.arange(model.n_layers), "head": np.arange(model.n_heads or 0)}
    if by == "head_source":
        strings = [model.token_strings(text) for text in texts]
        width = max(map(len, strings))
        padded = [[*row, *[""] * (width - len(row))] for row in strings]
        coords |= {"pos": np.arange(width), "token": (("prompt", "pos"), padded)}
    return coords
