"""What a correct causal trace must show (theorems), and what it refuses.

Equality with the published procedure, cell by cell, is in `oracles/test_published_tracing.py`.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import toys
import transformers
import xarray as xr

from mechlab.engine import Base, Row, run
from mechlab.hooks import AddNoise, Patch, Site, noise
from mechlab.methods.tracing import causal_trace, default_window
from mechlab.models import Model, wrap_model
from mechlab.prompts import Fact

ToyModel = Callable[..., Model]
EIFFEL = Fact("The Eiffel Tower is located in the city of", "Eiffel Tower")
PARIS = Fact("Paris is the capital of", "Paris")
NEEDLE = Fact("w1 w2 born in Space Needle", "Space Needle")
FACTS = [EIFFEL, PARIS, NEEDLE]
LAST = toys.N_LAYERS - 1
STD = 0.6


def trace(model: Model, facts: Any = EIFFEL, **options: Any) -> xr.Dataset:
    return causal_trace(model, facts, **{"noise_std": STD, "samples": 3, "seed": 1, **options})


def writer_of(family: str) -> str:
    return "mlp_out" if family in toys.ATTENTION_FAMILIES else "mixer_out"


def noised_bases(model: Model, fact: Fact, samples: int = 3) -> list[Base]:
    """The clean run and the corrupted runs of `trace`."""
    span = model.subject_positions(fact)
    steps = [AddNoise(Site("embed"), *span, STD, seed=1, draw=draw) for draw in range(samples)]
    return [Base(fact.prompt), *(Base(fact.prompt, (step,)) for step in steps)]


def probabilities(model: Model, ours: xr.Dataset, bases: list[Base], rows: list[Row]) -> np.ndarray:
    """Probability of the scored token of a trace, per row."""
    scored = model.tokenizer.convert_tokens_to_ids(str(ours.scored_token.item(0)).strip())
    answers = [(scored,)] * len(bases)
    return run(model, bases, rows, read="probability", answers=answers).rows


# The thirteen checks, in order. ------------------------------------------------------------------


def test_1_without_noise_every_effect_is_zero(family: str, toy_model: ToyModel) -> None:
    model = toy_model(family)
    sites = ["resid_post", writer_of(family)]
    for options in (
        {"noise_std": 0.0},
        {"noise_std": None, "noise_scale": 0.0, "reference": ["Ann"]},
    ):
        ours = trace(model, FACTS, sites=sites, **options)
        # Row sums of the recurrent scans depend on how many rows share a batch.
        within = 0.0 if family in toys.ATTENTION_FAMILIES else 1e-6
        assert float(np.abs(ours.total_effect).max()) <= within
        assert float(np.abs(ours.indirect_effect).max()) <= within
        assert float(ours.clean_probability.min()) > 0


def test_2_restoring_the_last_residual_restores_everything(
    family: str, toy_model: ToyModel
) -> None:
    ours = trace(toy_model(family), FACTS)
    for row in range(len(FACTS)):
        one = ours.isel(prompt=row, site=0, layer=LAST)
        end = int((one.token != "").sum()) - 1
        assert float(one.indirect_effect[end]) == pytest.approx(float(one.total_effect), abs=1e-6)
        assert abs(float(one.total_effect)) > 1e-3
        # Nothing else of the last layer reaches the last position any more.
        assert float(np.abs(one.indirect_effect[:end]).max()) <= 1e-6


def test_3_restoring_all_tokens_of_a_layer_or_the_whole_subject_restores_everything(
    family: str, toy_model: ToyModel
) -> None:
    model = toy_model(family)
    ours, bases = trace(model), noised_bases(model, EIFFEL)
    first, last = model.subject_positions(EIFFEL)
    subject = [Patch(Site("embed", pos=pos), source=0) for pos in range(first, last + 1)]
    everywhere = [(Patch(Site("resid_post", layer), 0),) for layer in range(toys.N_LAYERS)]
    rows = [Row(base, steps) for base in (1, 2, 3) for steps in [tuple(subject), *everywhere]]
    restored = probabilities(model, ours, bases, rows)
    np.testing.assert_allclose(restored, float(ours.clean_probability[0]), atol=1e-6)
    assert abs(float(ours.total_effect[0])) > 1e-3


def test_4_a_token_before_the_subject_has_no_effect(family: str, toy_model: ToyModel) -> None:
    """Exactly none: no noise has reached it. The engine knows, and so does its reference."""
    model = toy_model(family)
    first, _ = model.subject_positions(EIFFEL)
    sites = ["resid_pre", "resid_post", writer_of(family)]
    for mode, options in (("auto", {}), ("plain", {"layers": [1], "samples": 1})):
        effect = trace(model, sites=sites, mode=mode, **options).indirect_effect.isel(prompt=0)
        within = 0.0 if mode == "auto" else 1e-6
        assert float(np.abs(effect.isel(pos=slice(0, first))).max()) <= within
        assert float(np.abs(effect.isel(pos=first)).max()) > 1e-4


def test_5_restoring_a_token_below_the_first_layer_is_not_corrupting_it(
    family: str, toy_model: ToyModel
) -> None:
    model = toy_model(family)
    first, last = model.subject_positions(EIFFEL)
    assert last == first + 1
    ours = trace(model, sites=["resid_pre"], samples=1).isel(prompt=0, site=0, layer=0, sample=0)
    tokens = model.tokenize([EIFFEL.prompt]).tokens
    draw = noise(1, EIFFEL.prompt, 0, 2, model.d_model) * STD
    for restored, kept in ((first, last), (last, first)):

        def corrupt(act: torch.Tensor, hook: Any, pos: int = kept) -> torch.Tensor:
            new = act.clone()
            new[:, pos] += draw[pos - first]
            return new

        with torch.no_grad():
            logits = model.bridge.run_with_hooks(tokens, fwd_hooks=[("hook_embed", corrupt)])
        scored = model.tokenizer.convert_tokens_to_ids(str(ours.scored_token.item()).strip())
        expected = float(logits[0, -1].softmax(-1)[scored])
        assert float(ours.restored_probability[restored]) == pytest.approx(expected, abs=1e-6)
        assert abs(expected - float(ours.corrupted_probability)) > 1e-4


def test_6_severing_below_a_restored_last_residual_changes_nothing(
    family: str, toy_model: ToyModel
) -> None:
    severs = ("mlp", "attn") if family in toys.ATTENTION_FAMILIES else ("mixer",)
    for sever in severs:
        ours = trace(toy_model(family), sever=sever).isel(prompt=0, site=0, layer=LAST, pos=-1)
        assert float(ours.indirect_effect) == pytest.approx(float(ours.total_effect), abs=1e-6)


def test_7_without_mlps_there_is_nothing_to_sever(attention_family: str) -> None:
    hf = toys.make_hf(attention_family)
    for name, parameter in hf.named_parameters():
        if "mlp." in name:
            parameter.data.zero_()
    model = wrap_model(hf, toys.make_tokenizer())
    sites = ["resid_post", "attn_out"]
    plain, severed = trace(model, sites=sites), trace(model, sites=sites, sever="mlp")
    np.testing.assert_allclose(severed.indirect_effect, plain.indirect_effect, atol=1e-6)
    np.testing.assert_allclose(
        plain.corrupted_probability, severed.corrupted_probability, atol=1e-7
    )
    attention = trace(model, sites=["resid_post"], sever="attn")
    change = np.abs(attention.indirect_effect - plain.indirect_effect.sel(site=["resid_post"]))
    assert float(change.max()) > 1e-3  # the control: severing attention does cut something


def test_8_a_window_wider_than_twice_the_model_restores_every_layer(
    family: str, toy_model: ToyModel
) -> None:
    model, site = toy_model(family), writer_of(family)
    ours = trace(model, sites=[site], window=2 * toys.N_LAYERS + 1).isel(prompt=0, site=0)
    pos, bases = 2, noised_bases(model, EIFFEL)
    every = tuple(Patch(Site(site, layer, pos=pos), 0) for layer in range(toys.N_LAYERS))
    expected = probabilities(model, ours, bases, [Row(base, every) for base in (1, 2, 3)])
    for layer in range(toys.N_LAYERS):
        np.testing.assert_allclose(
            ours.restored_probability.isel(pos=pos, layer=layer), expected, atol=1e-6
        )
    assert (ours.window_start == 0).all()
    assert (ours.window_stop == toys.N_LAYERS).all()


def test_9_cells_do_not_depend_on_company_batches_or_repetition(
    family: str, toy_model: ToyModel
) -> None:
    model, sites = toy_model(family), ["resid_post", writer_of(family)]
    together = trace(model, FACTS, sites=sites, window=2)
    again = trace(model, FACTS, sites=sites, window=2)
    np.testing.assert_array_equal(together.restored_probability, again.restored_probability)
    small = trace(model, FACTS, sites=sites, window=2, max_batch=3)
    np.testing.assert_allclose(small.restored_probability, together.restored_probability, atol=1e-6)
    for row, fact in enumerate(FACTS):
        alone = trace(model, fact, sites=sites, window=2, samples=2)
        assert alone.sizes["pos"] == int((together.token[row] != "").sum())
        np.testing.assert_allclose(
            alone.restored_probability[0],
            together.restored_probability[row, :, :, : alone.sizes["pos"], :2],
            atol=1e-6,
        )
    cell = trace(model, EIFFEL, sites=sites, window=2, layers=[1], positions="last_subject")
    found = cell.restored_probability[0].dropna("pos", how="all")
    assert found.pos.values.tolist() == [model.subject_positions(EIFFEL)[1]]
    np.testing.assert_allclose(
        found[:, 0, 0], together.restored_probability[0, :, 1, int(found.pos[0])], atol=1e-6
    )
    other_seed = trace(model, EIFFEL, sites=sites, seed=2)
    change = other_seed.corrupted_probability[0] - together.corrupted_probability[0]
    assert float(np.abs(change).min()) > 1e-5


def linear_model() -> tuple[Model, np.ndarray]:
    """A one-layer GPT-2 that is linear up to its softmax, and its embedding [vocab, d_model].

    Queries and keys are zero, so attention averages over the prefix; values and output are the
    identity; the MLP is zero. The norms' epsilon is so large that they divide by a constant, which
    their weights take back: they only subtract the mean.
    """
    scale = 1e6
    config = transformers.GPT2Config(
        vocab_size=toys.N_VOCAB, n_embd=8, n_layer=1, n_head=1, n_positions=16,
        layer_norm_epsilon=scale**2, bos_token_id=0, eos_token_id=1, attn_implementation="eager",
    )  # fmt: skip
    hf = transformers.GPT2LMHeadModel(config).eval()
    embedding = torch.randn(toys.N_VOCAB, 8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        for parameter in hf.parameters():
            parameter.zero_()
        block = hf.transformer.h[0]
        hf.transformer.wte.weight.copy_(embedding)
        block.attn.c_attn.weight[:, 16:] = torch.eye(8)
        block.attn.c_proj.weight.copy_(torch.eye(8))
        for norm in (block.ln_1, block.ln_2, hf.transformer.ln_f):
            norm.weight.fill_(scale)
    return wrap_model(hf, toys.make_tokenizer()), embedding.double().numpy()


def test_10_effects_of_a_linear_one_layer_model_in_closed_form() -> None:
    """logits = E C (x_T + mean over positions of C x), C = centring: noise enters linearly."""
    model, embedding = linear_model()
    tokens = model.tokenize([EIFFEL.prompt]).tokens[0].numpy()
    first, last = model.subject_positions(EIFFEL)
    length, span = len(tokens), range(first, last + 1)
    std = 3.0
    draws = [noise(1, EIFFEL.prompt, n, 2, 8).double().numpy() * std for n in range(3)]
    centre = np.eye(8) - 1 / 8

    def answer(noisy: dict[int, np.ndarray], in_mean: set[int]) -> np.ndarray:
        """Probabilities when the noise of the positions `in_mean` reaches the average."""
        mean = embedding[tokens].mean(0) + sum(noisy[p] for p in in_mean) / length
        logits = embedding @ centre @ (embedding[tokens[-1]] + centre @ mean)
        return np.exp(logits - np.logaddexp.reduce(logits))

    clean = answer({}, set())
    scored = int(clean.argmax())
    sites = ["resid_pre", "resid_post", "attn_out", "mlp_out"]
    ours = trace(model, sites=sites, noise_std=std).isel(prompt=0)
    assert float(ours.clean_probability) == pytest.approx(clean[scored], abs=1e-6)
    for sample, draw in enumerate(draws):
        noisy = dict(zip(span, draw, strict=True))
        corrupted = answer(noisy, set(span))[scored]
        got = ours.isel(sample=sample, layer=0)
        assert float(got.corrupted_probability) == pytest.approx(corrupted, abs=1e-6)
        for pos in range(length):
            left = set(span) - {pos}
            at_end = clean[scored] if pos == length - 1 else corrupted
            expected = {
                "resid_pre": answer(noisy, left)[scored],
                "resid_post": at_end,
                "attn_out": at_end,
                "mlp_out": corrupted,
            }
            for site, value in expected.items():
                restored = float(got.restored_probability.sel(site=site)[pos])
                assert restored == pytest.approx(value, abs=1e-6), (site, pos)
        assert abs(corrupted - clean[scored]) > 1e-3


def test_11_interchange_both_ways_has_opposite_total_effects(
    family: str, toy_model: ToyModel
) -> None:
    model = toy_model(family)
    there = Fact("The Eiffel Tower is located in the city of", "Eiffel Tower", "Paris")
    back = Fact("The Big Ben is located in the city of", "Big Ben", "Paris")
    options: dict[str, Any] = {
        "corruption": "interchange", "score": "target", "known_only": False, "samples": 1,
    }  # fmt: skip
    forth = trace(model, there, other_subjects={"Eiffel Tower": ["Big Ben"]}, **options)
    again = trace(model, back, other_subjects={"Big Ben": ["Eiffel Tower"]}, **options)
    assert str(forth.scored_token[0].item()).strip() == "Paris"
    assert float(forth.total_effect[0]) == pytest.approx(-float(again.total_effect[0]), abs=1e-7)
    assert abs(float(forth.total_effect[0])) > 1e-5
    # Also here the last residual of the last token carries everything.
    assert float(forth.indirect_effect[0, 0, LAST, -1]) == pytest.approx(
        float(forth.total_effect[0]), abs=1e-7
    )


def test_12_recovery_is_one_when_a_layer_is_restored_and_zero_when_nothing_is(
    family: str, toy_model: ToyModel
) -> None:
    model = toy_model(family)
    ours, bases = trace(model, NEEDLE), noised_bases(model, NEEDLE)
    high, low = float(ours.clean_probability[0]), ours.corrupted_probability[0].values
    for layer in range(toys.N_LAYERS):
        steps = (Patch(Site("resid_post", layer), 0),)
        restored = probabilities(model, ours, bases, [Row(base, steps) for base in (1, 2, 3)])
        np.testing.assert_allclose((restored - low) / (high - low), 1, atol=1e-4)
    own = [Row(base, (Patch(Site("resid_post", 1), base),)) for base in (1, 2, 3)]
    nothing = probabilities(model, ours, bases, own)
    np.testing.assert_allclose((nothing - low) / (high - low), 0, atol=1e-4)


@pytest.mark.parametrize(("window", "expected"), [(1, [(0, 1), (1, 2), (2, 3)]), (2, [(0, 1), (0, 2), (1, 3)]), (3, [(0, 2), (0, 3), (1, 3)]), (10, [(0, 3)] * 3)])  # fmt: skip  # noqa: E501
def test_13_the_layers_really_restored_are_recorded(
    window: int, expected: list[tuple[int, int]], toy_model: ToyModel
) -> None:
    """Window w around l is [l - w // 2, l - w // 2 + w), clipped, as in the published code."""
    model, pos = toy_model("gpt2"), 3
    ours = trace(model, sites=["mlp_out", "resid_post"], window=window).isel(prompt=0)
    recorded = ours.sel(site="mlp_out")
    limits = zip(recorded.window_start.values, recorded.window_stop.values, strict=True)
    assert [(int(start), int(stop)) for start, stop in limits] == expected
    residual = ours.sel(site="resid_post")
    assert (residual.window_stop - residual.window_start == 1).all()
    bases = noised_bases(model, EIFFEL)
    for layer, (start, stop) in enumerate(expected):
        steps = tuple(Patch(Site("mlp_out", at, pos=pos), 0) for at in range(start, stop))
        cell = probabilities(model, ours, bases, [Row(base, steps) for base in (1, 2, 3)])
        got = recorded.restored_probability.isel(layer=layer, pos=pos)
        np.testing.assert_allclose(got, cell, atol=1e-6)


def test_the_default_window_is_the_published_one_on_the_published_model() -> None:
    assert default_window(48) == 10
    assert [default_window(n) for n in (1, 3, 12, 24)] == [1, 1, 2, 5]
