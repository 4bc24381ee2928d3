"""What direct logit attribution must show: sums, symmetries, planted heads, slopes."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import circuits
import numpy as np
import pytest
import torch
import toys
import transformers
import xarray as xr

from mechlab import engine
from mechlab.engine import Base, Row
from mechlab.hooks import Ablate, Patch, Scale, Site
from mechlab.methods.attribution import direct_logit_attribution
from mechlab.models import Model, load_model, wrap_model
from mechlab.prompts import Fact, PromptPair
from mechlab.results import check_result

ToyModel = Callable[..., Model]
PAIRS = [
    PromptPair("The capital of France is", "The capital of Italy is", "Paris", "Rome"),
    PromptPair("w1 w2 w5 Ann was born in the city of", "w1 Bob of", "Madrid", "Cairo"),
    PromptPair("Oslo is near", "Lima is near", "w7", "Egypt"),
]
LAST = toys.N_LAYERS - 1


def attribute(model: Model, pairs: Any = PAIRS, **options: Any) -> xr.Dataset:
    found = direct_logit_attribution(model, pairs, **options)
    check_result(found)
    return found


def like(toy: Model, hf: Any) -> Model:
    """Wrap a model of a toy's architecture; what `verify` found on the toy holds for it."""
    model = wrap_model(hf, toys.make_tokenizer())
    model.checks = engine.verify(toy)
    return model


def whole(model: Model) -> str:
    return "head_source" if model.has_attention else "component"


# In float64 a padded Llama gives NaN (transformers' mask overflows its float32 softmax): the engine
# finds it out, says so, and runs prompts of different length one by one.
@pytest.mark.filterwarnings("ignore::mechlab.engine.verify.EngineWarning")
@pytest.mark.parametrize(
    ("family", "dtype", "within"),
    [
        *((family, torch.float32, 1e-5) for family in toys.FAMILIES),
        *((family, torch.float64, 1e-10) for family in toys.ATTENTION_FAMILIES),
    ],
)
def test_shares_add_up_to_the_models_own_logits(
    family: str, dtype: torch.dtype, within: float, toy_model: ToyModel
) -> None:
    model = toy_model(family)
    if dtype != torch.float32:
        model = wrap_model(toys.make_hf(family, dtype=dtype), toys.make_tokenizer())
    found = attribute(model, by=whole(model))
    runs = [engine.run(model, [Base(pair.clean)], [], read="logits") for pair in PAIRS]
    logits = np.concatenate([one.bases for one in runs]).astype(np.float64)
    ids = [[int(model.answer_tokens([p.clean], [a])[0][0]) for a in (p.answer, p.wrong_answer)]
           for p in PAIRS]  # fmt: skip
    expected = np.array([row[a] - row[b] for row, (a, b) in zip(logits, ids, strict=True)])
    np.testing.assert_allclose(found.total, expected, atol=1e-5)
    # transformers computes RMS norms in float32 in any precision, so the model's own logits carry
    # that rounding; the shares still add up exactly among themselves.
    rounding = 1e-6 if family in ("llama", "mamba", "mamba2") else within
    summed = found.component_attribution.sum("component")
    np.testing.assert_allclose(summed + found.unexplained, found.total, atol=max(within, 1e-10))
    assert float(np.abs(found.unexplained).max()) <= max(within, rounding)
    assert float(np.abs(expected).min()) > 1e-2
    np.testing.assert_allclose(
        found.component_logit.sum("component"), found.logit, atol=max(within, rounding)
    )
    if model.has_attention:
        layers = [f"L{layer}.attn" for layer in range(model.n_layers)]
        attention = found.component_attribution.sel(component=layers).values
        np.testing.assert_allclose(found.head_attribution.sum("head"), attention, atol=within)
        by_token = found.source_attribution.sum("pos")
        np.testing.assert_allclose(by_token, found.head_attribution, atol=within)
        beyond = found.source_attribution.where(found.token == "")
        assert np.isnan(found.source_attribution.values[2, ..., -1]).all()
        assert not beyond.notnull().any()


def test_what_every_prompt_gets_does_not_depend_on_its_company(
    family: str, toy_model: ToyModel
) -> None:
    model = toy_model(family)
    together = attribute(model, by=whole(model))
    for row, pair in enumerate(PAIRS):
        alone = attribute(model, pair, by=whole(model))
        for name in alone.data_vars:
            ours = together[name].isel(prompt=row)
            if "pos" in ours.dims:
                ours = ours.isel(pos=slice(alone.sizes["pos"]))
            np.testing.assert_allclose(alone[name][0], ours, atol=2e-5, err_msg=str(name))


def test_swapping_the_answers_flips_every_sign(family: str, toy_model: ToyModel) -> None:
    model = toy_model(family)
    swapped = [PromptPair(p.clean, p.corrupted, p.wrong_answer, p.answer) for p in PAIRS]
    there, back = (attribute(model, pairs, by=whole(model)) for pairs in (PAIRS, swapped))
    for name in ("total", "component_attribution", "head_attribution", "source_attribution"):
        if name in there:
            np.testing.assert_allclose(there[name], -back[name], atol=1e-6)
            assert float(np.abs(there[name]).max()) > 1e-2


def test_each_depth_leaves_the_coarser_numbers_as_they_are(toy_model: ToyModel) -> None:
    model = toy_model("gpt2")
    coarse, middle, fine = (attribute(model, by=by) for by in ("component", "head", "head_source"))
    assert set(coarse) < set(middle) < set(fine)
    for name in coarse:
        np.testing.assert_array_equal(coarse[name], fine[name])
    np.testing.assert_array_equal(middle.head_attribution, fine.head_attribution)


def test_components_are_named_by_what_the_model_has(family: str, toy_model: ToyModel) -> None:
    labels = attribute(toy_model(family), by="component").component.values.tolist()
    assert ("pos_embed" in labels) == (family == "gpt2")
    assert ("L1.attn_bias" in labels) == (family in ("gpt2", "neox"))
    assert ("final_norm_bias" in labels) == (family in ("gpt2", "neox"))
    assert ("L1.mixer" in labels) == (family in toys.RECURRENT_FAMILIES)


def test_permuting_the_heads_of_a_layer_permutes_attributions(toy_model: ToyModel) -> None:
    order = [2, 0, 3, 1]
    plain, moved = toys.make_hf("gpt2"), toys.make_hf("gpt2")
    attention = moved.transformer.h[1].attn
    d, width = toys.D_MODEL, toys.D_HEAD
    columns = torch.cat([torch.arange(h * width, (h + 1) * width) for h in order])
    with torch.no_grad():
        for part in range(3):
            attention.c_attn.weight[:, part * d : (part + 1) * d] = plain.transformer.h[
                1
            ].attn.c_attn.weight[:, part * d + columns]
            attention.c_attn.bias[part * d : (part + 1) * d] = plain.transformer.h[
                1
            ].attn.c_attn.bias[part * d + columns]
        attention.c_proj.weight.copy_(plain.transformer.h[1].attn.c_proj.weight[columns])
    before, after = (attribute(like(toy_model("gpt2"), hf)) for hf in (plain, moved))
    expected = before.head_attribution.values.copy()
    expected[:, 1] = expected[:, 1, order]
    np.testing.assert_allclose(after.head_attribution, expected, atol=1e-5)
    assert np.abs(expected[:, 1] - before.head_attribution.values[:, 1]).max() > 1e-2


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_folded_and_unfolded_norms_give_the_same_attributions(
    family: str, model_folder: Callable[..., Path], toy_model: ToyModel
) -> None:
    """Processing folds the norms and centres what is written; value biases move to the output bias.

    So attention is compared with its output bias, and heads where values have no bias.
    """
    folder = str(model_folder(family))
    models = [load_model(folder, device="cpu", weights=kind) for kind in ("raw", "processed")]  # type: ignore[arg-type]
    for model in models:
        model.checks = engine.verify(toy_model(family))
    raw, folded = map(attribute, models)
    np.testing.assert_allclose(raw.total, folded.total, atol=1e-4)
    np.testing.assert_allclose(raw.logit, folded.logit, atol=1e-4)
    kinds = ("embed", "pos_embed", "mlp")
    for label in raw.component.values[np.isin(raw.component_kind, kinds)]:
        ours, theirs = (d.component_attribution.sel(component=label) for d in (raw, folded))
        np.testing.assert_allclose(ours, theirs, atol=1e-4, err_msg=str(label))
    for pair in (("attn", "attn_bias"), ("final_norm_bias", "unembed_bias")):
        sums = [
            d.component_attribution.where(d.component_kind.isin(pair), 0).sum("component")
            for d in (raw, folded)
        ]
        np.testing.assert_allclose(*sums, atol=1e-4)
    if family == "llama":
        np.testing.assert_allclose(raw.head_attribution, folded.head_attribution, atol=1e-4)


def test_folding_the_final_norm_by_hand_changes_no_share(toy_model: ToyModel) -> None:
    plain, folded = toys.make_hf("neox"), toys.make_hf("neox")
    with torch.no_grad():
        for hf in (plain, folded):
            hf.gpt_neox.final_layer_norm.bias.zero_()  # its unembedding has no bias to take it
        norm = folded.gpt_neox.final_layer_norm
        folded.get_output_embeddings().weight.mul_(norm.weight)
        norm.weight.fill_(1.0)
    ours, theirs = (
        attribute(wrap_model(hf, toys.make_tokenizer()), by="head_source") for hf in (plain, folded)
    )
    for name in ("component_attribution", "head_attribution", "source_attribution"):
        np.testing.assert_allclose(ours[name], theirs[name], atol=1e-5)


def constant_norm_model(toy: Model) -> Model:
    """A NeoX (parallel blocks) whose final norm has so large an epsilon that its scale is fixed."""
    hf = toys.make_hf("neox", dtype=torch.float64)
    norm, scale = hf.gpt_neox.final_layer_norm, 1e6
    norm.eps = scale**2
    norm.weight.data.mul_(scale)
    return like(toy, hf)


def test_the_slope_in_alpha_of_a_last_layer_head_is_its_attribution(toy_model: ToyModel) -> None:
    """Nothing but the final norm comes after it, and here that norm is linear."""
    model, pair, alphas = (
        constant_norm_model(toy_model("neox")),
        PAIRS[0],
        (-2.0, 0.0, 0.5, 1.0, 3.0),
    )
    found = attribute(model, pair)
    right, wrong = (
        model.answer_tokens([pair.clean], [a])[0][0] for a in (pair.answer, pair.wrong_answer)
    )
    for head in range(toys.N_HEADS):
        rows = [Row(0, (Scale(Site("z", LAST, head), alpha),)) for alpha in alphas]
        logits = engine.run(model, [Base(pair.clean)], rows, read="logits").rows
        values = (logits[:, right] - logits[:, wrong]).astype(np.float64)
        slope, constant = np.polyfit(alphas, values, 1)
        assert slope == pytest.approx(float(found.head_attribution[0, LAST, head]), abs=2e-6)
        np.testing.assert_allclose(values, constant + slope * np.array(alphas), atol=5e-6)
        assert abs(slope) > 1e-3


def test_a_part_that_nothing_reads_is_worth_what_its_ablation_takes(toy_model: ToyModel) -> None:
    """In the last block, with the scale of the norm held: DE is the whole effect (sequential)."""
    model, pair = toy_model("llama"), PAIRS[1]
    clean = attribute(model, pair, by="component")
    cut = attribute(
        model, pair, by="component", norm="clean",
        interventions=[Ablate(Site("mlp_out", LAST))],
    )  # fmt: skip
    share = float(clean.component_attribution.sel(component=f"L{LAST}.mlp").item())
    assert float(cut.component_attribution.sel(component=f"L{LAST}.mlp").item()) == 0
    lost = clean.component_attribution.sum() - cut.component_attribution.sum()
    assert float(lost) == pytest.approx(share, abs=1e-5)
    # What is left unexplained is the changed scale: with the run's own scale nothing is.
    norm_term = float(cut.unexplained.item())
    own = attribute(model, pair, by="component", interventions=[Ablate(Site("mlp_out", LAST))])
    assert abs(norm_term) > 1e-2
    assert float(own.unexplained.item()) == pytest.approx(0, abs=1e-5)
    assert float(own.total.item()) == pytest.approx(float(cut.total.item()), abs=1e-6)
    assert float(clean.final_scale.item()) == pytest.approx(float(cut.final_scale.item()))


def test_the_run_of_the_corrupted_prompt_is_that_of_its_text(toy_model: ToyModel) -> None:
    model = toy_model("gpt2")
    other = [PromptPair(p.corrupted, p.clean, p.answer, p.wrong_answer) for p in PAIRS]
    there, here = attribute(model, run="corrupted"), attribute(model, other)
    np.testing.assert_allclose(there.head_attribution, here.head_attribution, atol=1e-6)
    assert there.prompt_text.values.tolist() == [pair.corrupted for pair in PAIRS]


def test_without_norm_shares_are_plain_products(toy_model: ToyModel) -> None:
    model, pair = toy_model("gpt2"), PAIRS[0]
    found = attribute(model, pair, norm="none", by="component")
    (seen,) = engine.record(model, [Base(pair.clean)], [("mlp_out", 1)])
    right, wrong = (
        model.answer_tokens([pair.clean], [a])[0][0] for a in (pair.answer, pair.wrong_answer)
    )
    columns = model.hf.get_output_embeddings().weight
    expected = float(seen.values["mlp_out", 1][-1] @ (columns[right] - columns[wrong]))
    assert float(found.component_attribution.sel(component="L1.mlp").item()) == pytest.approx(
        expected, abs=1e-5
    )
    assert np.isnan(found.component_attribution.sel(component="final_norm_bias")).all()
    assert np.isnan(found.final_scale).all()


def test_facts_are_attributed_by_the_centred_logit_of_their_target(toy_model: ToyModel) -> None:
    model = toy_model("llama")
    fact = Fact("The capital of France is", "France", "Paris")
    found = attribute(model, fact, metric="logit")
    logits = engine.run(model, [Base(fact.prompt)], [], read="logits").bases[0]
    token = model.answer_tokens([fact.prompt], ["Paris"])[0][0]
    assert float(found.total.item()) == pytest.approx(logits[token] - logits.mean(), abs=1e-5)
    assert found.answer.values.tolist() == ["answer"]
    np.testing.assert_allclose(found.component_attribution.sum(), found.total.item(), atol=1e-5)


@pytest.mark.parametrize("family", ["gpt2", "llama"])
@pytest.mark.parametrize("norm", ["identity", "real"])
def test_planted_heads_are_found_with_their_signs_and_all_others_are_zero(
    family: str, norm: str
) -> None:
    """The copy head is positive; the fact head and the anti-copy head are negative."""
    circuit = circuits.conflict(family, norm=norm)  # type: ignore[arg-type]
    found = attribute(circuit.model, circuit.pairs, by="head_source")
    values = found.head_attribution.copy()
    for role, head in circuit.heads.items():
        here = values[:, head.layer, head.head]
        planted = np.array(circuit.direct[role])
        np.testing.assert_allclose(here, planted, rtol=1e-4 if norm == "identity" else 0.3)
        assert (np.sign(here) == np.sign(planted)).all()
        # All of it was read from one token: the city of the context or the country.
        source = 3 if role in ("copy", "anti") else 5
        by_token = found.source_attribution[:, head.layer, head.head]
        np.testing.assert_allclose(by_token[:, source], here, rtol=1e-4)
        values[:, head.layer, head.head] = 0
    assert float(np.abs(values).max()) < 1e-5
    expected = np.array(circuit.clean)
    np.testing.assert_allclose(found.total, expected, rtol=1e-4 if norm == "identity" else 0.3)


def test_direct_effects_leave_out_what_runs_through_other_heads() -> None:
    """Of two composed heads only the second writes the answer, whatever the first brought it."""
    circuit = circuits.two_hop()
    found = attribute(circuit.model, circuit.pairs).head_attribution
    second, first = circuit.heads["second"], circuit.heads["first"]
    np.testing.assert_allclose(
        found[:, second.layer, second.head], circuit.direct["second"], rtol=1e-4
    )
    assert float(np.abs(found[:, first.layer, first.head]).max()) < 1e-5


def gemma(soft_cap: float | None) -> Model:
    """Norms behind attention and MLP, offset gains, scaled embeddings, and perhaps a soft cap."""
    config = transformers.Gemma2Config(
        hidden_size=64, num_hidden_layers=3, num_attention_heads=4, num_key_value_heads=2,
        intermediate_size=128, head_dim=16, max_position_embeddings=128, sliding_window=256,
        final_logit_softcapping=soft_cap, vocab_size=toys.N_VOCAB, bos_token_id=0,
        eos_token_id=1, pad_token_id=2,
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        hf = transformers.AutoModelForCausalLM.from_config(config, attn_implementation="eager")
    toys._enliven(hf, torch.Generator().manual_seed(0))
    return wrap_model(hf.eval(), toys.make_tokenizer(), name="gemma")


def test_norms_behind_attention_and_soft_caps_are_handled() -> None:
    models = [gemma(cap) for cap in (None, 2.0)]
    models[1].checks = engine.verify(models[0])
    plain, capped = (attribute(model, by="head_source") for model in models)
    for found in (plain, capped):
        layers = [f"L{layer}.attn" for layer in range(3)]
        attention = found.component_attribution.sel(component=layers).values
        np.testing.assert_allclose(found.head_attribution.sum("head"), attention, atol=1e-5)
        assert float(np.abs(found.unexplained).max()) < 1e-5
        assert float(np.abs(found.head_attribution).min()) > 1e-6
    np.testing.assert_allclose(plain.head_attribution, capped.head_attribution, atol=1e-5)
    np.testing.assert_allclose(plain.total, capped.total, atol=1e-5)


def test_the_resampled_head_is_worth_what_it_brings_from_the_other_prompt(
    toy_model: ToyModel,
) -> None:
    """Patching a last-layer head changes the final residual by the difference of its writes."""
    model, pair = toy_model("neox"), PAIRS[0]
    here, there = attribute(model, pair), attribute(model, pair, run="corrupted", norm="clean")
    expected = (there.head_attribution - here.head_attribution)[0, LAST].values
    rows = [Row(0, (Patch(Site("z", LAST, head, 5), 1),)) for head in range(toys.N_HEADS)]
    logits = engine.run(model, [Base(pair.clean), Base(pair.corrupted)], rows, read="logits")
    right, wrong = (
        model.answer_tokens([pair.clean], [a])[0][0] for a in (pair.answer, pair.wrong_answer)
    )
    change = (logits.rows - logits.bases[:1])[:, right] - (logits.rows - logits.bases[:1])[:, wrong]
    # Only the scale of the norm is between the two: signs and order agree.
    assert np.corrcoef(change, expected)[0, 1] > 0.95
