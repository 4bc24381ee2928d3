"""Pictures of ablated memory heads and of heads over training say what they draw."""

import numpy as np
import pytest
import xarray as xr

import mechlab as ml
from mechlab.plots import ablation_bars, emergence

SETS = ["intact", "cmr", "cmr random 0", "cmr random 1", "induction"]


def ablation() -> xr.Dataset:
    effect = np.array([[[0, 2.0, 0.5, 0.25, 3.0]], [[np.nan] * 5]])
    nothing = np.full(effect.shape, np.nan)
    cell = ("outcome", "ablation", "head_set")
    return xr.Dataset(
        {
            "effect": (cell, effect), "effect_low": (cell, effect - 0.5),
            "effect_high": (cell, effect + 1), "p_value": (cell, nothing),
            "random_mean": (cell, nothing),
        },
        {
            "outcome": ["copy_loss", "icl_score"], "ablation": ["zero"], "head_set": SETS,
            "members": ("head_set", ["", "L1H0+L1H1", "L1H2+L1H3", "L1H3+L1H4", "L2H0"]),
            "k": ("head_set", [0, 2, 2, 2, 1]),
            "is_control": ("head_set", [False, False, True, True, False]),
            "control_of": ("head_set", ["", "", "cmr", "cmr", ""]),
            "layer_distance": ("head_set", [0.0] * 5),
        },
    )  # fmt: skip


def test_groups_are_bars_with_whiskers_and_every_random_set_is_a_dot() -> None:
    figure = ablation_bars(ablation())
    bars, dots = figure.data
    assert list(bars.y) == [2, 3]
    assert list(bars.error_y.array) == [1, 1] and list(bars.error_y.arrayminus) == [0.5, 0.5]
    assert list(dots.y) == [0.5, 0.25] and all(x < 0.5 for x in dots.x)  # beside their group
    assert list(figure.layout.xaxis.ticktext) == ["cmr (2)", "induction (1)"]
    assert [note.text for note in figure.layout.annotations] == ["loss on copies (nats)"]
    assert "same layers" in figure.layout.title.text
    with pytest.raises(ml.OptionError, match="no outcomes recall"):
        ablation_bars(ablation(), outcomes=["recall"])
    with pytest.raises(ml.OptionError, match="random_mean"):
        ablation_bars(ablation().drop_vars("random_mean"))


def over_steps() -> xr.DataArray:
    steps, prompts = np.array([0, 10, 1000]), 4
    rise = np.array([0.0, 0.1, 0.9])[:, None] * np.array([1.0, 0.2])  # step, head
    values = rise[:, None, None] + np.linspace(-0.02, 0.02, prompts)[None, :, None, None]
    return xr.DataArray(
        values, {"checkpoint": steps, "prompt": list("abcd"), "layer": [3], "head": [0, 1]},
        ("checkpoint", "prompt", "layer", "head"), attrs={"units": "share of attention"},
    )  # fmt: skip


def test_the_strongest_heads_of_the_last_step_are_told_and_step_0_has_a_place() -> None:
    figure = emergence({"prefix matching": over_steps()}, top=1)
    grey, band, strong = figure.data
    assert (grey.name, strong.name) == ("L3H1", "L3H0") and not grey.showlegend
    assert np.allclose(strong.y, [0, 0.1, 0.9])
    assert np.allclose(strong.x, [1 - np.log10(3), 1, 3])
    assert list(figure.layout.xaxis.ticktext) == ["0", "10", "1,000"]
    assert min(band.y) == 0 and max(band.y) > 0.9  # within what a share can be
    few = emergence({"few": over_steps().isel(prompt=slice(3))}, top=2)
    assert not [trace for trace in few.data if trace.fill]


def test_what_has_no_steps_or_other_axes_is_named() -> None:
    steps = over_steps()
    wrong = {"one": steps.isel(checkpoint=0), "two": steps.expand_dims(lag=2, pos=2)}
    with pytest.raises(ml.OptionError, match=r"one: axes .*; two: axes .*lag"):
        emergence(wrong)
    with pytest.raises(ml.OptionError, match="nothing"):
        emergence(steps.to_dataset(name="other"))
