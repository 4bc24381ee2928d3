from dataclasses import FrozenInstanceError, replace

import numpy as np
import pytest

from mechlab.errors import OptionError
from mechlab.plots import GridView, share_limits


def view_of(values: object, **fields: object) -> GridView:
    array = np.asarray(values, dtype=float)
    labels = {
        "row_labels": tuple(map(str, range(array.shape[0]))),
        "col_labels": tuple(f"{i}·t" for i in range(array.shape[1])),
    }
    return GridView(values=array, **labels, **fields)  # type: ignore[arg-type]


def test_nan_is_not_computed_and_infinity_undefined() -> None:
    view = view_of([[0.0, np.nan, np.inf]])
    assert view.state.tolist() == [[1, 0, 2]]
    assert view.values[0, 0] == 0.0
    assert np.isnan(view.values[0, 1:]).all()


def test_types_are_small_and_the_arrays_cannot_be_changed() -> None:
    source = np.array([[1.0, 2.0]])
    view = view_of(source)
    assert (view.values.dtype, view.state.dtype) == (np.float32, np.uint8)
    source[0, 0] = 99.0
    assert view.values[0, 0] == 1.0
    with pytest.raises(ValueError, match="read-only"):
        view.values[0, 0] = 5.0
    with pytest.raises(FrozenInstanceError):
        view.title = "x"  # type: ignore[misc]


def test_limits_come_from_the_values_and_clipping_is_counted() -> None:
    assert view_of([[-0.2, 0.4]]).limits == pytest.approx((-0.4, 0.4))
    clipped = view_of([[-0.2, 0.4]], limits=(-0.3, 0.3))
    assert clipped.clipped == 1
    assert "1 cells beyond the scale" in clipped.facts


def test_a_masked_cell_has_no_number() -> None:
    view = view_of([[0.5, 0.5]], state=np.array([[1, 3]]))
    assert np.isnan(view.values[0, 1])
    assert view.describe(0, 1).endswith("not applicable")


def test_every_fact_of_a_title_is_said() -> None:
    view = view_of([[1.0]], metric="indirect effect", unit="probability", sign="+ = up", n=10)
    assert view.facts == "indirect effect (probability) · + = up · n = 10"


def test_a_cell_in_words_carries_sign_and_interval() -> None:
    band = {"ci_low": np.array([[0.1]]), "ci_high": np.array([[0.3]])}
    assert view_of([[0.2]], **band).describe(0, 0) == (
        "layer 0 · 0·t: +0.2000 (95 % interval +0.1000 to +0.3000)"
    )
    assert view_of([[np.nan]]).describe(0, 0).endswith(": not computed")


def test_shared_limits_hold_every_grid() -> None:
    small, large = share_limits([view_of([[0.1]]), view_of([[-0.9]])])
    assert small.limits == large.limits == pytest.approx((-0.9, 0.9))
    assert small.clipped == large.clipped == 0


def test_scales_of_two_kinds_are_not_mixed() -> None:
    with pytest.raises(OptionError, match="'diverging', 'sequential'"):
        share_limits([view_of([[0.1]]), view_of([[0.1]], kind="sequential")])
    with pytest.raises(OptionError, match="0 grids"):
        share_limits([])


def test_a_label_too_few_is_refused_with_both_shapes() -> None:
    view = view_of([[1.0, 2.0]])
    with pytest.raises(OptionError, match=r"'values': \(1, 2\).*labels allow \(1, 1\)"):
        replace(view, col_labels=("0",))
