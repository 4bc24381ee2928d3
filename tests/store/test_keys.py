"""Keys say what a result is, the same in every process, and nothing of how it was computed."""

import math
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from store_fakes import FakeModel, facts, spread, trace

from mechlab.errors import OptionError, PromptError, StoreError
from mechlab.prompts import PromptPair
from mechlab.results import analysis
from mechlab.store import Store
from mechlab.store.keys import bind

TESTS = Path(__file__).parents[1]
STORE = Store("memory://keys")
MODEL = FakeModel()


def key(function: Any = trace, model: Any = MODEL, count: int = 2, **options: Any) -> str:
    return STORE.key(function, model, facts(count), **options)


@analysis()
def free(model: Any, prompts: Any, *, metric: Any = None, **more: Any) -> None:
    """Takes anything."""


def measure(x: float) -> float:
    return x


def test_a_key_is_the_digest_of_readable_json() -> None:
    request = bind(trace.method, MODEL, {"window": 4})  # type: ignore[attr-defined]
    assert request.source("prompts", "abc") == {
        "method": "trace",
        "method_version": 3,
        "model": "fake-fingerprint",
        "options": {"window": 4, "noise_scale": 3.0, "seed": 0, "slow": 0.0},
        "prompts": "abc",
    }
    assert len(key()) == 64 and set(key()) <= set("0123456789abcdef")


def test_a_default_written_out_gives_the_same_key() -> None:
    assert key() == key(window=2, noise_scale=3.0) == key(noise_scale=3)
    assert key(free, sites=["a", "b"]) == key(free, sites=("a", "b"))
    assert key(free, metric=np.float64(0.5)) == key(free, metric=0.5)


def test_execution_hints_do_not_enter_the_key() -> None:
    assert key() == key(max_batch=7) == key(progress=print) == key(journal=object())
    assert key(free) == key(free, mode="plain", device="cuda", suffix=True)


def test_everything_that_decides_numbers_enters_the_key() -> None:
    others = [
        key(window=3),
        key(seed=1),
        key(count=3),
        key(spread),
        key(model=FakeModel("other")),
        key(free, metric=1),
        key(free, metric=True),
        key(free, metric="1"),
        key(free, metric=[1]),
        key(free, metric=measure),
        key(free, metric=np.ones(2)),
        key(free, metric=np.ones(2, np.float32)),
        key(free, metric=facts(1)),
        key(free, metric={"b": 1, "a": 2}),
        key(free, metric={"a": 2, "b": 1}),  # the order of an axis of the result
    ]
    assert len({key(), *others}) == len(others) + 1


def test_the_key_is_the_same_in_every_process() -> None:
    code = (
        "from store_fakes import *; from mechlab.store import Store\n"
        "print(Store('memory://x').key(trace, FakeModel(), facts(2), window=5))"
    )
    found = set()
    for seed in ("0", "1", "77"):
        path = os.pathsep.join([str(TESTS), str(TESTS.parent)])
        env = {**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": path}
        run = [sys.executable, "-c", code]
        found.add(subprocess.run(run, env=env, capture_output=True, text=True, check=True).stdout)
    assert found == {key(window=5) + "\n"}


def test_options_without_a_key_are_all_named() -> None:
    with pytest.raises(StoreError) as caught:
        key(free, metric=lambda x: x, sites={"a"}, scale=[float("nan")], window=3)
    message = str(caught.value)
    assert "3 options of free cannot be part of a key" in message and "window" not in message
    for option in ("metric: the function", "sites: set", "scale: the number nan"):
        assert option in message
    assert "call the method directly" in message


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf, np.float32("nan")])
def test_a_number_that_is_not_finite_is_a_mistake_of_the_option(number: float) -> None:
    with pytest.raises(OptionError, match=r"noise_scale=(nan|-?inf) of trace. Allowed: finite"):
        key(noise_scale=number)


def test_numpys_numbers_have_the_keys_of_pythons() -> None:
    assert key(noise_scale=np.int64(3), seed=np.int64(1)) == key(noise_scale=3.0, seed=1)
    assert key(noise_scale=np.float32(2.5)) == key(noise_scale=2.5)


def test_an_option_that_the_method_does_not_have_is_named() -> None:
    with pytest.raises(OptionError, match=r"(?s)trace cannot .*'windw'.*Options: window, noise"):
        key(windw=3)


def test_what_is_not_a_method_a_model_or_the_right_prompts_is_refused() -> None:
    with pytest.raises(OptionError, match="is not an analysis"):
        STORE.run(measure, MODEL, facts(1))  # type: ignore[arg-type]
    with pytest.raises(StoreError, match="(?s)SimpleNamespace has no fingerprint.*load_model"):
        STORE.run(trace, SimpleNamespace(), facts(1))
    with pytest.raises(PromptError, match="are not Fact"):
        STORE.run(trace, MODEL, [PromptPair("a", "b", "c", "d")])
