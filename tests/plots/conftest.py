"""Fixtures: an invented causal trace, and the function that makes others."""

from collections.abc import Callable

import pytest
import xarray as xr
from synthetic_traces import make_trace


@pytest.fixture
def trace() -> xr.Dataset:
    return make_trace()


@pytest.fixture
def trace_of() -> Callable[..., xr.Dataset]:
    return make_trace
