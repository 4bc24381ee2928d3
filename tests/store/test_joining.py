"""Results of single prompts become the result of their set, padded at the end."""

from typing import Any

import numpy as np
import pytest
import xarray as xr
from store_fakes import FakeModel, facts, numbers, trace

from mechlab.errors import StoreError
from mechlab.prompts import PromptSet
from mechlab.store.joining import join_prompts


def part(length: int, **changes: Any) -> xr.Dataset:
    data = {
        "effect": (("prompt", "pos"), np.arange(length, dtype=np.float32)[None] + 10 * length),
        "count": (("prompt", "pos"), np.arange(length)[None]),
        "known": (("prompt", "pos"), np.ones((1, length), bool)),
        "total": ("prompt", np.array([length])),
        "start": ("layer", np.array([0, 1])),
    }
    coords = {
        "prompt": [f"p{length}"],
        "pos": np.arange(length),
        "layer": [4, 5],
        "token": (("prompt", "pos"), np.array([["x" * (length + i) for i in range(length)]])),
    }
    about = {
        "prompts_digest": "one",
        "wall_seconds": 1.5,
        "started": f"2026-01-0{length}",
        "seed": 0,
    }
    return xr.Dataset({**data, **changes}, coords, about)


def test_shorter_prompts_are_padded_at_the_end() -> None:
    joined = join_prompts([part(3), part(1), part(2)], ["a", "b", "c"], "all")
    nan = np.nan
    np.testing.assert_array_equal(joined.effect, [[30, 31, 32], [10, nan, nan], [20, 21, nan]])
    np.testing.assert_array_equal(joined["count"], [[0, 1, 2], [0, nan, nan], [0, 1, nan]])
    np.testing.assert_array_equal(joined.known.sum("pos"), [3, 1, 2])
    assert joined.token.values.tolist() == [
        ["xxx", "xxxx", "xxxxx"],
        ["x", "", ""],
        ["xx", "xxx", ""],
    ]
    assert joined.effect.dtype == np.float32 and joined.total.dtype == np.int64
    assert joined.prompt.values.tolist() == ["a", "b", "c"]
    assert joined.pos.values.tolist() == [0, 1, 2] and joined.start.values.tolist() == [0, 1]


def test_times_are_added_up_and_differences_are_kept() -> None:
    one = part(3).assign_attrs(device="cpu")
    two = part(2).assign_attrs(device="cuda")
    joined = join_prompts([one, two, part(1)], list("abc"), "all")
    assert joined.attrs == {
        "prompts_digest": "all",
        "wall_seconds": 4.5,
        "started": "2026-01-01",
        "seed": 0,
        "device": "cpu | cuda",
    }


def test_joined_single_calls_equal_one_call_on_the_set() -> None:
    chosen, model = facts(5), FakeModel()
    parts = [trace(model, PromptSet((fact,))) for fact in chosen]
    joined = join_prompts(parts, chosen.labels, chosen.digest)
    together = trace(model, chosen)
    xr.testing.assert_identical(numbers(joined), numbers(together))
    assert list(joined.variables) == list(together.variables)
    assert {n: v.dtype for n, v in joined.variables.items()} == {
        n: v.dtype for n, v in together.variables.items()
    }


def test_parts_that_do_not_fit_are_refused() -> None:
    with pytest.raises(StoreError, match="(?s)cannot be joined.*per_prompt=False"):
        join_prompts([part(2), part(2).drop_vars("count")], list("ab"), "all")
    with pytest.raises(StoreError, match="(?s)cannot be joined"):
        join_prompts([part(2).isel(prompt=[0, 0])], ["a"], "all")
    changed = part(2, start=("layer", np.array([0, 9])))
    with pytest.raises(StoreError, match="(?s)disagree in 'start'.*Give it the axis prompt"):
        join_prompts([part(2), changed], list("ab"), "all")
