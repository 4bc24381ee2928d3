"""The code of every page, run in a fresh process with an empty store, gives the same arrays."""

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import edit_request
import loaded
import mechlab as ml
from heads_request import HeadsRequest
from induction_request import InductionRequest
from lens_request import lens_of
from paths_request import PathsRequest
from request import Request
from retrieval_request import RetrievalRequest
from trace_request import example_of

TRACE = replace(example_of("atlas"), sites=("mlp_out",), samples=2, window=2, seed=3)
FEW: list[Request] = [TRACE, lens_of(TRACE, "mlp_out", foil="Rome")]
REST: list[Request] = [
    HeadsRequest(),
    PathsRequest(receiver="L2H0.v"),
    RetrievalRequest(lengths="128", depths=1, max_new_tokens=3),
    InductionRequest(length=10, count=2),
    replace(
        edit_request.example_of("atlas"), tokens=2_000, samples=1, generation_length=12, drift=0
    ),
]
RUNNER = """
import functools, runpy, sys
import plotly.io
import mechlab as ml
ml.load_model = functools.cache(ml.load_model)  # once for all pages: loading takes most of the time
plotly.io.renderers.default = ""  # the last line shows a figure: nowhere
for script in sys.argv[1:]:
    runpy.run_path(script)
"""


@pytest.fixture(autouse=True)
def shipped() -> None:
    """Here the shipped models are those that are shipped."""


@pytest.fixture
def in_a_fresh_process(tmp_path: Path) -> Callable[[list[str]], ml.Store]:
    """Run scripts, each with its own names, on an empty store; return that store."""

    def run(scripts: list[str]) -> ml.Store:
        other = tmp_path / "other"
        paths = [tmp_path / f"page{number}.py" for number in range(len(scripts))]
        for path, script in zip(paths, scripts, strict=True):
            path.write_text(script, encoding="utf-8")
        done = subprocess.run(
            [sys.executable, "-c", RUNNER, *map(str, paths)],
            env={**os.environ, "MECHLAB_CACHE": str(other)},
            capture_output=True, text=True, check=False, cwd=tmp_path,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return ml.Store(other)

    return run


@pytest.mark.parametrize("requests", [FEW, pytest.param(REST, marks=pytest.mark.slow)])
def test_exported_code_reproduces_the_arrays(in_a_fresh_process, requests) -> None:
    keys = [
        request.compute(loaded.load(request.load_arguments), None, recompute=False)
        for request in requests
    ]
    assert len(set(keys)) == len(requests)
    again = in_a_fresh_process([r.code(k[:12]) for r, k in zip(requests, keys, strict=True)])
    for request, key in zip(requests, keys, strict=True):
        here, there = ml.Store().get(key), again.get(key)
        assert set(here.data_vars) == set(there.data_vars), request.method
        for name, array in here.data_vars.items():
            told = f"{request.method}: {name}"
            if array.dtype.kind in "fc":
                np.testing.assert_allclose(
                    there[name], array, rtol=1e-4, atol=1e-6, equal_nan=True, err_msg=told
                )
            else:
                np.testing.assert_array_equal(there[name], array, err_msg=told)
