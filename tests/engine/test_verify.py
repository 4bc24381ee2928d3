"""The self-check finds what is broken: sound toys pass every check, a spoilt one fails its own."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from mechlab import engine
from mechlab.engine import Base, EngineWarning, Row
from mechlab.errors import SiteError
from mechlab.hooks import Patch, Site
from mechlab.models import Model

ToyModel = Callable[..., Model]
EXPECTED = {
    "gpt2": ("attn_out", "resid_mid", "mlp_out", "q", "k", "v", "z", "scores", "pattern"),
    "neox": ("attn_out", "mlp_out", "q", "k", "v", "z", "scores", "pattern"),
    "llama": ("attn_out", "resid_mid", "mlp_out", "q", "k", "v", "z", "scores", "pattern"),
    "mamba": ("mixer_in", "mixer_out"),
    "mamba2": ("mixer_in", "mixer_out"),
}


def test_every_family_passes_with_its_own_sites(family: str, toy_model: ToyModel) -> None:
    checks = engine.verify(toy_model(family))
    assert all(check.passed for check in checks.results), checks.results
    verified = {name for name, status in checks.sites.items() if status.verified}
    assert verified == {"embed", "resid_pre", "resid_post", *EXPECTED[family]}
    assert checks.engine_agrees


def test_parallel_blocks_are_measured(toy_model: ToyModel) -> None:
    found = {
        family: engine.verify(toy_model(family)).parallel_blocks
        for family in ("gpt2", "neox", "llama", "mamba")
    }
    assert found == {"gpt2": False, "neox": True, "llama": False, "mamba": None}


def test_the_outcome_is_kept_and_made_again_only_when_asked(fresh_model: ToyModel) -> None:
    model = fresh_model("gpt2")
    assert model.checks is None
    first = engine.verify(model)
    assert model.checks is first is engine.verify(model)
    assert engine.verify(model, again=True) is not first


def test_a_write_that_is_not_what_its_name_says_is_switched_off(fresh_model: ToyModel) -> None:
    """A permanent hook that shifts attn_out after the block used it: the sum no longer holds."""
    model = fresh_model("gpt2")
    block = model.bridge.blocks[1]
    honest = block.hook_out

    class Shifted(torch.nn.Module):
        def forward(self, hidden: torch.Tensor) -> torch.Tensor:
            return honest(hidden + 0.5)

    block.__dict__.setdefault("_modules", {})["hook_out"] = Shifted()
    block._modules["hook_out"] = Shifted()
    checks = engine.verify(model)
    assert not checks.usable("attn_out") and not checks.usable("mlp_out")
    assert "does not hold" in checks.reason("attn_out")


def test_a_silent_hook_is_found_and_named(
    fresh_model: ToyModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformer_lens.hook_points import HookPoint

    model = fresh_model("llama")
    dead = HookPoint()
    dead.name = "blocks.1.attn.hook_z"
    honest = type(model.bridge).hook_dict.fget  # type: ignore[attr-defined]

    def with_a_dead_hook(bridge: Any) -> dict[str, HookPoint]:
        return {**honest(bridge), "blocks.1.attn.hook_z": dead}

    monkeypatch.setattr(type(model.bridge), "hook_dict", property(with_a_dead_hook))
    model.bridge._hook_registry["blocks.1.attn.hook_z"] = dead
    checks = engine.verify(model)
    assert not checks.usable("z")
    assert "never" in checks.reason("z") or "changes nothing" in checks.reason("z")
    with pytest.raises(SiteError, match="'z' is not verified"):
        engine.run(
            model,
            [Base("w1 w2 w3"), Base("w4 w5 w6")],
            [Row(0, (Patch(Site("z", 1, pos=1), 1),))],
            answers=[(5,)] * 2,
        )


def test_a_bridge_that_is_not_the_hugging_face_model_loses_every_site(
    fresh_model: ToyModel,
) -> None:
    model = fresh_model("gpt2")
    assert model.unwrapped_run is not None
    ids, logits = model.unwrapped_run
    model.unwrapped_run = (ids, logits + torch.randn_like(logits))
    with pytest.warns(EngineWarning, match="no proven site"):
        checks = engine.verify(model)
    assert not any(status.verified for status in checks.sites.values())
    assert "Hugging Face" in checks.reason("resid_post")


def test_an_architecture_that_does_not_fit_gets_plain_runs_and_one_warning(
    fresh_model: ToyModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mechlab.engine import wavefront

    model = fresh_model("gpt2")
    honest = wavefront.LiveBlock.run

    def drifting(self: Any, live: torch.Tensor, *args: Any) -> torch.Tensor:
        out = honest(self, live, *args)
        return out + torch.linspace(0, 0.1, out.shape[-1])

    monkeypatch.setattr(wavefront.LiveBlock, "run", drifting)
    with pytest.warns(EngineWarning, match=r"gpt2.*Plain runs are used"):
        engine.verify(model)
    rows = [Row(0, (Patch(Site("resid_post", 0, pos=1), 1),))]
    texts = [Base("w1 w2 w3"), Base("w4 w5 w6")]
    readings = engine.run(model, texts, rows, answers=[(5,)] * 2)  # no second warning
    assert readings.mode == "plain"
    plain = engine.run(model, texts, rows, answers=[(5,)] * 2, mode="plain")
    assert (readings.rows == plain.rows).all()


def test_unproven_sites_are_refused_with_the_reason(toy_model: ToyModel) -> None:
    with pytest.raises(SiteError, match=r"'resid_mid': gpt_neox blocks have no such site"):
        engine.require_proven(toy_model("neox"), ["resid_mid"])


def test_probe_texts_have_equal_length_and_no_word_in_common(toy_model: ToyModel) -> None:
    from mechlab.engine.probe import probe_texts

    for kind in ("words", "bpe"):
        model = toy_model("gpt2", kind)
        a, b, short = probe_texts(model)
        lengths = model.tokenize([a, b, short]).lengths
        assert lengths[0] == lengths[1] > lengths[2]
        assert not set(a.split()) & set(b.split())


def test_the_outcome_prints_as_a_line_per_check_and_the_proven_sites(toy_model: ToyModel) -> None:
    checks = engine.verify(toy_model("neox"))
    *lines, proven = str(checks).splitlines()
    assert len(lines) == len(checks.results) and all(line.startswith("ok ") for line in lines)
    assert proven.startswith("proven sites: embed, resid_pre, q") and "resid_mid" not in proven
