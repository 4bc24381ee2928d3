"""One value has one spelling, in every process."""

from dataclasses import dataclass
from math import inf, nan

import numpy as np
import pytest

from mechlab.axes import Head
from mechlab.canonical import canonical_json, digest


@dataclass
class Loose:
    x: int = 0


def half(x: float) -> float:
    return x / 2


def test_keys_are_sorted_and_text_is_utf8() -> None:
    assert canonical_json({"b": (1, 2.0, None), "a": "é", "c": True}) == (
        '{"a":"é","b":[1,2.0,null],"c":true}'
    )


def test_floats_are_written_by_repr() -> None:
    assert canonical_json([0.1 + 0.2, 1e-8, np.float64(0.5)]) == "[0.30000000000000004,1e-08,0.5]"


def test_a_frozen_value_is_written_with_its_type() -> None:
    assert canonical_json(Head(9, 6)) == '{"type":"Head","value":{"head":6,"layer":9}}'


def test_arrays_are_keyed_by_bytes_dtype_and_shape() -> None:
    array = np.arange(6, dtype=np.float32).reshape(2, 3)
    others = [array.T, array.ravel(), array.astype(np.float64), array + 1]
    assert len({digest(array), *map(digest, others)}) == 5
    assert digest(array) == digest(np.asfortranarray(array))


def test_a_module_level_function_is_keyed_by_name() -> None:
    assert ":half" in canonical_json(half)


@pytest.mark.parametrize("value", [nan, inf, {1, 2}, {1: 2}, b"x", Loose(), object(), lambda x: x])
def test_what_has_no_canonical_form_is_refused(value: object) -> None:
    with pytest.raises(TypeError, match="form|text|frozen|name"):
        canonical_json({"x": [value]})
