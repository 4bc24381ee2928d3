"""Gradients of a metric with respect to activations, prompt by prompt.

Parameters take no part: the gradient is asked for the activations alone, and gradients are switched
on only inside.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from mechlab.engine.activations import _groups, _unpadded
from mechlab.engine.forward import Tokens, forward, tokenize_bases
from mechlab.engine.rows import Base, Row, check_rows
from mechlab.errors import OptionError
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
        SiteError: a place that does not exist on the model, is unproven, or never fired.
        PromptError: prompts that cannot be tokenised, all at once.
    """
    check_differentiable(metric)
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
        edits, found = probes(places, padded)
        reference = torch.tensor([list(answers[i]) for i in which], device=model.device)
        with model.lock, torch.enable_grad():
            with attach(model, edits) as attached:
                logits = forward(model, part)[:, -1]
                attached.require_all_fired(model.name)
            read = function(logits, reference)
            leaves = [probe.added for probe in found.values()]
            slopes = torch.autograd.grad(read.sum(), leaves, materialize_grads=True)  # type: ignore[arg-type]
        for row, index in enumerate(which):
            start = part.starts[row]
            yield Gradient(
                index,
                float(read[row].detach()),
                {p: _unpadded(probe.value[row], p, start) for p, probe in found.items()},  # type: ignore[index]
                {p: _unpadded(g[row], p, start) for p, g in zip(places, slopes, strict=True)},
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
