"""A second reader of the same weights: a Hugging Face module with mechlab's own attention.

The bridge forces eager attention, which builds every `[query, key]` pattern. The twin is a module
of the same class that holds the very same parameters and hands queries, keys and values of new
tokens to a `Reader`, which keeps the keys and values and decides how to attend. The model itself is
not touched. `proof.proven_twin` compares the twin with the bridge before it is first used.
"""

import copy
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Protocol

import torch
import transformers
from torch import Tensor, nn

from mechlab.errors import ModelError
from mechlab.models.quiet import quiet

if TYPE_CHECKING:
    from mechlab.models import Model

__all__ = ["Reader", "Twin", "make_twin"]

NAME = "mechlab"
"""What the attention function is called in transformers' registry. No mask function has this name,
so transformers builds no mask, and readers see to causality."""
_SLOT = "mechlab_slot"


class Reader(Protocol):
    """Attends for one pass through all layers."""

    def attend(
        self, layer: int, query: Tensor, key: Tensor, value: Tensor, scaling: float
    ) -> Tensor:
        """Return head outputs `[row, head, new, d_head]`.

        Args:
            layer: the layer.
            query: `[row, head, new, d_head]`, after bias, norm and rotation.
            key: `[row, kv_head, new, d_head]` of the new tokens alone.
            value: as `key`.
            scaling: what scores are multiplied with.
        """
        ...


class _Slot:
    """Holds the reader of the pass under way; all attention modules of a twin share one."""

    reader: Reader | None = None


def _attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None = None,
    scaling: float | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Hand over to the reader, in the form that transformers calls attention."""
    slot = getattr(module, _SLOT, None)
    if slot is None or slot.reader is None:
        raise RuntimeError("attention 'mechlab' works only inside mechlab's generation engine")
    extra = [name for name in ("softcap", "s_aux", "position_bias") if kwargs.get(name) is not None]
    if extra or attention_mask is not None:
        raise ModelError(f"attention takes {', '.join(extra) or 'a mask'} beside q, k and v")
    scale = float(scaling) if scaling is not None else float(query.shape[-1]) ** -0.5
    out = slot.reader.attend(int(module.layer_idx), query, key, value, scale)  # type: ignore[arg-type]
    return out.transpose(1, 2).contiguous(), None


transformers.AttentionInterface.register(NAME, _attention)


class Twin:
    """A module that shares its parameters with a model's own.

    Attributes:
        module: the Hugging Face module.
    """

    def __init__(self, module: nn.Module, hf: nn.Module) -> None:
        """Find the places of all parameters, and give attention modules a slot for the reader.

        Args:
            module: a module of the same class.
            hf: the model's own, in its bridge.

        Raises:
            ModelError: when `hf` lacks one of the parameters of `module`.
        """
        self.module = module
        self._slot = _Slot()
        for part in module.modules():
            if hasattr(part, "layer_idx"):
                setattr(part, _SLOT, self._slot)
        ours, theirs = dict(_holders(module)), dict(_holders(hf))
        if missing := [name for name in ours if name not in theirs]:
            raise ModelError(f"the wrapped module has no {', '.join(missing[:3])}")
        self._pairs = [(ours[name], theirs[name]) for name in ours]

    def link(self) -> tuple[object, ...]:
        """Take over the parameters that the model's module holds now.

        Returns:
            Which tensors these are and how often each was written to, to tell whether something
            computed earlier still stands.
        """
        state: list[object] = []
        for (ours, leaf), (theirs, name) in self._pairs:
            parameter = theirs._parameters[name]
            ours._parameters[leaf] = parameter
            if parameter is not None:
                state += [id(parameter), parameter.data_ptr(), parameter._version]
        return tuple(state)

    def run(self, ids: Tensor, positions: Tensor, reader: Reader, *, keep: int) -> Tensor:
        """Return float32 logits of the last `keep` tokens, `[row, keep, vocab]`.

        Args:
            ids: `[row, new]` tokens.
            positions: `[row, new]` their places in their sequences.
            reader: attends, and remembers earlier tokens.
            keep: how many tokens' logits are wanted, at least 1.
        """
        self._slot.reader = reader
        try:
            out = self.module(
                input_ids=ids, position_ids=positions, use_cache=False, logits_to_keep=keep
            )
        finally:
            self._slot.reader = None
        logits: Tensor = out.logits
        return logits.float()


def make_twin(model: "Model") -> Twin:
    """Build a twin of a model; its parameters are linked before each use.

    Raises:
        ModelError: when the model's class cannot be built this way.
    """
    hf = model.hf
    config = copy.deepcopy(hf.config)
    config._attn_implementation = NAME
    with quiet(), torch.device("meta"):
        module = type(hf)(config)
    module.eval().requires_grad_(False)
    theirs = {_bare(name): buffer for name, buffer in hf.named_buffers(remove_duplicate=False)}
    for name, buffer in list(module.named_buffers(remove_duplicate=False)):
        if name not in theirs or theirs[name].shape != buffer.shape:
            raise ModelError(f"the wrapped module has no buffer {name}")
        holder, _, leaf = name.rpartition(".")
        # A copy: rotary tables of some kinds are rewritten while they run.
        module.get_submodule(holder)._buffers[leaf] = theirs[name].detach().clone()
    return Twin(module, hf)


def _holders(module: nn.Module) -> Iterator[tuple[str, tuple[nn.Module, str]]]:
    """Yield parameters by their names without a bridge: the module that holds each, and its key."""
    for name, _ in module.named_parameters(remove_duplicate=False):
        holder, _, leaf = name.rpartition(".")
        yield _bare(name), (module.get_submodule(holder), leaf)


def _bare(name: str) -> str:
    return name.replace("_original_component.", "")
