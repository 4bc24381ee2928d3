"""Pictures of retrieval heads: sorted scores, mask curves, lengths × depths, copied tokens."""

import json

import numpy as np
import pytest
import xarray as xr
from scipy import stats

from mechlab.errors import OptionError
from mechlab.plots import (
    copied_tokens,
    copied_views,
    head_views,
    length_by_depth,
    length_by_depth_views,
    line_views,
    mask_curve,
    mask_view,
    score_view,
    sorted_scores,
    to_rows,
    written_tokens,
    written_view,
)


def detection() -> xr.Dataset:
    """Return four tests of 2 × 3 heads; the model fails the last one, so that it has no score."""
    score = np.zeros((4, 2, 3))
    score[:, 1, 2] = [1.0, 0.5, 0.75, np.nan]
    score[:, 0, 1] = 0.1
    score[3] = np.nan
    hits = np.zeros((4, 2, 3, 3), bool)
    hits[0, 1, 2] = [True, False, True]
    hits[0, 0, 1, 1] = True
    attended = np.full((4, 4, 2, 3), 7)
    attended[0, :, 1, 2] = [20, 21, 22, 9]
    return xr.Dataset(
        {"retrieval_score": (("prompt", "layer", "head"), score,
                             {"units": "share of needle tokens"}),
         "success": ("prompt", [True, True, True, False]),
         "hits": (("prompt", "layer", "head", "needle_pos"), hits),
         "attended": (("prompt", "step", "layer", "head"), attended)},
        {"prompt": list("abcd"), "layer": [0, 1], "head": [0, 1, 2],
         "length": ("prompt", [512, 1024, 512, 1024]), "depth": ("prompt", [0.0, 0.0, 0.0, 50.0]),
         "needle_token": (("prompt", "needle_pos"), [[" red", " <b>", " hat"]] * 4),
         "needle_start": ("prompt", [20] * 4),
         "token": (("prompt", "step"), [[" red", " old", " hat", ""]] * 4)},
        {"method": "retrieval_score", "model_name": "toy", "options": "{}"},
    )  # fmt: skip


def masking() -> xr.Dataset:
    """Return recall of three tests under 1 and 4 masked heads, with two random draws each."""
    recall = np.array([[0.5, 0.0, 1.0, 0.8, 0.6, 1.0]] * 3)
    recall[0, 0] = 0.2
    return xr.Dataset(
        {"recall": (("prompt", "head_set"), recall, {"units": "share of words"}),
         "unmasked_recall": ("prompt", [1.0, 1.0, 0.7])},
        {"prompt": list("abc"), "head_set": ["top 1", "top 4", "r0", "r1", "r2", "r3"],
         "k": ("head_set", [1, 4, 1, 1, 4, 4]),
         "is_control": ("head_set", [False, False, True, True, True, True])},
        {"method": "needle_recall", "model_name": "toy",
         "options": json.dumps({"mask": "uniform", "phase": "decode"})},
    )  # fmt: skip


def written() -> xr.Dataset:
    """Return what two prompts were continued with: three tokens, the second changed, and one."""
    cell = ("prompt", "step")
    alpha = [[2.0, 0.5, 1.0], [0.25, np.nan, np.nan]]
    return xr.Dataset(
        {"token": (cell, [[" <b>", "red", "."], ["hat", "", ""]]),
         "base_token": (cell, [[" <b>", "old", "."], ["hat", "", ""]]),
         "changed": (cell, [[0.0, 1.0, 0.0], [0.0, np.nan, np.nan]]),
         "alpha": (cell, alpha), "n_tokens": ("prompt", [3, 1])},
        {"prompt": ["a", "b"], "step": [0, 1, 2]},
        {"method": "generate", "model_name": "toy", "options": "{}"},
    )  # fmt: skip


def test_heads_fall_in_order_over_the_prompts_that_have_a_score() -> None:
    view = score_view(detection())
    assert view.row_labels[:2] == ("L1H2", "L0H1")
    assert view.values[:2, 0] == pytest.approx([0.75, 0.1])
    assert view.n == 3
    low, high = stats.ttest_1samp([1.0, 0.5, 0.75], 0).confidence_interval(0.95)
    assert high > 1  # which a share cannot be
    assert (view.ci_low[0, 0], view.ci_high[0, 0]) == pytest.approx((low, 1))  # type: ignore[index]


def test_the_threshold_counts_the_score_that_equals_it() -> None:
    figure = sorted_scores(detection())
    assert figure.layout.annotations[0].text == "2 heads<br>≥ 0.1"
    colors = figure.data[0].marker.color
    assert colors[0] == colors[1] != colors[2]
    assert figure.layout.shapes[0].y0 == 0.1
    assert "6 of 6 heads drawn · 1 ≥ 0.5 · 4 exactly 0" in figure.layout.title.text
    above = sorted_scores(detection(), threshold=0.11)
    assert above.layout.annotations[0].text == "1 head<br>≥ 0.11"


def test_whiskers_do_not_reach_below_a_score_of_nothing() -> None:
    bars = sorted_scores(detection()).data[0]
    assert (np.asarray(bars.y) - np.asarray(bars.error_y.arrayminus) >= 0).all()


def test_scores_that_nobody_has_and_other_axes_are_refused() -> None:
    failed = detection().isel(prompt=[3])
    with pytest.raises(OptionError, match="no head has a score"):
        sorted_scores(failed)
    with pytest.raises(OptionError, match="cannot be sorted with the axes"):
        sorted_scores(masking(), value="recall")
    with pytest.raises(OptionError, match="threshold=nan"):
        sorted_scores(detection(), threshold=float("nan"))


def test_a_mask_curve_starts_unmasked_and_shows_every_random_draw() -> None:
    figure = mask_curve(masking())
    chosen, random = (t for t in figure.data if t.mode == "lines+markers")
    assert list(chosen.x) == [0, 1, 4]
    assert list(chosen.y) == pytest.approx([0.9, 0.4, 0.0])
    assert list(random.y) == pytest.approx([0.9, 0.9, 0.8])
    assert random.name == "random, 2 draws"
    (dots,) = (t for t in figure.data if t.mode == "markers" and "random" in t.name)
    assert list(dots.y) == pytest.approx([0.9, 0.9, 1.0, 0.8, 0.6, 1.0])
    assert list(figure.layout.xaxis.tickvals) == [0, 1, 4]
    assert "mask uniform, phase decode" in figure.layout.title.text


def test_the_bands_of_a_mask_curve_are_t_intervals_within_0_and_1() -> None:
    view = mask_view(masking())
    low, high = stats.ttest_1samp([0.2, 0.5, 0.5], 0).confidence_interval(0.95)
    assert view.ci_low is not None and view.ci_high is not None
    assert (view.ci_low[1, 0], view.ci_high[1, 0]) == pytest.approx((max(low, 0), high))
    assert view.ci_high[0, 0] == 1.0


def test_random_heads_may_come_from_another_result_and_k_may_be_an_axis() -> None:
    one = masking()
    chosen = one.sel(head_set=["top 1", "top 4"]).drop_vars("is_control")
    random = one.sel(head_set=["r0", "r1", "r2", "r3"])
    both = mask_view(chosen, compare=random)
    assert both.values == pytest.approx(mask_view(one).values)
    by_k = xr.DataArray(
        one.recall.values[:, 2:].reshape(3, 2, 2), {"k": [1, 4]}, ("prompt", "k", "draw"), "recall"
    )
    assert mask_view(chosen.recall, compare=by_k).values == pytest.approx(both.values[1:])
    with pytest.raises(OptionError, match="mask curve cannot be drawn of the axes"):
        mask_curve(one.drop_vars("k"))


def test_numbers_below_a_mask_curve_do_not_touch() -> None:
    wide = xr.DataArray(np.ones((1, 5)), {"k": [1, 2, 5, 50, 100]}, ("prompt", "k"), "recall")
    ticks = list(mask_curve(wide).layout.xaxis.tickvals)
    assert ticks[-1] == 100
    assert min(np.diff(ticks)) * 760 / 99 >= 26


def test_a_map_of_lengths_and_depths_averages_needles_and_hatches_what_is_not_there() -> None:
    data = detection()
    (view,) = length_by_depth_views(data)
    assert view.row_labels == ("0 %", "50 %")
    assert view.col_labels == ("512", "1024")
    assert view.values[0].tolist() == [1.0, 1.0]
    assert np.isnan(view.values[1, 0]) and view.values[1, 1] == 0.0
    assert view.hover["prompts"].tolist() == [[2, 1], [0, 1]]
    figure = length_by_depth(data)
    assert figure.layout.yaxis.range[0] > figure.layout.yaxis.range[1]  # the beginning on top
    assert figure.data[1].name == "not computed"


def test_maps_of_several_head_sets_share_scale_and_row_labels() -> None:
    data = masking().assign_coords(
        length=("prompt", [1, 1, 2]), depth=("prompt", [0.0, 100.0, 0.0])
    )
    figure = length_by_depth(data, value="recall")
    axes = list(figure.select_yaxes())
    assert [axis.showticklabels for axis in axes[:3]] == [None, False, False]
    assert len({trace.coloraxis for trace in figure.data if trace.type == "heatmap"}) == 1
    with pytest.raises(OptionError, match="without length and depth"):
        length_by_depth(masking(), value="recall")


def test_copied_tokens_are_those_of_the_hits_and_steps_tell_where_the_head_looked() -> None:
    needle, steps = copied_views(detection())
    assert needle.row_labels == ("L1H2", "L0H1")  # most copied first, the others left out
    assert needle.col_labels == ("20·␣red", "21·␣<b>", "22·␣hat")
    assert needle.values.tolist() == [[1, 0, 1], [0, 1, 0]]
    assert steps.col_labels == ("0·␣red", "1·␣old", "2·␣hat")  # no column for what was not written
    assert steps.values[0] == pytest.approx([1, 0.35, 1])
    assert steps.values[1].tolist() == [0, 0, 0]
    assert steps.hover["looked at"][0, 1] == "21·␣<b>"
    assert len(to_rows(needle)) == 6


def test_a_strip_may_show_named_heads_of_another_prompt_without_steps() -> None:
    data = detection().drop_vars("attended")
    (view,) = copied_views(data, heads=["L0H0"], prompt="b")
    assert view.row_labels == ("L0H0",) and view.subject == "b"
    figure = copied_tokens(detection())
    assert "&lt;b&gt;" in figure.layout.xaxis.ticktext[1]
    with pytest.raises(OptionError, match="does not hold: L7H0"):
        copied_tokens(data, heads=["L7H0"])
    with pytest.raises(OptionError, match="prompt=9 is not in this result"):
        copied_tokens(data, prompt=9)
    with pytest.raises(OptionError, match="copied tokens are drawn of hits"):
        copied_tokens(masking())


def test_per_cent_are_drawn_from_0_to_100_and_a_result_knows_its_own_picture() -> None:
    data = masking()
    for name in ("recall", "unmasked_recall"):
        data[name] = (100 * data[name]).assign_attrs(units="per cent")
    assert list(mask_curve(data).layout.yaxis.range) == pytest.approx([-3, 103])
    view = mask_view(data)
    assert view.ci_high is not None and view.ci_high[0, 0] == 100.0
    placed = data.assign_coords(length=("prompt", [1, 1, 2]), depth=("prompt", [0.0, 9.0, np.nan]))
    (first, *_) = length_by_depth_views(placed, value="recall")
    assert first.limits == (0.0, 100.0)
    assert first.row_labels == ("0 %", "9 %")  # the third has no needle
    (grid,) = head_views(detection())
    assert grid.metric == "retrieval score" and grid.limits == (0.0, 1.0)
    with pytest.raises(OptionError, match="without depth"):
        length_by_depth(placed.isel(prompt=[2]), value="recall")


def test_lines_run_along_what_is_known_of_every_prompt() -> None:
    recall = masking().recall.assign_coords(length=("prompt", [512, 512, 1024]))[:, :2]
    (view,) = line_views(recall.drop_vars("is_control"), x="length")
    assert view.row_labels == ("512", "1024")
    assert view.values[:, 0] == pytest.approx([0.35, 0.5])
    low, _ = stats.ttest_1samp([0.2, 0.5], 0).confidence_interval(0.95)
    assert view.ci_low is not None
    assert view.ci_low[0, 0] == pytest.approx(max(low, 0.0))
    assert np.isnan(view.ci_low[1, 0])  # one prompt has no interval
    with pytest.raises(OptionError, match="depth is not among"):
        line_views(recall, x="depth")


def test_written_tokens_stand_in_lines_and_those_of_the_contrast_have_a_dot() -> None:
    view = written_view(written(), across=2)
    assert view.row_labels == ("a", "", "b")
    assert view.values[0].tolist() == [2.0, 0.5]
    assert view.hover["token"].tolist() == [["␣<b>", "red"], [".", ""], ["hat", ""]]
    assert view.hover["base token"].tolist() == [["", "old"], ["", ""], ["", ""]]
    assert view.describe(1, 1).endswith("not applicable")
    figure = written_tokens(written(), across=2)
    assert figure.data[0].text[0][0] == "␣&lt;b&gt;"
    (dots,) = (trace for trace in figure.data if trace.name == "changed")
    assert (list(dots.x), list(dots.y)) == ([1.4], [-0.32])
    alone = written_view(written(), prompt="b")
    assert alone.row_labels == ("b",) and "1 of 2 prompts" in alone.note
    with pytest.raises(OptionError, match="written tokens are drawn of"):
        written_tokens(masking())
