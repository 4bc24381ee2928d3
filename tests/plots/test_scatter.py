import numpy as np
import pytest
from synthetic_effects import heads

from mechlab.errors import OptionError
from mechlab.plots import scatter


def test_every_cell_that_both_have_is_a_point_named_after_its_head() -> None:
    exact = heads().effect
    guess = (2 * exact).rename("estimate").where(exact.layer < 2)
    figure = scatter(exact, guess, label="head")
    points = figure.data[1]
    assert len(points.x) == 4
    assert list(points.y) == pytest.approx([2 * x for x in points.x])
    assert list(points.customdata) == ["L0H0", "L0H1", "L1H0", "L1H1"]
    assert "r = 1.000" in figure.layout.title.text


def test_both_axes_have_one_scale_with_the_line_of_equality() -> None:
    figure = scatter(heads().effect, heads(seed=1).effect)
    assert figure.layout.xaxis.range == figure.layout.yaxis.range
    assert list(figure.data[0].x) == list(figure.data[0].y)


def test_names_in_the_picture_do_not_stand_on_each_other() -> None:
    exact = heads(prompts=1, layers=30, heads=20).effect * 0 + 1.0
    figure = scatter(exact, exact, label="head")
    assert sum(bool(text) for text in figure.data[1].text) == 1
    assert "r =" not in figure.layout.title.text  # of constants it means nothing


def test_arrays_that_share_no_axes_or_cells_are_refused() -> None:
    data = heads().effect
    with pytest.raises(OptionError, match="the same axes in both"):
        scatter(data, data.isel(head=0))
    with pytest.raises(OptionError, match="no cell is in both"):
        scatter(data, data * np.nan)
    with pytest.raises(OptionError, match="label='head'"):
        scatter(data.isel(head=0), data.isel(head=0), label="head")
