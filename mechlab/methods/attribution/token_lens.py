"""The Token Lens: what attention brings from which tokens, decoded.

"Promote, Suppress, Iterate" (arXiv 2502.20475), common decoder and items 1 and 2 of its method.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from mechlab import engine
from mechlab.engine.options import check_choice, check_whole
from mechlab.engine.readout import LinearReadout, linear_readout
from mechlab.errors import OptionError
from mechlab.hooks import Intervention
from mechlab.methods.attribution.groups import TokenGroups, words_of
from mechlab.methods.attribution.writes import Seen, Writes
from mechlab.models import scored_pairs, scored_prompts
from mechlab.progress import Progress, ProgressCallback
from mechlab.prompts import Fact, PromptPair, PromptSet, as_prompt_set
from mechlab.results import analysis, new_result

if TYPE_CHECKING:
    from mechlab.models import Model

__all__ = ["token_lens"]

AT_ONCE = 16
_HINTS = ("model", "prompts", "progress", "max_batch")


def _check_all(model: "Model", prompts: PromptSet[Any], **options: Any) -> None:
    """Check a whole set, so that the store names all offenders before it computes the first."""
    given = (options.get(name, default) for name, default in _PREPARED.items())
    _Plan.make(model, prompts, *given)


_PREPARED: dict[str, Any] = {"groups": None, "decode": (), "run": "clean"}


@analysis(
    version=1,
    prompt_kind="any",
    default_plot="lines",
    per_prompt=False,  # the groups of a set are those of all its prompts
    check=_check_all,
)
def token_lens(
    model: "Model",
    prompts: PromptSet[Any] | Sequence[Fact] | Sequence[PromptPair] | Fact | PromptPair,
    *,
    groups: Sequence[str] | None = None,
    decode: Sequence[str] = (),
    run: Literal["clean", "corrupted"] = "clean",
    centred: bool = False,
    interventions: Sequence[Intervention] = (),
    max_batch: int | None = None,
    progress: ProgressCallback | None = None,
) -> xr.Dataset:
    """Decode what attention brings to the last token, split by the tokens it comes from.

    In layer l the attention output at the last token is a sum over source tokens of attention
    weight times value times output matrix. Each group of source tokens is decoded alone: final norm
    with the scale of the run's final residual, then the unembedding. Decoding so is linear, and
    biases of the readout are left out: the groups of a layer plus the attention's output bias add
    up to `attention_logit`.

    Args:
        model: a model with attention.
        prompts: facts with a target, or pairs.
        groups: groups of source tokens: `subject` of a fact, or names of a pair's places. By
            default all that the prompts have. `last` (the token that attends) and `other` (the
            rest, the beginning-of-sequence token included) are always there, in front of these.
        decode: further words to decode besides the answers: those that stand at a place of the
            prompt (`subject` of a fact), or that a pair's `about` gives under a name. As with
            answers, the first token of the word as it continues the prompt counts.
        run: which prompt of a pair is run.
        centred: subtract from every logit the average over the vocabulary. The paper decodes as it
            is; adding a constant to all logits changes no probability.
        interventions: changes that hold in the run.
        max_batch: prompts that run side by side.
        progress: called between batches; may raise `Cancelled`.

    Returns:
        Dataset, in logits: `source_logit[prompt, layer, source, answer]`, the axis `source` holding
        the groups; `attention_logit` and `mlp_logit` of (prompt, layer, answer), the whole outputs
        decoded in the same way ("early decoding"); `bias_logit`, the share of the attention's
        output bias, 0 without one. The axis `answer` holds `answer`, `wrong_answer` of pairs, and
        the names in `decode`. `source_tokens[prompt, source]` counts the tokens of each group; a
        group without tokens is NaN.

    Raises:
        OptionError: an option outside its choices; names that are no groups or words.
        PromptError: prompts or answers that cannot be tokenised, places that a prompt does not
            have, groups that share tokens; all offenders at once.
        SiteError: a recurrent model, or attention that cannot be split by head and token.
        ModelError: a readout that is not linear behind a frozen norm.
        Cancelled: when `progress` asked to stop.

    Differs from the paper: any norm is handled, not only RMSNorm; a last token that belongs to a
    named group counts there.
    """
    started = time.time()
    options = {name: value for name, value in locals().items() if name not in _HINTS}
    del options["started"]
    engine.require_heads(model, "models with attention")
    check_choice("run", run, ("clean", "corrupted"))
    check_whole("max_batch", max_batch, at_least=1, optional=True)
    if not isinstance(centred, bool):
        raise OptionError(f"centred={centred!r}. Allowed: True, False. Choose one of these.")
    given = as_prompt_set(prompts, kind="any")
    plan = _Plan.make(model, given, groups, decode, run)
    lengths = model.tokenize(plan.texts).lengths
    bases = engine.check_bases(model, plan.texts, lengths, interventions)
    checks = engine.verify(model)
    found: list[_Lens] = []
    with model.lock, torch.no_grad():
        writes = Writes(model, sources=True)
        readout = linear_readout(model)
        step = max_batch or AT_ONCE
        for start in range(0, len(bases), step):
            here = range(start, min(start + step, len(bases)))
            some = [bases[i] for i in here]
            recordings = engine.record(model, some, writes.places, at_once=step)
            seen = [writes.look(recording) for recording in recordings]
            tokens = torch.tensor([plan.tokens[i] for i in here], device=model.device)
            members = [plan.groups.members[i] for i in here]
            found += _decoded(model, writes, readout, seen, tokens, members, centred)
            if progress is not None:
                progress(Progress(len(found), len(bases), "prompts"))
    return new_result(
        _variables(model, plan, found),
        {
            "prompt": list(given.labels),
            "layer": np.arange(model.n_layers),
            "source": list(plan.groups.names),
            "answer": list(plan.names),
            "answer_token": (
                ("prompt", "answer"),
                [[model.token_string(token) for token in row] for row in plan.tokens],
            ),
            "prompt_text": ("prompt", list(plan.texts)),
        },
        method="token_lens",
        version=1,
        model=model,
        prompts=given,
        options=options,
        seed=None,
        started=started,
        checks={"verify": checks.summary()},
    )


@dataclass(frozen=True)
class _Plan:
    """What is run and decoded.

    Attributes:
        texts: what the model reads.
        groups: source tokens of each group, per prompt.
        names: entries of the axis `answer`.
        tokens: token ids of `names`, per prompt.
    """

    texts: tuple[str, ...]
    groups: TokenGroups
    names: tuple[str, ...]
    tokens: tuple[tuple[int, ...], ...]

    @classmethod
    def make(
        cls,
        model: "Model",
        prompts: PromptSet[Any],
        groups: Sequence[str] | None,
        decode: Sequence[str],
        run: str,
    ) -> "_Plan":
        """Check everything that can be checked without a forward pass."""
        corrupted = run == "corrupted"
        names: tuple[str, ...] = ("answer",)
        tokens: tuple[tuple[int, ...], ...]
        if prompts.kind == "pair":
            pairs = scored_pairs(model, prompts, same_length=False)
            texts = pairs.corrupted if corrupted else pairs.texts
            names, tokens = ("answer", "wrong_answer"), pairs.answers
        elif corrupted:
            raise OptionError(
                "run='corrupted' of facts, which have one prompt. Allowed: 'clean'. Use pairs."
            )
        else:
            scored = scored_prompts(model, prompts, "logit")
            texts, tokens = scored.texts, scored.answers
        for name, words in words_of(prompts, decode, names, corrupted=corrupted).items():
            ids = model.answer_tokens(texts, words)
            tokens = tuple((*row, one[0]) for row, one in zip(tokens, ids, strict=True))
            names = (*names, name)
        members = TokenGroups.of(model, prompts, texts, groups, corrupted=corrupted)
        return cls(texts, members, names, tokens)


@dataclass(frozen=True, eq=False)
class _Lens:
    """One prompt: `[layer, source, answer]`, and attention, MLP and bias as `[layer, answer]`."""

    source: Tensor
    attention: Tensor
    mlp: Tensor
    bias: Tensor


def _decoded(
    model: "Model",
    writes: Writes,
    readout: LinearReadout,
    seen: Sequence[Seen],
    tokens: Tensor,
    members: Sequence[Sequence[Sequence[int]]],
    centred: bool,
) -> list[_Lens]:
    """Decode the outputs of some runs."""
    finals = torch.stack([one.final for one in seen])
    scales = readout.prove(model, finals, torch.stack([one.logits for one in seen]))
    directions = readout.norm.pulled_back(readout.directions(tokens, centred=centred))
    directions = directions / scales[:, None, None]
    _, sources = writes.head_shares(seen, directions)
    vectors = torch.stack([one.vectors for one in seen])
    shares = torch.einsum("ncm,nam->nca", vectors, directions)
    heads, mlp, bias = (
        _of_kind(writes, shares, model, kind) for kind in ("attn", "mlp", "attn_bias")
    )
    return [
        _Lens(
            torch.stack([_total(sources[n].sum(1), group) for group in members[n]], 1),
            heads[n] + bias[n],
            mlp[n],
            bias[n],
        )
        for n in range(len(seen))
    ]


def _of_kind(writes: Writes, shares: Tensor, model: "Model", kind: str) -> Tensor:
    """Return the shares of one kind of component, `[run, layer, answer]`, 0 where it is missing."""
    found = shares.new_zeros(len(shares), model.n_layers, shares.shape[-1])
    for place, component in enumerate(writes.components):
        if component.kind == kind:
            found[:, component.layer] = shares[:, place]
    return found


def _total(by_token: Tensor, positions: Sequence[int]) -> Tensor:
    """Return `[layer, answer]` from `[layer, pos, answer]`, NaN for a group without tokens."""
    if not positions:
        return torch.full_like(by_token[:, 0], float("nan"))
    return by_token[:, list(positions)].sum(1)


def _variables(model: "Model", plan: _Plan, found: Sequence[_Lens]) -> dict[str, Any]:
    kind = np.float64 if model.dtype == torch.float64 else np.float32

    def stacked(values: Sequence[Tensor]) -> np.ndarray:
        return torch.stack(list(values)).cpu().numpy().astype(kind)

    unit = {"units": "logits"}
    dims = ("prompt", "layer", "answer")
    return {
        "source_logit": (
            ("prompt", "layer", "source", "answer"),
            stacked([one.source for one in found]),
            unit,
        ),
        "attention_logit": (dims, stacked([one.attention for one in found]), unit),
        "mlp_logit": (dims, stacked([one.mlp for one in found]), unit),
        "bias_logit": (dims, stacked([one.bias for one in found]), unit),
        "source_tokens": (
            ("prompt", "source"),
            [[len(group) for group in groups] for groups in plan.groups.members],
            {"units": "tokens"},
        ),
    }
