"""The self-check on residual sites, on modules that write nothing, and on padding."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
import toys

from mechlab import engine, hooks
from mechlab.engine import Base, EngineWarning, Row
from mechlab.errors import ModelError
from mechlab.hooks import Patch, Site
from mechlab.models import Model, wrap_model

ToyModel = Callable[..., Model]
SHORT, LONG = "Paris is the capital of", "The Eiffel Tower is located in the city of"


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_a_residual_that_only_the_mlp_sees_is_switched_off(
    family: str, fresh_model: ToyModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a returned tensor does at the bridge's resid_mid: the stream keeps its old value."""
    model = fresh_model(family)
    returned = replace(hooks.SITES["resid_mid"], in_place=False)
    monkeypatch.setitem(hooks.SITES, "resid_mid", returned)
    checks = engine.verify(model)
    assert not checks.usable("resid_mid")
    assert "does not give that run's logits" in checks.reason("resid_mid")
    assert checks.usable("resid_pre") and checks.usable("resid_post")


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_a_whole_resid_mid_replaces_the_run(family: str, toy_model: ToyModel) -> None:
    bases = [Base("Paris is the capital"), Base("Rome was by tower")]
    rows = [Row(0, (Patch(Site("resid_mid", layer), 1),)) for layer in range(toys.N_LAYERS)]
    for mode in ("wavefront", "packed", "plain"):
        found = engine.run(toy_model(family), bases, rows, read="logits", mode=mode)  # type: ignore[arg-type]
        np.testing.assert_allclose(found.rows, found.bases[[1] * len(rows)], atol=1e-5)
        assert np.abs(found.bases[0] - found.bases[1]).max() > 0.1


def test_a_module_that_writes_zeros_is_alive_all_the_same(attention_family: str) -> None:
    hf = toys.make_hf(attention_family)
    for name, parameter in hf.named_parameters():
        if "mlp." in name:
            parameter.data.zero_()
    checks = engine.verify(wrap_model(hf, toys.make_tokenizer()))
    assert checks.usable("mlp_out")


def test_prompts_of_different_length_are_refused_where_padding_is_not_exact(
    fresh_model: ToyModel, toy_model: ToyModel
) -> None:
    """Llama in float64: its softmax is taken in float32, where the mask of padding overflows."""
    model = fresh_model("llama", dtype=torch.float64)
    with pytest.warns(EngineWarning, match="Plain runs are used"):
        checks = engine.verify(model)
    assert not checks.padding_exact
    with pytest.raises(ModelError, match="left padding changes its numbers"):
        engine.run(model, [Base(SHORT), Base(LONG)], [], read="logits")
    for text in (SHORT, LONG):
        one = engine.run(model, [Base(text)], [], read="logits").bases
        same = engine.run(toy_model("llama"), [Base(text)], [], read="logits").bases
        np.testing.assert_allclose(one, same, atol=1e-4)
