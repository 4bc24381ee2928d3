"""Which heads of which rows are masked, how and when; as data, and as factors for tensors."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args

import torch
from torch import Tensor

from mechlab.axes import Head
from mechlab.engine.options import check_choice
from mechlab.errors import OptionError
from mechlab.models.heads import chosen_heads

if TYPE_CHECKING:
    from mechlab.models import Model

__all__ = ["Factors", "HeadMask", "MaskKind", "MaskPhase", "check_masks", "prefix_mask"]

MaskKind = Literal["uniform", "zero"]
MaskPhase = Literal["decode", "all"]


@dataclass(frozen=True)
class HeadMask:
    """Query heads that are masked while a model continues a prompt.

    Attributes:
        heads: the query heads; none of them masks nothing.
        mask: `uniform` sets the query to zero (after its bias, norm and rotation), so that the
            head attends evenly to all visible positions; `zero` sets the head's output to zero.
        phase: `decode` masks from the query on that produces the first new token, and the prompt
            before it runs unmasked; `all` masks the prompt too.
    """

    heads: tuple[Head, ...]
    mask: MaskKind = "uniform"
    phase: MaskPhase = "decode"

    def __post_init__(self) -> None:
        """Refuse an unknown mask or phase (OptionError)."""
        check_choice("mask", self.mask, get_args(MaskKind))
        check_choice("phase", self.phase, get_args(MaskPhase))
        object.__setattr__(self, "heads", tuple(self.heads))


def check_masks(model: "Model", masks: Sequence[HeadMask | None]) -> None:
    """Refuse heads that a model does not have.

    Raises:
        OptionError: what is no head, or a head named twice in one mask.
        SiteError: heads outside the model, all at once.
    """
    different = [mask for mask in dict.fromkeys(masks) if mask is not None]
    named = dict.fromkeys(head for mask in different for head in mask.heads)
    if text := [head for head in named if not isinstance(head, Head)]:
        raise OptionError(
            f"heads of a mask: {', '.join(map(repr, text))}. Allowed: Head(layer, head). "
            "Read text with mechlab.heads first."
        )
    chosen_heads(model, tuple(named))
    for mask in different:
        chosen_heads(model, mask.heads)  # refuses a head named twice


def prefix_mask(mask: HeadMask | None) -> HeadMask | None:
    """Return what masks the prompt before its last token: two rows that agree here share it."""
    return mask if mask is not None and mask.phase == "all" and mask.heads else None


class Factors:
    """What queries and outputs of each layer are multiplied with: 0 where a head is masked.

    Attributes:
        masks: one per row.
        device: where the factors lie.
    """

    def __init__(
        self, masks: Sequence[HeadMask | None], *, n_heads: int, device: torch.device
    ) -> None:
        """Index the masks by layer.

        Args:
            masks: one per row.
            n_heads: query heads of a layer.
            device: where the factors lie.
        """
        self.masks = tuple(masks)
        self.device = device
        self._n_heads = n_heads
        found: dict[tuple[str, int], Tensor] = {}
        for row, mask in enumerate(self.masks):
            for head in mask.heads if mask is not None else ():
                key = (mask.mask, head.layer)  # type: ignore[union-attr]
                if key not in found:
                    found[key] = torch.ones(len(self.masks), n_heads, 1, 1)
                found[key][row, head.head] = 0
        self._factors = {key: factor.to(device) for key, factor in found.items()}

    def of(self, masks: Sequence[HeadMask | None]) -> "Factors":
        """Return the factors of other rows."""
        return Factors(masks, n_heads=self._n_heads, device=self.device)

    def on_queries(self, layer: int, query: Tensor) -> Tensor:
        """Return `[row, head, pos, d_head]` queries, zero where a head attends evenly."""
        return self._times(query, ("uniform", layer))

    def on_outputs(self, layer: int, output: Tensor) -> Tensor:
        """Return `[row, head, pos, d_head]` outputs, zero where a head is silenced."""
        return self._times(output, ("zero", layer))

    def _times(self, tensor: Tensor, key: tuple[str, int]) -> Tensor:
        factor = self._factors.get(key)
        return tensor if factor is None else tensor * factor.to(tensor.dtype)
