"""Hand-built circuits do what they say: shown by plain forward passes and by cutting weights."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import circuits
import numpy as np
import pytest
import torch
from circuits import CIRCUITS, Circuit
from numpy.testing import assert_allclose
from torch import Tensor

from mechlab import engine
from mechlab.axes import Head

CASES = [(name, "gpt2") for name in CIRCUITS] + [
    (name, "llama") for name in CIRCUITS if name != "name_mover"
]
each_circuit = pytest.mark.parametrize(("name", "family"), CASES)
both_families = pytest.mark.parametrize("family", ["gpt2", "llama"])
Array = np.ndarray[Any, Any]


@cache
def made(name: str, family: str, **options: Any) -> Circuit:
    return CIRCUITS[name](family, **options)


def logits(circuit: Circuit, side: str = "clean") -> Tensor:
    """Logits after every prompt, axes (pair, vocab)."""
    tokens = circuit.model.tokenize([getattr(pair, side) for pair in circuit.pairs]).tokens
    found: Tensor = circuit.model.bridge(tokens, use_cache=False)[:, -1]
    return found


def difference(circuit: Circuit, side: str = "clean") -> Array:
    """Logit of the answer minus that of the wrong answer, per pair."""
    found, pairs = logits(circuit, side), circuit.pairs
    word = circuit.model.tokenizer.convert_tokens_to_ids
    rows = torch.arange(len(pairs))
    right, wrong = word([p.answer for p in pairs]), word([p.wrong_answer for p in pairs])
    return np.asarray((found[rows, right] - found[rows, wrong]).numpy())


def state(circuit: Circuit, hook: str, side: str = "clean") -> Tensor:
    """What a hook sees, axes (pair, ...)."""
    tokens = circuit.model.tokenize([getattr(pair, side) for pair in circuit.pairs]).tokens
    _, kept = circuit.model.bridge.run_with_cache(tokens, names_filter=[hook], use_cache=False)
    found: Tensor = kept[hook]
    return found


def output_of_head(circuit: Circuit, head: Head) -> Tensor:
    """The weights that a head's z is multiplied by, as a view that can be written to."""
    hf, of_head = circuit.model.hf, slice(head.head * 16, head.head * 16 + 16)
    if circuit.model.family == "gpt2":
        rows: Tensor = hf.transformer.h[head.layer].attn.c_proj.weight
        return rows[of_head]
    columns: Tensor = hf.model.layers[head.layer].self_attn.o_proj.weight
    return columns[:, of_head]


def output_of_mlp(circuit: Circuit, layer: int) -> Tensor:
    hf = circuit.model.hf
    if circuit.model.family == "gpt2":
        found: Tensor = hf.transformer.h[layer].mlp.c_proj.weight
        return found
    down: Tensor = hf.model.layers[layer].mlp.down_proj.weight
    return down


@contextmanager
def cut(weights: Tensor) -> Iterator[None]:
    kept = weights.clone()
    weights.zero_()
    try:
        yield
    finally:
        weights.copy_(kept)


def without(circuit: Circuit, role: str) -> Array:
    """Logit differences of the clean prompts with one planted part cut off."""
    planted = role in circuit.heads
    part = (
        output_of_head(circuit, circuit.heads[role])
        if planted
        else output_of_mlp(circuit, circuit.mlps[role])
    )
    with cut(part):
        return difference(circuit)


@each_circuit
def test_logit_differences_are_those_promised(name: str, family: str) -> None:
    circuit = made(name, family)
    assert_allclose(difference(circuit), circuit.clean, atol=2e-6)
    assert_allclose(difference(circuit, "corrupted"), circuit.corrupted, atol=2e-6)
    assert_allclose(sum(map(np.array, circuit.direct.values())), circuit.clean, atol=1e-12)


@each_circuit
def test_a_real_norm_moves_them_by_a_few_per_cent_only(name: str, family: str) -> None:
    circuit = made(name, family, norm="real")
    assert_allclose(difference(circuit), circuit.clean, rtol=0.05)
    assert np.abs(difference(circuit) - circuit.clean).max() > 1e-3


@each_circuit
def test_whatever_is_not_planted_is_alive_and_writes_exactly_nothing(
    name: str, family: str
) -> None:
    circuit = made(name, family)
    before = [logits(circuit, side) for side in ("clean", "corrupted")]
    for layer in range(circuits.N_LAYERS):
        z = [state(circuit, f"blocks.{layer}.attn.hook_z", s) for s in ("clean", "corrupted")]
        for number in range(circuits.N_HEADS):
            if (head := Head(layer, number)) in circuit.heads.values():
                continue
            assert (z[0] - z[1])[:, -1, number].abs().max() > 1e-4, head
            with cut(output_of_head(circuit, head)):
                after = [logits(circuit, side) for side in ("clean", "corrupted")]
            assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True)), head
        if layer not in circuit.mlps.values():
            assert not output_of_mlp(circuit, layer).any()


@pytest.mark.parametrize(
    ("name", "family"), [("conflict", "gpt2"), ("backup", "llama"), ("name_mover", "gpt2")]
)
def test_the_engine_finds_every_site_alive(name: str, family: str) -> None:
    checks = engine.verify(made(name, family).model)
    assert all(check.passed for check in checks.results) and checks.engine_agrees


@both_families
def test_the_strength_of_copy_and_fact_head_decides_who_wins(family: str) -> None:
    circuit = made("conflict", family)

    def said() -> list[str]:
        return circuit.model.tokenizer.convert_ids_to_tokens(logits(circuit).argmax(-1).tolist())

    assert said() == [pair.answer for pair in circuit.pairs]
    with cut(output_of_head(circuit, circuit.heads["copy"])):
        assert said() == [pair.wrong_answer for pair in circuit.pairs]
    assert_allclose(without(circuit, "copy"), -2.5, atol=1e-5)
    assert_allclose(without(circuit, "fact"), 2.5, atol=1e-5)
    assert_allclose(without(circuit, "anti"), 1.0, atol=1e-5)


@both_families
@pytest.mark.parametrize("c", [0.0, 0.5, 1.0])
def test_the_backup_writes_c_times_an_absent_write(family: str, c: float) -> None:
    circuit = made("backup", family, c=c)
    size = np.array(circuit.direct["primary"])
    assert size.std() > 0.1
    assert_allclose(without(circuit, "primary"), c * size, atol=1e-5)
    assert_allclose(without(circuit, "backup"), size, atol=1e-5)


@both_families
def test_the_eraser_takes_away_a_share_of_what_heads_wrote(family: str) -> None:
    circuit = made("backup", family, c=0.5, erase=0.25)
    size = np.array(circuit.direct["primary"])
    assert_allclose(difference(circuit), 0.75 * size, atol=1e-5)
    assert_allclose(without(circuit, "eraser"), size, atol=1e-5)
    assert_allclose(without(circuit, "primary"), 0.75 * 0.5 * size, atol=1e-5)


@both_families
def test_the_second_hop_attends_to_the_middle_whatever_the_first_wrote(family: str) -> None:
    circuit = made("two_hop", family)
    patterns = [
        state(circuit, "blocks.2.attn.hook_pattern", side)[:, 1, -1]
        for side in ("clean", "corrupted")
    ]
    with cut(output_of_head(circuit, circuit.heads["first"])):
        patterns.append(state(circuit, "blocks.2.attn.hook_pattern")[:, 1, -1])
        assert_allclose(difference(circuit), 0, atol=1e-6)
    one_hot = torch.eye(5)[3]
    assert all(torch.equal(pattern, one_hot.expand_as(pattern)) for pattern in patterns)
    assert_allclose(without(circuit, "second"), 0, atol=1e-6)


@both_families
def test_the_relay_carries_all_that_the_head_does(family: str) -> None:
    circuit = made("mlp_relay", family)
    assert_allclose(without(circuit, "first"), 0, atol=1e-6)
    assert_allclose(without(circuit, "relay"), 0, atol=1e-6)


def test_the_mover_attends_to_the_name_that_is_not_repeated() -> None:
    circuit = made("name_mover", "gpt2")
    mover = state(circuit, "blocks.2.attn.hook_pattern")[:, 2, -1]
    for pair, row in zip(circuit.pairs, mover, strict=True):
        place = ["<bos>", *pair.clean.split()].index(pair.answer)
        assert row[place] == 1 and row.sum() == 1
    unmarked = state(circuit, "blocks.2.attn.hook_pattern", "corrupted")[:, 2, -1]
    assert_allclose(unmarked[:, [2, 4, 7]], 1 / 3, rtol=1e-5)
    assert (state(circuit, "blocks.1.attn.hook_pattern")[:, 3, 9, 7] == 1).all()
    assert (state(circuit, "blocks.1.attn.hook_pattern", "corrupted")[:, 3, 9, 0] == 1).all()


def test_without_duplicate_or_inhibition_the_mover_raises_the_repeated_name() -> None:
    circuit = made("name_mover", "gpt2")
    for role in ("duplicate", "inhibition"):  # all three names are attended to, S twice
        assert_allclose(without(circuit, role), -1, atol=1e-5)


def test_float64_circuits_are_exact() -> None:
    build: Callable[..., Circuit] = circuits.conflict
    circuit = build(dtype=torch.float64, copy=1.1, fact=0.7, anti=0.3)
    assert_allclose(difference(circuit), circuit.clean, atol=1e-7)
