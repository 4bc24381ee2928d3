"""GPT-2's GELU in one pass over memory.

transformers spells `gelu_new` out as eight elementwise operations, which take a tenth of a trace on
CPU. Torch has the same function as one kernel. It stands in while the engine runs rows; plain runs,
against which the engine is proved, use the model's own.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING

import torch.nn.functional as F
from transformers.activations import NewGELUActivation

if TYPE_CHECKING:
    from mechlab.models import Model

__all__ = ["gelu_in_one_pass"]

ONE_PASS = partial(F.gelu, approximate="tanh")


@contextmanager
def gelu_in_one_pass(model: "Model") -> Iterator[None]:
    """Let every `gelu_new` of a model run as one kernel; equal to rounding."""
    found = [module for module in model.hf.modules() if isinstance(module, NewGELUActivation)]
    try:
        for module in found:
            module.__dict__["forward"] = ONE_PASS
        yield
    finally:
        for module in found:
            module.__dict__.pop("forward", None)
