"""The closed forms, in float64: where a new association goes in the weight.

Keys are inputs of the edited projection, values its outputs; `moment` is the mean of k k^T over
text. An update is returned as thin factors: dW = left @ right^T.
"""

import torch
from torch import Tensor

from mechlab.errors import OptionError

__all__ = ["direction", "rank_one_update", "spread_update"]


def direction(moment: Tensor, key: Tensor) -> Tensor:
    """Return C^-1 k in float64, scaled to unit length (its scale cancels in the update).

    Args:
        moment: C, `[d_in, d_in]`.
        key: k, `[d_in]`.

    Raises:
        OptionError: when C is singular.
    """
    found = solve_symmetric(moment, key[:, None])[:, 0]
    scaled: Tensor = found / found.norm()
    return scaled


def rank_one_update(
    key: Tensor, value_change: Tensor, towards: Tensor
) -> tuple[Tensor, Tensor, float]:
    """Return the update that changes the value of `key` by `value_change`, along `towards`.

    With `towards` = C^-1 k it is the one that disturbs the other keys least: the minimiser of
    ||dW K|| over all dW with dW k = value_change, for C = K K^T (Meng et al. 2022, section 3.1).

    Args:
        key: k, `[d_in]`.
        value_change: v* - W k, `[d_out]`.
        towards: u, `[d_in]`.

    Returns:
        left `[d_out]` and right `[d_in]`, and the division factor k.u.

    Raises:
        OptionError: when k and u are orthogonal, so that no such update exists.
    """
    factor = float(key.double() @ towards.double())
    if factor == 0.0:
        raise OptionError(
            "the key is orthogonal to the direction of the update (division factor 0): no finite "
            "update along it reaches the value. Allowed: a key that is not orthogonal to it. "
            "Use variant='r-rome', which takes one key for both."
        )
    return value_change.double() / factor, towards.double(), factor


def spread_update(
    moment: Tensor, keys: Tensor, value_changes: Tensor, weight: float
) -> tuple[Tensor, Tensor]:
    """Return the update of many associations at once (Meng et al. 2023).

    dW = R K^T (weight C + K K^T)^-1, the ridge regression of the changes R on the keys K.

    Args:
        moment: C, `[d_in, d_in]`, the mean over text.
        keys: K, `[edit, d_in]`.
        value_changes: R, `[edit, d_out]`.
        weight: how many tokens of text C stands for.

    Returns:
        left `[d_out, edit]` and right `[d_in, edit]`.

    Raises:
        OptionError: when the matrix is singular.
    """
    rows = keys.double()
    system = weight * moment.double() + rows.T @ rows
    return value_changes.double().T, solve_symmetric(system, rows.T)


def solve_symmetric(matrix: Tensor, right: Tensor) -> Tensor:
    """Solve a symmetric positive definite system in float64.

    Raises:
        OptionError: when the matrix is not positive definite.
    """
    factor, problem = torch.linalg.cholesky_ex(matrix.double())
    if int(problem):
        raise OptionError(
            f"the matrix of key statistics is singular (its leading minor {int(problem)} of "
            f"{len(matrix)} is not positive), so it has no inverse. Allowed: statistics of many "
            "more tokens than keys have entries, or a ridge. Count more tokens, or leave ridge "
            "to be chosen."
        )
    return torch.cholesky_solve(right.double(), factor)
