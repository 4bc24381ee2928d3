"""What an edit adds to one projection: thin factors, or a dense matrix for baselines."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mechlab.errors import OptionError
from mechlab.methods.editing.modules import EditSite

__all__ = ["Delta", "DenseDelta"]

Array = np.ndarray[Any, np.dtype[np.float64]]


@dataclass(frozen=True, eq=False)
class Delta:
    """A change of low rank, dW = left @ right^T, of the weight that maps keys to values.

    The factors are in the declared orientation, whatever way a module stores its weight.
    """

    layer: int
    """Zero-based block."""
    site: EditSite
    """Which projection of the block."""
    left: Array
    """float64 `[d_out, rank]`."""
    right: Array
    """float64 `[d_in, rank]`."""

    def __post_init__(self) -> None:
        """Keep read-only copies.

        Raises:
            OptionError: when the factors do not fit together or are not finite.
        """
        _freeze(self, "left", "right")
        if self.left.ndim != 2 or self.right.ndim != 2 or self.left.shape[1] != self.right.shape[1]:
            raise OptionError(
                f"Delta: left has shape {self.left.shape} and right {self.right.shape}. "
                "Allowed: [d_out, rank] and [d_in, rank]. Transpose or reshape them."
            )

    @property
    def shape(self) -> tuple[int, int]:
        """(d_out, d_in)."""
        return self.left.shape[0], self.right.shape[0]

    @property
    def rank(self) -> int:
        """Rank of dW."""
        return int(np.linalg.matrix_rank(self._core())) if self.left.size else 0

    @property
    def norm(self) -> float:
        """Frobenius norm of dW."""
        return float(np.linalg.norm(self._core()))

    def change(self, dtype: torch.dtype = torch.float64) -> Tensor:
        """Return dW, `[d_out, d_in]`."""
        left, right = (torch.tensor(part) for part in (self.left, self.right))
        return left.to(dtype) @ right.to(dtype).T

    def _core(self) -> Array:
        """Return the small matrix of both triangular factors: its singular values are dW's."""
        small: Array = np.linalg.qr(self.left)[1] @ np.linalg.qr(self.right)[1].T
        return small


@dataclass(frozen=True, eq=False)
class DenseDelta:
    """A change of any rank, as fine-tuning makes it."""

    layer: int
    """Zero-based block."""
    site: EditSite
    """Which projection of the block."""
    dense: Array
    """dW, float64 `[d_out, d_in]`."""

    def __post_init__(self) -> None:
        """Keep a read-only copy.

        Raises:
            OptionError: when it is not a matrix of finite numbers.
        """
        _freeze(self, "dense")
        if self.dense.ndim != 2:
            raise OptionError(
                f"DenseDelta: dense has shape {self.dense.shape}. Allowed: [d_out, d_in]. "
                "Reshape it."
            )

    @property
    def shape(self) -> tuple[int, int]:
        """(d_out, d_in)."""
        return self.dense.shape[0], self.dense.shape[1]

    @property
    def rank(self) -> int:
        """Rank of dW."""
        return int(np.linalg.matrix_rank(self.dense))

    @property
    def norm(self) -> float:
        """Frobenius norm of dW."""
        return float(np.linalg.norm(self.dense))

    def change(self, dtype: torch.dtype = torch.float64) -> Tensor:
        """Return dW, `[d_out, d_in]`."""
        return torch.tensor(self.dense).to(dtype)


def _freeze(delta: Delta | DenseDelta, *names: str) -> None:
    for name in names:
        given = getattr(delta, name)
        values = given.detach().cpu().double().numpy() if isinstance(given, Tensor) else given
        copy = np.array(values, dtype=np.float64, order="C")
        copy.setflags(write=False)
        if not np.isfinite(copy).all():
            raise OptionError(
                f"{type(delta).__name__}: {name} holds numbers that are not finite. "
                "Allowed: finite numbers. The optimisation diverged: use a smaller learning rate "
                "or clamp."
            )
        object.__setattr__(delta, name, copy)
