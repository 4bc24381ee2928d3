from collections.abc import Callable

import numpy as np
import pytest
import xarray as xr

from mechlab.errors import OptionError
from mechlab.plots import grid_view, grid_views

Maker = Callable[..., xr.Dataset]


def test_one_grid_per_site_on_one_scale(trace: xr.Dataset) -> None:
    views = grid_views(trace)
    assert [view.title for view in views] == [
        "resid_post",
        "mlp_out · windows of 2 layers",
        "attn_out · windows of 2 layers",
    ]
    assert len({view.limits for view in views}) == 1
    top = float(np.abs(trace.indirect_effect).max())
    assert views[0].limits == pytest.approx((-top, top))


def test_the_numbers_and_labels_are_those_of_the_result(trace: xr.Dataset) -> None:
    view = grid_view(trace, site="mlp_out")
    expected = trace.indirect_effect.isel(prompt=0).sel(site="mlp_out").transpose("layer", "pos")
    np.testing.assert_allclose(view.values, expected, rtol=1e-6)
    assert view.col_labels[:3] == ("0·<s>", "1·The", "2·␣Eiff")
    assert view.row_labels == ("0", "1", "2", "3")
    assert view.sign == "+ = restoring raises p(␣Paris)"
    assert view.note == "noise 3σ, seed 0"


def test_the_order_of_dims_does_not_matter(trace: xr.Dataset) -> None:
    turned = trace.transpose("pos", "layer", "sample", "site", "prompt")
    np.testing.assert_array_equal(
        grid_view(turned, site="attn_out").values, grid_view(trace, site="attn_out").values
    )


def test_equal_tokens_keep_their_own_columns(trace_of: Maker) -> None:
    view = grid_view(trace_of([["the", "cat", "the"]]), site="mlp_out")
    assert view.col_labels == ("0·the", "1·cat", "2·the")


def test_right_padding_of_a_shorter_prompt_is_not_drawn(trace_of: Maker) -> None:
    data = trace_of([["a", "b"], ["a", "b", "c", "d"]])
    assert grid_view(data, site="mlp_out", prompt=0).shape == (4, 2)
    assert grid_view(data, site="mlp_out", prompt="fact 1").shape == (4, 4)


def test_the_interval_is_paired_by_noise_sample(trace: xr.Dataset) -> None:
    shared = trace.copy(deep=True)
    swing = np.linspace(-0.05, 0.05, 5)
    shared["corrupted_probability"][:] = 0.1 + swing
    shared["restored_probability"][:] = 0.4 + swing
    view = grid_view(shared, site="mlp_out")
    assert view.n == 5
    assert view.ci_low is not None
    assert view.ci_high is not None
    np.testing.assert_allclose(view.ci_high - view.ci_low, 0.0, atol=1e-6)

    loose = shared.copy(deep=True)
    loose["corrupted_probability"][:] = 0.1 - swing
    other = grid_view(loose, site="mlp_out")
    assert other.ci_low is not None
    assert other.ci_high is not None
    assert (other.ci_high - other.ci_low > 0.1).all()


def test_a_single_sample_gives_no_interval(trace_of: Maker) -> None:
    view = grid_view(trace_of(samples=1), site="mlp_out")
    assert view.ci_low is None


def test_role_averages_are_drawn_from_a_plain_array() -> None:
    array = xr.DataArray(
        np.array([[0.1, -0.2]]),
        dims=("layer", "token_role"),
        coords={"layer": [0], "token_role": ["last_subject", "last_token"]},
        name="indirect_effect",
    )
    view = grid_view(array)
    assert view.col_labels == ("last subject", "last token")
    assert view.col_name == "token_role"
    assert view.kind == "diverging"


def test_probabilities_run_from_white_to_one(trace: xr.Dataset) -> None:
    mean = trace.restored_probability.mean("sample").isel(prompt=0).sel(site="mlp_out")
    view = grid_view(mean)
    assert (view.kind, view.limits) == ("sequential", (0.0, 1.0))


def test_a_skipped_fact_is_all_not_computed_and_says_why(trace: xr.Dataset) -> None:
    trace["indirect_effect"][:] = np.nan
    trace = trace.assign_coords(status=("prompt", ["not known: model predicts ' Rome'"]))
    view = grid_view(trace, site="mlp_out")
    assert (view.state == 0).all()
    assert "skipped: not known" in view.note


def test_a_hostile_prompt_stays_on_one_line(trace: xr.Dataset) -> None:
    trace = trace.assign_coords(prompt_text=("prompt", ["a\x1b[31m\nb"]))
    assert grid_view(trace, site="mlp_out").subject == "“a\\u001b[31m↵b”"


def test_what_is_missing_is_named(trace: xr.Dataset, trace_of: Maker) -> None:
    with pytest.raises(OptionError, match="no site 'mlp'.*resid_post, mlp_out, attn_out"):
        grid_view(trace, site="mlp")
    with pytest.raises(OptionError, match="3 sites.*site="):
        grid_view(trace)
    with pytest.raises(OptionError, match="no variable 'effect'.*indirect_effect"):
        grid_view(trace, value="effect")
    many = trace_of([["a", "b"], ["a", "c"]])
    with pytest.raises(OptionError, match="2 prompts.*prompt='fact 0'.*by_token_role"):
        grid_views(many)
    with pytest.raises(OptionError, match="prompt='fact 7'.*'fact 0', 'fact 1'"):
        grid_views(many, prompt="fact 7")
    with pytest.raises(OptionError, match="prompt=2.*0 to 1"):
        grid_views(many, prompt=2)
    with pytest.raises(OptionError, match=r"\('layer', 'pos', 'sample'\).*select or average"):
        grid_view(trace, site="mlp_out", value="restored_probability")
