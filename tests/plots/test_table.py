import csv
import io

import numpy as np
import xarray as xr

from mechlab.plots import grid_view, grid_views, to_csv, to_rows


def test_the_table_holds_every_computed_cell_once(trace: xr.Dataset) -> None:
    trace["indirect_effect"][0, 0, 0, 0] = np.nan
    rows = to_rows(grid_views(trace))
    assert len(rows) == 3 * 4 * 7 - 1
    first = next(r for r in rows if r["grid"].startswith("mlp_out") and r["layer"] == "2")
    expected = trace.indirect_effect.sel(site="mlp_out", layer=2).values[0, 0]
    assert np.isclose(first["value"], expected)
    assert first["ci_low"] < first["value"] < first["ci_high"]


def test_csv_reads_back_and_names_its_run(trace: xr.Dataset) -> None:
    text = to_csv(grid_view(trace, site="mlp_out"), run_id="3f9a1c22b7de")
    rows = list(csv.DictReader(io.StringIO(text)))
    assert {row["run"] for row in rows} == {"3f9a1c22b7de"}
    assert rows[2]["label"] == "2·␣Eiff"


def test_text_that_a_spreadsheet_would_run_is_quoted(trace: xr.Dataset) -> None:
    array = trace.indirect_effect.isel(prompt=0, site=0, drop=True).isel(pos=slice(0, 2))
    array = array.drop_vars(["token", "token_role"]).rename(pos="token_role")
    array = array.assign_coords(token_role=["=1+1", "@x"])
    labels = [r["label"] for r in csv.DictReader(io.StringIO(to_csv(grid_view(array))))]
    assert set(labels) == {"'=1+1", "'@x"}
