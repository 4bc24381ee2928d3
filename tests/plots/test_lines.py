import numpy as np
import pytest
import xarray as xr
from synthetic_effects import heads, scaling

from mechlab.errors import OptionError
from mechlab.plots import control_views, line_views, lines


def test_an_alpha_curve_has_a_line_per_outcome_and_true_distances() -> None:
    figure = lines(scaling())
    solid = [t for t in figure.data if t.mode == "lines+markers"]
    assert [t.name for t in solid] == ["in context", "memorised"]
    assert list(solid[0].x) == [-1.0, 0.0, 2.5]
    assert list(solid[0].y) == pytest.approx([0.75] * 3)


def test_random_heads_are_dashed_and_averaged_over_their_draws() -> None:
    (controls,) = control_views(scaling())
    assert controls.values == pytest.approx(np.full((3, 2), 0.5))
    dashed = [t for t in lines(scaling()).data if t.line.dash == "dash"]
    assert [t.name for t in dashed] == ["in context, control", "memorised, control"]
    assert [view.title for view in line_views(scaling())] == [controls.title]


def test_bands_are_intervals_and_a_share_stays_within_0_and_1() -> None:
    (view,) = line_views(scaling())
    assert view.ci_low is not None and view.ci_high is not None
    assert (view.ci_low >= 0).all() and (view.ci_high <= 1).all()
    assert view.limits == (0.0, 1.0)
    bands = [t for t in lines(scaling()).data if t.fill == "toself"]
    assert len(bands) == 2
    assert "bands: 95 % intervals" in view.note


def lens() -> xr.DataArray:
    values = np.arange(2 * 3 * 2 * 2, dtype=float).reshape(2, 3, 2, 2)
    return xr.DataArray(
        values,
        {"prompt": ["a", "b"], "layer": [0, 1, 2], "source": ["subject", "last"],
         "answer": ["answer", "wrong_answer"]},
        ("prompt", "layer", "source", "answer"), "source_logit", {"units": "logits"},
    )  # fmt: skip


def test_the_token_lens_has_a_panel_per_answer_and_a_line_per_source() -> None:
    views = line_views(lens())
    assert [view.title for view in views] == ["answer", "wrong answer"]
    assert views[0].col_labels == ("subject", "last")
    assert views[1].values == pytest.approx(lens().mean("prompt").sel(answer="wrong_answer").values)
    figure = lines(lens())
    assert [a.text for a in figure.layout.annotations] == ["answer", "wrong answer"]
    assert figure.layout.xaxis.title.text == "layer"
    assert len({t.line.color for t in figure.data if t.name == "last"}) == 1


def test_a_comparison_is_dashed_and_axes_of_one_entry_are_left_out() -> None:
    recall = xr.DataArray([[0.5, 0.9]], {"site": ["z"], "length": [10, 20]}, ("site", "length"),
                          "recall_probability")  # fmt: skip
    figure = lines(recall, compare=recall - 0.2)
    assert [t.line.dash for t in figure.data if t.mode.startswith("lines")] == [None, "dash"]


def test_axes_that_make_no_lines_are_refused() -> None:
    with pytest.raises(OptionError, match="none of alpha"):
        lines(xr.DataArray([1.0], {"outcome": ["a"]}, ("outcome",)))
    with pytest.raises(OptionError, match="at most two others"):
        lines(heads().effect.expand_dims(source=["a", "b"], answer=["c", "d"]).rename("effect"))
    with pytest.raises(OptionError, match="depth is not among"):
        lines(lens(), x="depth")
