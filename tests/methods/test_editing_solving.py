"""The closed forms as theorems, in float64, on random matrices."""

import pytest
import torch

from mechlab.errors import OptionError
from mechlab.methods.editing.solving import direction, rank_one_update, spread_update

D_IN, D_OUT, TEXT = 24, 10, 200


@pytest.fixture
def problem():
    """Weight, keys of text, their second moment, a key and the value it shall get."""
    random = torch.Generator().manual_seed(0)

    def draw(*shape):
        return torch.randn(*shape, generator=random, dtype=torch.float64)

    text = draw(D_IN, D_IN) @ draw(D_IN, TEXT)
    return draw(D_OUT, D_IN), text, text @ text.T / TEXT, draw(D_IN), draw(D_OUT)


def test_the_update_gives_the_key_its_value_has_rank_one_and_no_scale(problem):
    weight, _, moment, key, value = problem
    u = direction(moment, key)
    left, right, _ = rank_one_update(key, value - weight @ key, u)
    change = torch.outer(left, right)
    assert (weight @ key + change @ key - value).abs().max() < 1e-10
    assert torch.linalg.matrix_rank(change) == 1
    again = torch.outer(*rank_one_update(key, value - weight @ key, 1000 * u)[:2])
    torch.testing.assert_close(change, again)


def test_every_other_update_that_meets_the_value_disturbs_the_text_more(problem):
    weight, text, moment, key, value = problem
    left, right, _ = rank_one_update(key, value - weight @ key, direction(moment, key))
    change = torch.outer(left, right)
    least = (change @ text).norm()
    random = torch.Generator().manual_seed(1)
    blind = torch.eye(D_IN, dtype=torch.float64) - torch.outer(key, key) / (key @ key)
    for size in (1e-3, 1e-1, 1.0):
        other = change + size * torch.randn(D_OUT, D_IN, generator=random).double() @ blind
        assert (other @ key - (value - weight @ key)).abs().max() < 1e-9
        assert (other @ text).norm() > least


def test_with_the_identity_as_moment_the_update_is_r_k_over_k_squared(problem):
    weight, _, _, key, value = problem
    residual = value - weight @ key
    u = direction(torch.eye(D_IN, dtype=torch.float64), key)
    left, right, _ = rank_one_update(key, residual, u)
    expected = torch.outer(residual, key) / (key @ key)
    torch.testing.assert_close(torch.outer(left, right), expected)


def test_keys_orthogonal_to_the_direction_keep_their_values(problem):
    weight, _, moment, key, value = problem
    u = direction(moment, key)
    left, right, _ = rank_one_update(key, value - weight @ key, u)
    other = torch.randn(D_IN, generator=torch.Generator().manual_seed(2)).double()
    other -= (other @ u) * u
    assert (torch.outer(left, right) @ other).abs().max() < 1e-10


def test_a_mean_key_nearly_orthogonal_to_the_bare_one_explodes_rome_and_not_r_rome(problem):
    _, _, moment, mean, residual = problem
    u = direction(moment, mean)
    bare = torch.randn(D_IN, generator=torch.Generator().manual_seed(3)).double()
    bare += (1e-3 * mean.norm() - bare @ u) * u
    norms, factors = [], []
    for met in (bare, mean):
        left, right, factor = rank_one_update(met, residual, u)
        norms.append(float(torch.outer(left, right).norm()))
        factors.append(abs(factor))
    assert norms[0] > 100 * norms[1] and factors[0] < factors[1] / 100


def test_an_orthogonal_key_and_a_singular_moment_are_refused():
    key, u = torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0])
    with pytest.raises(OptionError, match="orthogonal"):
        rank_one_update(key, key, u)
    with pytest.raises(OptionError, match="singular"):
        direction(torch.diag(key), key)


@pytest.mark.parametrize("weight", [0.01, 1.0, 50.0])
def test_one_key_spread_misses_the_known_share_of_its_value(problem, weight):
    _, _, moment, key, residual = problem
    left, right = spread_update(moment, key[None], residual[None], weight)
    gain = float(key @ torch.linalg.inv(moment) @ key)
    missing = residual - left @ right.T @ key
    torch.testing.assert_close(missing, residual * weight / (weight + gain))


def test_spreading_is_ridge_regression_between_interpolation_and_nothing(problem):
    _, text, moment, _, _ = problem
    random = torch.Generator().manual_seed(4)
    keys, wanted = torch.randn(5, D_IN, generator=random), torch.randn(5, D_OUT, generator=random)
    keys, wanted = keys.double(), wanted.double()

    def change(weight):
        left, right = spread_update(moment, keys, wanted, weight)
        return left @ right.T

    torch.testing.assert_close(keys @ change(1e-9).T, wanted, atol=1e-6, rtol=0)
    assert change(1e12).norm() < 1e-6
    # As one least-squares problem: text shall stay as it is, weighted, keys shall change.
    rows = torch.cat([text.T * (7.0 / TEXT) ** 0.5, keys])
    aims = torch.cat([torch.zeros(TEXT, D_OUT, dtype=torch.float64), wanted])
    torch.testing.assert_close(change(7.0).T, torch.linalg.lstsq(rows, aims).solution)


def test_one_key_spread_with_no_weight_on_text_is_the_rank_one_update(problem):
    weight, _, moment, key, value = problem
    residual = value - weight @ key
    left, right = spread_update(moment, key[None], residual[None], 1e-5)
    one = torch.outer(*rank_one_update(key, residual, direction(moment, key))[:2])
    torch.testing.assert_close(left @ right.T, one, atol=1e-5, rtol=1e-4)
