import numpy as np
import pytest
import xarray as xr
from synthetic_effects import heads

from mechlab.errors import OptionError
from mechlab.methods import METHODS
from mechlab.plots import head_grid, head_views, main_variable, to_rows
from mechlab.statistics import bootstrap_interval
from mechlab.workflows import screen_then_verify


@pytest.mark.parametrize("name", sorted({*METHODS, "screen_then_verify"}))
def test_the_default_plot_of_every_method_exists(name: str) -> None:
    from mechlab import plots

    described = METHODS.get(name, screen_then_verify.method)  # type: ignore[attr-defined]
    assert callable(getattr(plots, described.default_plot))
    assert described.default_plot in plots.__all__


def test_the_grid_shows_the_mean_over_prompts_and_names_heads() -> None:
    data = heads()
    (view,) = head_views(data)
    assert view.values == pytest.approx(data.effect.mean("prompt").values)
    assert view.describe(2, 1).startswith("L2H1: ")
    assert view.n == 4
    assert "kind zero" in view.note and "toy" in view.note


def test_the_default_interval_is_the_t_interval_of_the_mean() -> None:
    from scipy import stats

    data = heads()
    (view,) = head_views(data)
    low, high = stats.ttest_1samp(data.effect.values[:, 1, 1], 0).confidence_interval(0.95)
    assert (view.ci_low[1, 1], view.ci_high[1, 1]) == pytest.approx((low, high))  # type: ignore[index]


def test_an_interval_from_outside_is_used_and_one_of_other_axes_refused() -> None:
    data = heads()
    interval = bootstrap_interval(data.effect)
    (view,) = head_views(data, interval=interval)
    assert view.ci_low == pytest.approx(interval.low.values)
    with pytest.raises(OptionError, match="interval has the axes"):
        head_views(data, interval=interval.isel(layer=slice(2)))


def test_one_prompt_has_its_own_numbers_and_no_interval() -> None:
    data = heads()
    (view,) = head_views(data, prompt="p2")
    assert view.values == pytest.approx(data.effect.values[2])
    assert view.ci_low is None
    assert "text 2" in view.subject
    with pytest.raises(OptionError, match="prompt=9 is not in this result"):
        head_views(data, prompt=9)


def test_nan_is_hatched_and_left_out_of_the_table_and_zero_is_white() -> None:
    data = heads()
    data["effect"][:, 0, 0] = np.nan
    data["effect"][:, 0, 1] = 0.0
    figure = head_grid(data)
    assert [trace.name for trace in figure.data[1:]] == ["not computed"]
    assert figure.data[0].z[0, 1] == 0.0
    assert figure.layout.coloraxis.cmin == -figure.layout.coloraxis.cmax
    assert len(to_rows(head_views(data))) == 5


def test_layers_run_upwards_and_heads_to_the_right() -> None:
    figure = head_grid(heads())
    assert figure.layout.yaxis.range[0] < figure.layout.yaxis.range[1]
    assert figure.layout.xaxis.ticktext == ("0", "1")
    assert figure.layout.xaxis.title.text == "head"


def test_a_screen_and_its_exact_check_share_one_scale() -> None:
    data = heads()
    data["estimate"] = 5 * data.effect
    data["effect"][:, 1] = np.nan
    screen, exact = head_views(data)
    assert (screen.title, exact.title) == ("estimate", "effect")
    assert screen.limits == exact.limits
    assert (exact.state[1] == 0).all()


def test_positions_show_each_head_at_its_strongest() -> None:
    data = heads(prompts=1)
    effect = data.effect.expand_dims(pos=[0, 1]).transpose("prompt", "layer", "head", "pos").copy()
    effect[0, 2, 1, 0] = -9.0
    (view,) = head_views(effect.rename("effect"))
    assert view.values[2, 1] == -9.0
    assert "strongest position" in view.note


def test_components_stand_by_layer_and_what_has_no_layer_at_the_ends() -> None:
    kinds = ["embed", "attn", "mlp", "attn", "mlp", "unembed_bias"]
    data = xr.DataArray(
        np.arange(6.0)[None],
        {"prompt": ["a"], "component": ["embed", "L0.attn", "L0.mlp", "L1.attn", "L1.mlp", "b"],
         "component_kind": ("component", kinds),
         "component_layer": ("component", [-1, 0, 0, 1, 1, -1])},
        ("prompt", "component"), "component_attribution",
    )  # fmt: skip
    (view,) = head_views(data)
    assert view.col_labels == ("embed", "attn", "mlp", "unembed bias")
    assert view.values[0].tolist()[:3] == [0.0, 1.0, 2.0]
    assert view.values[1].tolist()[1:] == [3.0, 4.0, 5.0]
    assert view.describe(1, 0).endswith("not applicable")


def test_axes_that_make_no_grid_are_refused() -> None:
    with pytest.raises(OptionError, match=r"cannot be drawn of dims.*receiver"):
        head_grid(heads().effect.expand_dims(receiver=["q", "k"]).rename("effect"))
    with pytest.raises(OptionError, match="no variable 'efect'"):
        head_grid(heads(), value="efect")
    with pytest.raises(OptionError, match="is in this result"):
        main_variable(xr.Dataset({"x": 1}))
