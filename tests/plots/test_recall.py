"""Pictures of recall and of fits with the context model say what they draw."""

import numpy as np
import pytest
import xarray as xr

import mechlab as ml
from mechlab.plots import HUMAN_BETAS, beta_scatter, lag_fits, recall_curves


def averaged(measure: str, axis: str, labels: list[int], prob: list[float]) -> xr.Dataset:
    values = np.array(prob)
    data = {"prob": values, "prob_low": values - 0.1, "prob_high": values + 0.1}
    return xr.Dataset(
        {name: (axis, v) for name, v in data.items()}, {axis: labels}, {"measure": measure}
    )


CRP = averaged("lag-CRP", "lag", [-2, -1, 0, 1, 2], [0.05, 0.3, np.nan, 0.4, 0.2])
SPC = averaged("serial position curve", "input_position", [1, 2, 3], [0.9, 0.5, 0.95])


def heads() -> xr.DataArray:
    lags = np.arange(-5, 6)
    peaks = np.exp(-((lags - np.array([[0], [1], [-4]])) ** 2) / 2)
    return xr.DataArray(
        peaks[None], {"layer": [2], "head": [0, 1, 2], "lag": lags}, ("layer", "head", "lag")
    )


def test_each_measure_has_a_panel_and_people_are_black() -> None:
    figure = recall_curves({"CMR": [CRP], "other": [SPC]}, human=[SPC], max_lag=1)
    assert [note.text for note in figure.layout.annotations] == [
        "lag-CRP",
        "serial position curve",
    ]
    drawn = {(t.name, t.xaxis): t for t in figure.data if t.mode == "lines+markers"}
    assert set(drawn) == {("CMR", "x"), ("other", "x2"), ("people", "x2")}
    assert list(drawn["CMR", "x"].x) == [-1, 0, 1] and np.isnan(drawn["CMR", "x"].y[1])
    assert drawn["people", "x2"].line.color == "#000000"
    assert sum(bool(t.showlegend) for t in figure.data) == 3


def test_the_band_has_the_gap_of_its_line_and_ends_at_1() -> None:
    crp, spc = (next(t for t in recall_curves({"CMR": [c]}).data if t.fill) for c in (CRP, SPC))
    assert list(crp.x) == [-2, -1, -1, -2, None, 1, 2, 2, 1]
    assert min(y for y in crp.y if y is not None) == 0 and max(spc.y) == 1


def test_curves_that_are_not_averaged_are_all_named() -> None:
    of_subjects = CRP.expand_dims(subject=2)
    with pytest.raises(ml.OptionError, match="CMR, curve 1: axes .*people, curve 0: axes none"):
        recall_curves({"CMR": [SPC, of_subjects]}, human=[CRP.drop_vars("prob")])
    with pytest.raises(ml.OptionError, match="nothing to draw"):
        recall_curves({})


def test_a_lag_curve_stands_beside_its_fit_and_says_how_good_it_is() -> None:
    curves = heads()
    fit = ml.fit_cmr(curves)
    figure = lag_fits(curves, fit, sem=curves * 0 + 0.1)
    assert len(figure.layout.annotations) == 3
    told = figure.layout.annotations[0].text
    assert "L2H0" in told and "peak at 0" in told and f"{float(fit.distance[0, 0]):.3f}" in told
    dashed = [t for t in figure.data if t.line.dash == "dash"]
    np.testing.assert_allclose(dashed[1].y, fit.prediction[0, 1])
    assert sum(t.fill == "toself" for t in figure.data) == 3
    with pytest.raises(ml.OptionError, match="'head': 3}; {'layer': 1, 'head': 2}"):
        lag_fits(curves, fit.isel(head=[0, 1]))


def test_heads_below_the_threshold_lie_among_people_at_their_betas() -> None:
    fit = ml.fit_cmr(heads())
    figure = beta_scatter(fit, threshold=0.3)
    near, points, people = figure.data
    assert list(points.x) == fit.beta_enc.values[0, :2].tolist()
    assert "2 of 3 heads" in figure.layout.title.text
    assert set(zip(people.x, people.y, strict=True)) == set(HUMAN_BETAS.values())
    assert np.isfinite(near.x.astype(float)).sum() >= 2
    assert "1 - beta form" in figure.layout.xaxis.title.text
    with pytest.raises(ml.OptionError, match="no head has a distance below threshold=1e-09"):
        beta_scatter(fit, threshold=1e-9)
    with pytest.raises(ml.OptionError, match="different forms"):
        beta_scatter(fit.assign(beta_enc=ml.convert_beta(fit.beta_enc)))
