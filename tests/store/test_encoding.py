"""A Dataset comes back from its files as it was, without a warning."""

import json
import subprocess
import sys

import numpy as np
import pytest
import xarray as xr
from store_fakes import FakeModel, facts, trace

from mechlab.store.encoding import checksums, from_files, to_files
from mechlab.store.records import order_of


def again(dataset: xr.Dataset) -> xr.Dataset:
    return from_files(to_files(dataset), order_of(dataset))


def assert_same(found: xr.Dataset, expected: xr.Dataset) -> None:
    xr.testing.assert_identical(found, expected)
    assert list(found.variables) == list(expected.variables)
    for name, variable in expected.variables.items():
        assert found[name].dtype == variable.dtype, name
        assert found[name].values.tobytes() == variable.values.tobytes(), name


def test_a_result_comes_back_identical() -> None:
    result = trace(FakeModel(), facts(3))
    assert np.isnan(result.indirect_effect).any() and "" in result.token.values
    assert_same(again(result), result)


@pytest.mark.parametrize(
    "values",
    [
        np.array([1.5, np.nan, -0.0, np.inf]),
        np.array([1, 2], np.float16),
        np.array([2**62, -1]),
        np.array([200, 0], np.uint8),
        np.array([True, False]),
        np.array(["", "é\u2028\U0001f600", " leading"]),
        np.array(["", ""]),
        np.zeros((0,)),
        np.zeros((3, 0), np.float32),
        np.array(2.5),
        np.array("text"),
        np.full((2, 2), np.nan),
    ],
    ids=lambda values: f"{values.dtype}{values.shape}",
)
def test_every_kind_of_array_comes_back(values: np.ndarray) -> None:
    dims = ("prompt", "layer")[: values.ndim]
    dataset = xr.Dataset({"x": (dims, values, {"units": "1"})}, attrs={"a": 1, "b": 0.1, "c": "é"})
    assert_same(again(dataset), dataset)


def test_attributes_keep_their_types() -> None:
    about = again(xr.Dataset(attrs={"a": 1, "b": 1.0, "c": "1", "d": 1e-300, "e": True})).attrs
    assert [type(value) for value in about.values()] == [int, float, str, float, bool]


def test_the_files_are_zarr_format_3_with_checksums() -> None:
    files = to_files(trace(FakeModel(), facts(1)))
    assert json.loads(files["zarr.json"])["zarr_format"] == 3
    assert checksums({"a": b"abc"})["a"] == (
        3,
        "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
    )
    assert to_files(trace(FakeModel(), facts(1))).keys() == files.keys()


def test_listing_results_imports_no_zarr() -> None:
    code = (
        "import sys; from mechlab.store import Store\n"
        "Store('x').find(); print('zarr' in sys.modules)"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ended.stdout == "False\n"


def test_text_that_lies_column_by_column_comes_back_in_its_cells() -> None:
    text = np.asfortranarray(np.array([["a", "b", "c"], ["d", "e", "f"]]))
    found = again(xr.Dataset({"text": (("prompt", "head_set"), text)}))
    assert found.text.values.tolist() == text.tolist()
