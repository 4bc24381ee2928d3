"""Gradients of a metric with respect to activations, prompt by prompt.

Parameters take no part: the gradient is asked for the activations alone, and gradients are switched
on only inside, also where the caller switched them off (`no_grad`, `inference_mode`).
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from mechlab.engine.activations import _groups, _unpadded
from mechlab.engine.forward import Tokens, forward, tokenize_bases
from mechlab.engine.rows import Base, Row, check_rows
from mechlab.errors import ModelError, OptionError
from mechlab.hooks import SITES, Place, Scale, Site, attach, probes
from mechlab.metrics import Metric, named_metric

if TYPE_CHECKING:
    from mechlab.models import Model

__all__ = ["Gradient", "check_differentiable", "gradients"]

WITHOUT = ("kl_divergence", "rank")


@dataclass(frozen=True)
class Gradient:
    """What one prompt's backward pass gave, in the positions of the unpadded prompt.

    Attributes:
        index: which prompt of the call.
        metric: the metric of this run.
        values: place -> value of the site, before the offset.
        gradients: place -> derivative of the metric with respect to the site, of the same shape.
    """

    index: int
    metric: float
    values: dict[Place, Tensor]
    gradients: dict[Place, Tensor]


def check_differentiable(metric: str | Metric) -> None:
    """Refuse a metric that has no useful gradient.

    Raises:
        OptionError: for `rank` and `kl_divergence`.
    """
    if getattr(named_metric(metric), "__name__", "") in WITHOUT:
        raise OptionError(
            f"metric={metric!r} has no gradient to follow (a rank is a step function, and a "
            "divergence from the run itself is flat there). Allowed: 'logit_diff', "
            "'log_probability', 'probability' or a smooth function. Use one of these."
        )


def gradients(
    model: "Model",
    texts: Sequence[str],
    places: Sequence[Place],
    *,
    metric: str | Metric,
    answers: Sequence[Sequence[int]],
    offsets: Mapping[Place, Sequence[Tensor]] | None = None,
    at_once: int = 8,
) -> Iterator[Gradient]:
    """Run prompts forward and backward and hand over values and gradients of sites.

    Args:
        model: the model; left as found, without gradients on its parameters.
        texts: the prompts.
        places: sites, as (name, layer).
        metric: what is differentiated, read at the last token.
        answers: token ids per prompt, as the metric needs them.
        offsets: added to a site before it goes on, one tensor per prompt in the shape of the
            unpadded site; the gradient is taken there.
        at_once: prompts that run side by side.

    Yields:
        One gradient per prompt, in order.

    Raises:
        OptionError: a metric that has no useful gradient.
        ModelError: weights that were made under `inference_mode`.
        SiteError: a place that does not exist on the model, is unproven, or never fired.
        PromptError: prompts that cannot be tokenised, all at once.
    """
    check_differentiable(metric)
    _refuse_inference_weights(model)
    function = named_metric(metric)
    bases = [Base(text) for text in texts]
    tokens = tokenize_bases(model, bases)
    lengths = [tokens.width - start for start in tokens.starts]
    check_rows(model, bases, [Row(0, (Scale(Site(*place), 1.0),)) for place in places], lengths, {})
    padding = model.checks is None or model.checks.padding_exact
    for which in _groups(lengths, at_once, mixed=padding):
        part = tokens.select(which)
        padded = {
            place: _padded([given[i] for i in which], place, part)
            for place, given in (offsets or {}).items()
        }
        wanted = [list(answers[i]) for i in which]
        read, values, slopes = _backward(model, part, places, padded, function, wanted)
        for row, index in enumerate(which):
            start = part.starts[row]
            yield Gradient(
                index,
                read[row],
                {
                    p: _unpadded(value[row], p, start)
                    for p, value in zip(places, values, strict=True)
                },
                {
                    p: _unpadded(slope[row], p, start)
                    for p, slope in zip(places, slopes, strict=True)
                },
            )


def _backward(
    model: "Model",
    tokens: Tokens,
    places: Sequence[Place],
    offsets: Mapping[Place, Tensor],
    metric: Metric,
    answers: Sequence[Sequence[int]],
) -> tuple[list[float], list[Tensor], list[Tensor]]:
    """Run forward and backward once; return the metric `[row]`, and values and slopes by place.

    What the caller made under `inference_mode` cannot be kept for a backward pass and is copied.
    """
    with torch.inference_mode(False), torch.enable_grad(), model.lock:
        part = replace(tokens, tokens=tokens.tokens.clone(), mask=tokens.mask.clone())
        edits, found = probes(places, {p: offset.clone() for p, offset in offsets.items()})
        with attach(model, edits) as attached:
            logits = forward(model, part)[:, -1]
            attached.require_all_fired(model.name)
        read = metric(logits, torch.tensor(answers, device=model.device))
        leaves = [found[place].added for place in places]
        slopes = torch.autograd.grad(read.sum(), leaves, materialize_grads=True)  # type: ignore[arg-type]
    values = [found[place].value for place in places]
    return read.detach().tolist(), values, list(slopes)  # type: ignore[return-value]


def _refuse_inference_weights(model: "Model") -> None:
    if any(weight.is_inference() for weight in model.hf.parameters()):
        raise ModelError(
            f"the weights of {model.name} were made under torch.inference_mode, and torch takes no "
            "gradients through these.\n  Allowed: models made outside of it.\n  Load the model "
            "outside; the method itself may be called inside."
        )


def _padded(given: Sequence[Tensor], place: Place, tokens: Tokens) -> Tensor:
    """Put tensors of unpadded prompts side by side, zeros on the left."""
    square = SITES[place[0]].axes == "bhqk"
    rows = []
    for one, start in zip(given, tokens.starts, strict=True):
        shape = (
            (one.shape[0], tokens.width, tokens.width) if square else (tokens.width, *one.shape[1:])
        )
        row = one.new_zeros(shape)
        if square:
            row[:, start:, start:] = one
        else:
            row[start:] = one
        rows.append(row)
    return torch.stack(rows)
