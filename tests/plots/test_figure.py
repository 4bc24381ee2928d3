import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import plotly.io
import pytest
import xarray as xr

from mechlab.plots import grid_views, layer_by_token, to_plotly, write_html


def test_three_sites_share_one_colour_axis(trace: xr.Dataset) -> None:
    figure = layer_by_token(trace)
    heat = [t for t in figure.data if t.type == "heatmap"]
    assert [t.coloraxis for t in heat] == ["coloraxis"] * 3
    axis = figure.layout.coloraxis
    assert axis.cmin == -axis.cmax
    assert axis.colorscale[5] == (0.5, "#ffffff")


def test_token_axes_are_numbers_with_escaped_text(trace: xr.Dataset) -> None:
    figure = layer_by_token(trace, site="mlp_out")
    assert list(figure.data[0].x) == list(range(7))
    assert figure.layout.xaxis.ticktext[0] == "0·&lt;s&gt;"
    assert "&lt;s&gt;" in figure.data[0].customdata[0][0]


def test_cells_not_computed_are_gaps_under_a_hatch(trace: xr.Dataset) -> None:
    trace["indirect_effect"][0, 1, 2, 3:5] = np.nan
    figure = layer_by_token(trace, site="mlp_out")
    heat, hatch = figure.data
    assert np.isnan(np.asarray(heat.z)[2, 3:5]).all()
    assert hatch.fillpattern.shape == "/"
    assert (min(hatch.x[:5]), max(hatch.x[:5])) == (2.5, 4.5)
    assert (min(hatch.y[:5]), max(hatch.y[:5])) == (1.5, 2.5)
    assert "not computed" in heat.customdata[2][3]


def test_layers_run_upwards(trace: xr.Dataset) -> None:
    low, high = layer_by_token(trace, site="mlp_out").layout.yaxis.range
    assert low < high


def test_wide_grids_stand_one_above_the_other(trace_of: Callable[..., xr.Dataset]) -> None:
    figure = layer_by_token(trace_of([[f" t{i}" for i in range(60)]]))
    assert len({tuple(figure.layout[f"yaxis{i}"].domain) for i in ("", 2, 3)}) == 3
    assert len(figure.layout.xaxis.tickvals) <= 40


def test_values_travel_as_base64_not_as_lists(trace: xr.Dataset) -> None:
    z = json.loads(to_plotly(grid_views(trace)).to_json())["data"][0]["z"]
    assert z["dtype"] == "f4"


def test_drawing_changes_no_global_template(trace: xr.Dataset) -> None:
    before = plotly.io.templates.default
    layer_by_token(trace)
    assert plotly.io.templates.default == before
    assert layer_by_token(trace).layout.template.layout.to_plotly_json() == {}


def test_clipped_cells_are_marked_and_counted(trace: xr.Dataset) -> None:
    trace["indirect_effect"][0, 1] = 0.1
    trace["indirect_effect"][0, 1, 0, 0] = 9.0
    figure = layer_by_token(trace, site="mlp_out", clip="p99")
    assert figure.layout.coloraxis.cmax < 9.0
    marks = figure.data[1]
    assert (list(marks.x), list(marks.y)) == ([0], [0])
    assert "1 cells beyond the scale" in figure.layout.title.text


def test_a_hostile_prompt_cannot_leave_its_page(trace: xr.Dataset, tmp_path: Path) -> None:
    evil = "</script><script>alert(1)</script>"
    trace = trace.assign_coords(
        prompt_text=("prompt", [evil]),
        token=(("prompt", "pos"), np.array([[evil, *["x"] * 6]], dtype=object)),
    )
    page = write_html(layer_by_token(trace), tmp_path / "figure.html").read_text()
    assert "<script>alert" not in page


def test_the_html_file_is_whole_offline_and_offers_no_upload(
    trace: xr.Dataset, tmp_path: Path
) -> None:
    path = write_html(layer_by_token(trace), tmp_path / "new" / "figure.html")
    page = path.read_text()
    assert path.is_absolute()
    assert '"showSendToCloud": false' in page
    assert '"displaylogo": false' in page
    assert 'src="http' not in page
    assert len(page) > 2_000_000
    assert [p.name for p in path.parent.iterdir()] == ["figure.html"]
    assert "<title>“The Eiff" in page


def test_a_failed_write_leaves_nothing_behind(trace: xr.Dataset, tmp_path: Path) -> None:
    (tmp_path / "figure.html").mkdir()  # a folder stands where the file should go
    with pytest.raises(OSError, match="figure.html"):
        write_html(layer_by_token(trace), tmp_path / "figure.html")
    assert [p.name for p in tmp_path.iterdir()] == ["figure.html"]
