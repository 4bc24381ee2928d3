"""Averages over token roles, worked by hand on prompts of different lengths."""

import numpy as np
import pytest
import xarray as xr
from numpy.testing import assert_allclose, assert_array_equal

from mechlab.axes import TOKEN_ROLES, Head
from mechlab.errors import OptionError
from mechlab.prompts import role_of_positions
from mechlab.results import by_token_role, top_heads

NAN = np.nan
SPANS = [(8, 1, 3), (5, 1, 1), (4, 1, 2), (6, 1, 5)]  # tokens, first, last


def ragged(spans: list[tuple[int, int, int]] = SPANS) -> xr.DataArray:
    longest = max(n for n, _, _ in spans)
    roles = [role_of_positions(*span) + [""] * (longest - span[0]) for span in spans]
    values = np.full((len(spans), 2, longest), NAN)
    for row, (n, _, _) in enumerate(spans):
        values[row, 0, :n] = 10 * row + np.arange(n)
        values[row, 1, :n] = -(10 * row + np.arange(n))
    return xr.DataArray(
        values,
        {"token_role": (("prompt", "pos"), np.array(roles)), "layer": [0, 1]},
        ("prompt", "layer", "pos"),
        name="indirect_effect",
        attrs={"units": "probability"},
    )


# roles of the four prompts above, with the values of layer 0:
#   8 tokens: 0 | 1 first, 2 middle, 3 last | 4 subsequent, 5 6 further, 7 last token
#   5 tokens: 10 | 11 only | 12 subsequent, 13 further, 14 last token
#   4 tokens: 20 | 21 first, 22 last | 23 last token, also first subsequent
#   6 tokens: 30 | 31 first, 32 33 34 middle, 35 last | nothing follows
PER_PROMPT = [
    [0, 1, 2, 3, 4, 5.5, 7],
    [10, 11, NAN, 11, 12, 13, 14],
    [20, 21, NAN, 22, 23, NAN, 23],
    [30, 31, 33, 35, NAN, NAN, NAN],
]
POOLED = [15, 16, (2 + 32 + 33 + 34) / 4, 71 / 4, 13, (5 + 6 + 13) / 3, 44 / 3]


def test_means_per_prompt_are_those_worked_by_hand() -> None:
    found = by_token_role(ragged(), average="per_prompt")
    assert found.dims == ("prompt", "layer", "token_role")
    assert tuple(found.token_role.values) == TOKEN_ROLES
    assert_allclose(found.sel(layer=0), PER_PROMPT)
    assert_allclose(found.sel(layer=1), -np.array(PER_PROMPT))


def test_the_mean_over_prompts_is_the_published_pooled_average() -> None:
    found = by_token_role(ragged()).mean("prompt")
    assert_allclose(found.sel(layer=0), POOLED)
    assert_allclose(found.sel(layer=1), -np.array(POOLED))


def test_roles_of_one_token_do_not_depend_on_the_average() -> None:
    single = ["first_subject", "last_subject", "first_subsequent", "last_token"]
    pooled, each = by_token_role(ragged()), by_token_role(ragged(), average="per_prompt")
    assert_allclose(pooled.sel(token_role=single), each.sel(token_role=single))
    assert not np.allclose(pooled.mean("prompt"), each.mean("prompt"))


def test_skipped_prompts_and_missing_cells_drop_out() -> None:
    array = ragged()
    skipped = array.where(xr.DataArray([True, False, True, True], dims="prompt"))
    only_rest = by_token_role(array.isel(prompt=[0, 2, 3])).mean("prompt")
    assert_allclose(by_token_role(skipped).mean("prompt"), only_rest)
    one_layer = array.where((array.layer == 0) | (array.pos != 5))  # one `further` cell of layer 1
    found = by_token_role(one_layer).mean("prompt").sel(token_role="further")
    assert_allclose(found, [24 / 3, -(6 + 13) / 2])


def test_one_chosen_prompt_is_averaged_alone() -> None:
    found = by_token_role(ragged().isel(prompt=3, layer=0))
    assert found.dims == ("token_role",)
    assert_array_equal(found, PER_PROMPT[3])


def test_name_attributes_and_other_coordinates_stay() -> None:
    found = by_token_role(ragged().assign_coords(prompt=list("abcd")))
    assert found.name == "indirect_effect" and found.attrs == {"units": "probability"}
    assert list(found.prompt.values) == list("abcd") and list(found.layer.values) == [0, 1]


def test_the_order_of_the_axes_does_not_matter() -> None:
    array = ragged()
    turned = array.transpose("pos", "layer", "prompt")
    turned = turned.assign_coords(token_role=array.token_role.transpose("pos", "prompt"))
    expected = by_token_role(array)
    xr.testing.assert_allclose(by_token_role(turned).transpose(*expected.dims), expected)


def test_an_array_without_roles_is_refused() -> None:
    with pytest.raises(OptionError, match="no coordinate token_role.*before averaging"):
        by_token_role(ragged().drop_vars("token_role"))
    with pytest.raises(OptionError, match=r"got the axes \('prompt', 'layer'\)"):
        by_token_role(ragged().isel(pos=0))
    with pytest.raises(OptionError, match="average='mean' is unknown.*'pooled'"):
        by_token_role(ragged(), average="mean")  # type: ignore[arg-type]


def test_top_heads_are_sorted_and_never_nan() -> None:
    scores = xr.DataArray([[0.1, NAN, 0.9], [0.5, 0.5, -1.0]], dims=("layer", "head"))
    assert top_heads(scores, 3) == [Head(0, 2), Head(1, 0), Head(1, 1)]
    assert top_heads(scores, at_least=0.5) == [Head(0, 2), Head(1, 0), Head(1, 1)]
    assert len(top_heads(scores)) == 5 and top_heads(scores, 0) == []
    chosen = scores.assign_coords(layer=[4, 7]).transpose("head", "layer")
    assert top_heads(chosen, 1) == [Head(4, 2)]


def test_top_heads_refuses_other_axes() -> None:
    with pytest.raises(OptionError, match=r"got the axes \('prompt', 'layer', 'head'\)"):
        top_heads(xr.DataArray(np.zeros((1, 2, 2)), dims=("prompt", "layer", "head")), 1)
    with pytest.raises(OptionError, match="k=-1 heads"):
        top_heads(xr.DataArray(np.zeros((2, 2)), dims=("layer", "head")), -1)
