"""Text run up to a layer and no further, and what enters the projections on the way.

The bridge forces eager attention and works norms out step by step, for hooks that nobody needs
here. So the twin of the generation engine runs, whose attention is torch's own; it was proven equal
to the bridge on the model. Models without one run through the bridge.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers.activations import NewGELUActivation

from mechlab.engine.generation.proof import proven_twin
from mechlab.engine.generation.twin import Twin
from mechlab.engine.one_pass import in_one_pass
from mechlab.errors import ModelError
from mechlab.methods.editing.modules import Projection, reading_inputs

if TYPE_CHECKING:
    from mechlab.models import Model

__all__ = ["KeyRuns"]

Read = Callable[[int, Tensor], None]
"""`read(index, keys)`: the place's number, and what enters it, `[row, pos, d_in]`."""


class KeyRuns:
    """Runs rows of tokens up to the deepest of some projections.

    Attributes:
        model: the model.
        places: the projections, the deepest last.
        twin: the module that runs; `None` for the bridge.
    """

    def __init__(self, model: "Model", places: Sequence[Projection]) -> None:
        """Find the module that runs."""
        self.model, self.places = model, places
        self.twin = _twin(model)
        own = [place.module for place in places]
        self._modules = own if self.twin is None else [_same(self.twin, one) for one in own]

    def run(self, tokens: Tensor, read: Read) -> None:
        """Run rows `[row, pos]` without any cache, stop at the deepest projection."""
        with ExitStack() as stack, torch.no_grad():
            for index, module in enumerate(self._modules):
                stack.enter_context(reading_inputs(module, partial(read, index)))
            stack.enter_context(reading_inputs(self._modules[-1], _stop))  # after its own reading
            stack.enter_context(suppress(_Deepest))
            if self.twin is None:
                stack.enter_context(in_one_pass(self.model))
                self.model.bridge(tokens, use_cache=False)
            else:
                stack.enter_context(_one_gelu(self.twin.module))
                positions = torch.arange(tokens.shape[1], device=tokens.device)
                self.twin.run(tokens, positions.expand(tokens.shape), _Causal(), keep=1)


class _Deepest(Exception):  # noqa: N818 - a signal, not an error
    """Ends a forward pass at the deepest layer that is read."""


def _stop(_: Tensor) -> None:
    raise _Deepest


class _Causal:
    """Attends among the tokens of the pass; nothing is remembered."""

    def attend(
        self, layer: int, query: Tensor, key: Tensor, value: Tensor, scaling: float
    ) -> Tensor:
        repeats = query.shape[1] // key.shape[1]
        if repeats > 1:
            key, value = (one.repeat_interleave(repeats, 1) for one in (key, value))
        causal = query.shape[2] > 1
        return F.scaled_dot_product_attention(query, key, value, is_causal=causal, scale=scaling)


def _twin(model: "Model") -> Twin | None:
    if not model.has_attention:
        return None
    try:
        twin = proven_twin(model)
    except ModelError:
        return None
    twin.link()
    return twin


def _same(twin: Twin, module: nn.Module) -> nn.Module:
    """Return the twin's module that holds the very weight of the model's."""
    found = (one for one in twin.module.modules() if one._parameters.get("weight") is not None)
    return next(one for one in found if one._parameters["weight"] is module.weight)


@contextmanager
def _one_gelu(module: nn.Module) -> Iterator[None]:
    """Let `gelu_new` run as one kernel, equal to rounding (see `engine.one_pass`)."""
    replaced: list[dict[str, Any]] = []
    for part in module.modules():
        if isinstance(part, NewGELUActivation) and "forward" not in part.__dict__:
            part.__dict__["forward"] = partial(F.gelu, approximate="tanh")
            replaced.append(part.__dict__)
    try:
        yield
    finally:
        for held in replaced:
            held.pop("forward", None)
