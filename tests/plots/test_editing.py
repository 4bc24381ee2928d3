"""Pictures of edits: drawn numbers are those of the data; what is not known is not drawn."""

from collections.abc import Sequence

import numpy as np
import pytest
import xarray as xr

from mechlab.errors import OptionError
from mechlab.plots import (
    drift,
    drift_views,
    edit_bars,
    edit_bars_view,
    layer_sweep,
    layer_sweep_views,
    rows_to_csv,
    sequential_curve,
    sequential_views,
)


def evaluation(efficacy: Sequence[float]) -> xr.Dataset:
    count = len(efficacy)
    return xr.Dataset(
        {
            "efficacy": ("case", list(efficacy)),
            "neighbourhood": ("case", [1.0] * count),
            "two_hop": ("case", [np.nan] * count),
            "efficacy_magnitude": ("case", [0.5] * count),
        },
        {"case": [f"case {index}" for index in range(count)]},
        {"model_name": "atlas"},
    )


def summary() -> xr.Dataset:
    columns = {"mean": [0.8, 0.9], "low": [0.6, 0.8], "high": [0.95, 0.97], "before": [0.0, 1.0]}
    held = {name: ("metric", values) for name, values in columns.items()}
    return xr.Dataset({**held, "n": ("metric", [20, 20])}, {"metric": ["score", "efficacy"]})


def test_bars_of_an_evaluation_are_means_of_its_shares_and_leave_out_what_is_nan() -> None:
    view = edit_bars_view(evaluation([1, 1, 0, 1]), before=evaluation([0, 0, 0, 1]))
    assert view.row_labels == ("efficacy", "neighbourhood")
    assert view.col_labels == ("before", "after")
    assert view.values == pytest.approx(np.array([[0.25, 0.75], [1, 1]]))
    assert view.ci_low is not None and view.ci_high is not None
    assert (view.ci_low >= 0).all() and (view.ci_high <= 1).all()
    assert view.n == 4


def test_bars_of_a_summary_have_its_own_intervals_and_a_bare_column_before() -> None:
    view = edit_bars_view(summary())
    assert view.values == pytest.approx(np.array([[0, 0.8], [1, 0.9]]))
    assert view.ci_high is not None and np.isnan(view.ci_high[:, 0]).all()
    bars = [trace for trace in edit_bars(summary()).data if trace.type == "bar"]
    assert list(bars[1].error_y.array) == pytest.approx([0.15, 0.07])
    assert list(bars[1].error_y.arrayminus) == pytest.approx([0.2, 0.1])
    texts = [trace for trace in edit_bars(summary()).data if trace.type == "scatter"]
    assert list(texts[1].text) == ["80", "90"]


def test_methods_stand_side_by_side_and_magnitudes_may_be_negative() -> None:
    both = {"R-ROME": evaluation([1, 1]), "<b>": evaluation([0, 1])}
    figure = edit_bars(both, before=evaluation([0, 0]))
    assert [t.name for t in figure.data if t.type == "bar"] == ["before", "R-ROME", "&lt;b&gt;"]
    view = edit_bars_view(both, metrics=["efficacy_magnitude"])
    assert view.kind == "diverging" and view.values.shape == (1, 2)
    with pytest.raises(OptionError, match="no metric drift"):
        edit_bars(both, metrics=["drift"])
    with pytest.raises(OptionError, match="Allowed: results of evaluate_edit"):
        edit_bars(xr.Dataset({"effect": ("layer", [1.0])}))


def sweep(layers: int = 4, cases: int = 3) -> xr.Dataset:
    found = np.linspace(0, 1, cases * layers).reshape(cases, layers)
    names = ("efficacy", "paraphrase", "neighbourhood", "case_score")
    return xr.Dataset(
        {
            **{name: (("case", "layer"), found) for name in names},
            "trace_effect": (("case", "layer"), found[:, ::-1] / 2),
            "chosen": ("layer", [layer == 2 for layer in range(layers)]),
        },
        {"layer": range(layers), "case": list("abcdef")[:cases]},
        {"model_name": "atlas"},
    )


def test_a_sweep_and_the_tracing_effect_share_their_axis_of_layers() -> None:
    success, trace = layer_sweep_views(sweep())
    assert success.row_labels == trace.row_labels == ("0", "1", "2", "3")
    assert success.values[:, 0] == pytest.approx(sweep().efficacy.mean("case").values)
    assert trace.values[:, 0] == pytest.approx(sweep().trace_effect.mean("case").values)
    figure = layer_sweep(sweep())
    assert figure.layout.xaxis.matches == "x2"
    assert {shape.x0 for shape in figure.layout.shapes} == {2}


def test_a_trace_of_all_layers_is_cut_to_those_that_were_swept() -> None:
    part = sweep().isel(layer=[1, 3]).drop_vars("trace_effect")
    assert len(layer_sweep_views(part)) == 1
    whole = xr.DataArray([0.1, 0.2, 0.3, 0.4], {"layer": range(4)}, ("layer",))
    _, trace = layer_sweep_views(part, trace=whole)
    assert trace.values[:, 0] == pytest.approx([0.2, 0.4])
    with pytest.raises(OptionError, match="a layer sweep cannot be drawn of recall"):
        layer_sweep(sweep(), metrics=["recall"])


def moved() -> xr.Dataset:
    kl = np.array([[0.1, 0.2, np.nan], [0.3, 0.6, 0.9], [0.2, 0.2, np.nan], [0.0, 0.0, 0.0]])
    texts = ["short", "<i>most</i> moved", "middle", "still"]
    return xr.Dataset({"kl": (("prompt", "pos"), kl, {"units": "nats"})}, {"prompt": texts})


def test_drift_puts_the_text_that_moved_most_first_and_draws_positions_that_three_texts_reach() -> (
    None
):
    texts, places = drift_views(moved())
    assert texts.row_labels == ("<i>most</i> moved", "middle", "short", "still")
    assert texts.values[:, 0] == pytest.approx([0.6, 0.2, 0.15, 0])
    assert places.values[:2, 0] == pytest.approx([0.15, 0.25])
    assert np.isnan(places.values[2, 0])
    assert "&lt;i&gt;" in drift(moved()).layout.yaxis.ticktext[0]
    with pytest.raises(OptionError, match="prediction_drift"):
        drift(summary())


def sequence(collapse: int = -1) -> xr.Dataset:
    return xr.Dataset(
        {
            "efficacy_latest": ("step", [np.nan, 1.0, 0.5]),
            "nll_rise": ("step", [0.0, 0.01, 30.0]),
            "paraphrase": ("step", [np.nan] * 3),
            "collapsed": ("step", [False, False, collapse > 0]),
        },
        {"step": [0, 10, 20]},
        {"collapse_step": collapse, "model_name": "atlas"},
    )


def test_a_sequence_has_a_panel_per_known_metric_and_marks_where_it_collapsed() -> None:
    both = {"r-rome": sequence(), "rome": sequence(20).isel(step=[0, 2])}
    views = sequential_views(both)
    assert [view.metric for view in views] == ["efficacy latest", "nll rise"]
    assert views[0].row_labels == ("0", "10", "20")
    assert np.isnan(views[0].values[1, 1])  # rome was not measured there
    figure = sequential_curve(both)
    assert [shape.x0 for shape in figure.layout.shapes] == [20, 20]
    marked = [t for t in figure.data if t.name == "rome"][0].marker.symbol
    assert list(marked) == ["x"]
    assert "rome collapses at 20 edits" in figure.layout.title.text


def test_what_is_no_sequence_is_refused_by_name() -> None:
    with pytest.raises(OptionError, match="cannot be drawn of single"):
        sequential_curve({"single": summary()})
    with pytest.raises(OptionError, match="They hold: efficacy_latest, nll_rise"):
        sequential_curve(sequence(), metrics=["retention"])


def test_a_table_of_rows_cannot_run_formulas() -> None:
    assert rows_to_csv([{"case": "=1+1", "n": 2}]) == "case,n\n'=1+1,2\n"
