"""Results carry provenance, and break no rule."""

import json
import time
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import xarray as xr

from mechlab.errors import OptionError
from mechlab.prompts import Fact, PromptSet
from mechlab.results import PROVENANCE, check_result, new_result

PROMPTS = PromptSet((Fact("The capital of France is", "France", "Paris"),))
MODEL = SimpleNamespace(
    fingerprint="f" * 64,
    provenance={"name": "toy", "device": "cpu", "dtype": "float32", "rev": None},
)


def made(**changes: Any) -> xr.Dataset:
    data = {"effect": (("prompt", "layer"), [[0.5, np.nan]], {"units": "probability"})}
    coords = {"prompt": ["France"], "layer": [0, 1], "token": ("prompt", np.array(["é"], object))}
    about: dict[str, Any] = {
        "method": "trace",
        "version": 2,
        "model": MODEL,
        "prompts": PROMPTS,
        "options": {"window": 4, "sites": ("mlp_out",)},
        "seed": 0,
        "started": time.time() - 1.5,
        "checks": {"padded equals unpadded": True},
    }
    arrays = {"data_vars": data, "coords": coords}
    return new_result(**{**arrays, **about, **changes})


def test_a_result_says_where_it_comes_from() -> None:
    about = made().attrs
    assert set(PROVENANCE) <= set(about)
    assert about["method"] == "trace" and about["method_version"] == 2
    assert about["model_fingerprint"] == "f" * 64 and about["prompts_digest"] == PROMPTS.digest
    assert about["options"] == '{"sites":["mlp_out"],"window":4}'
    assert about["model_device"] == "cpu" and about["model_rev"] == "none"
    assert 1.5 <= about["wall_seconds"] < 60
    assert json.loads(about["versions"])["numpy"] == np.__version__
    assert json.loads(about["checks"]) == {"padded equals unpadded": True}
    assert made(seed=None).attrs["seed"] == "none"


def test_labels_become_text_of_fixed_width_and_units_stay() -> None:
    result = made()
    assert result.token.dtype == np.dtype("<U1") and result.prompt.dtype == np.dtype("<U6")
    assert result.effect.attrs == {"units": "probability"}
    assert np.isnan(result.effect.sel(layer=1)).all()


def test_everything_wrong_is_listed_at_once() -> None:
    bad = made().rename(layer="depth_of_layer").assign(thing=("prompt", np.array([{}], object)))
    bad.attrs = {key: value for key, value in bad.attrs.items() if key != "seed"} | {"extra": [1]}
    with pytest.raises(OptionError) as caught:
        check_result(bad)
    for problem in (
        "'depth_of_layer' is not registered",
        "'thing' holds Python objects",
        "attribute 'seed' is missing",
        "attribute 'extra' of the result is list",
    ):
        assert problem in str(caught.value)


@pytest.mark.parametrize("value", [np.nan, None, [1], {"a": 1}, np.float32(1)])
def test_attributes_are_flat(value: object) -> None:
    data = {"effect": ("prompt", [0.0], {"units": value})}
    with pytest.raises(OptionError, match="attribute 'units' of 'effect' is "):
        made(data_vars=data)
