"""Copy loss, ICL score, output CRP, and ablation of heads in all of them."""

from collections.abc import Callable

import induction_models as planted
import numpy as np
import pytest
import torch
import toys
from numpy.testing import assert_allclose, assert_array_equal
from torch.nn.functional import cross_entropy

import mechlab as ml
from mechlab.models import Model
from mechlab.prompts import as_token_ids, repeated_tokens, texts, without_repeats

ToyModel = Callable[..., Model]
N = 10
LISTS = repeated_tokens(3, N, pool=planted.words())
CONTROL = without_repeats(LISTS)
LOG_V = np.log(planted.N_VOCAB)
TEXTS = texts([" ".join(f"w{(i * step) % 83}" for i in range(90)) for step in (5, 7, 11)])


def plain_losses(family: str, row: list[int]) -> np.ndarray:
    """Loss of each token after the first, by transformers alone."""
    with torch.no_grad():
        logits = toys.make_hf(family)(torch.tensor([row]), use_cache=False).logits[0, :-1]
    return cross_entropy(logits, torch.tensor(row[1:]), reduction="none").double().numpy()


# -------------------------------------------------------------------------------------- the losses


def test_a_model_that_says_nothing_has_log_v_on_every_copy_and_learns_nothing_in_context():
    nothing = planted.planted({}, n_layers=1)
    found = ml.copy_loss(nothing, LISTS)
    assert_allclose(found.loss, LOG_V, rtol=1e-5)
    assert_allclose(found.gain, 0, atol=1e-5)
    icl = ml.icl_score(nothing, texts("w1 w2 w3 w4 w5 w6"), hi=5, lo=2)
    assert_allclose([icl.loss_hi.item(), icl.loss_lo.item()], LOG_V, rtol=1e-5)
    assert_allclose(icl.score, 0, atol=1e-5)


def test_the_planted_circuit_copies_and_without_its_head_does_not():
    sets = {"induction": ["L1H0"], "note": ["L0H0"], "silent": ["L0H1", "L1H2"], "none": []}
    found = ml.copy_loss(planted.induction(), LISTS, first_token=False, ablate=sets)
    loss = found.loss.sel(copy=2).mean("prompt")
    assert loss.sel(head_set="intact") < 1e-6
    assert_allclose(loss.sel(head_set="induction"), LOG_V, rtol=1e-5)
    assert loss.sel(head_set="note") > 1  # what the induction head reads is gone
    for name in ("silent", "none"):
        assert_array_equal(found.loss.sel(head_set=name), found.loss.sel(head_set="intact"))
    assert_array_equal(found.effect, found.loss - found.loss.sel(head_set="intact"))
    assert found.members.values.tolist() == ["", "L1H0", "L0H0", "L0H1+L1H2", ""]


@pytest.mark.parametrize("family", toys.ATTENTION_FAMILIES)
def test_losses_equal_the_cross_entropy_of_transformers(toy_model: ToyModel, family: str):
    model = toy_model(family)
    lists = repeated_tokens(2, 8, copies=3)
    found = ml.copy_loss(model, lists)
    bos = model.tokenizer.bos_token_id
    for index, one in enumerate(as_token_ids(model, list(lists))):
        expected = plain_losses(family, [bos, *one.numbers]).reshape(3, 8)
        assert_allclose(found.loss[index, 0], expected.mean(1), atol=1e-4)
        assert_allclose(found.probability[index, 0], np.exp(-expected).mean(1), atol=1e-5)
    icl = ml.icl_score(model, TEXTS, hi=60, lo=12, window=((50, 70), (10, 14)))
    for index, text in enumerate(TEXTS):
        loss = plain_losses(family, [int(t) for t in model.tokenize(text.text).tokens[0]])
        assert_allclose(icl.score[index, 0], loss[60] - loss[12], atol=1e-4)
        windowed = loss[50:71].mean() - loss[10:15].mean()
        assert_allclose(icl.score_windowed[index, 0], windowed, atol=1e-4)


def test_a_text_read_three_times_has_a_loss_per_copy(toy_model: ToyModel):
    model = toy_model("gpt2")
    found = ml.copy_loss(model, texts("w5 w9 w5 w7"), copies=3)
    row = [int(t) for t in model.tokenize("w5 w9 w5 w7").tokens[0]]
    expected = plain_losses("gpt2", row[:1] + row[1:] * 3).reshape(3, 4)
    assert_allclose(found.loss[0, 0], expected.mean(1), atol=1e-4)
    assert_allclose(found.loss_by_position[0], expected, atol=1e-4)


# -------------------------------------------------------------------------------------- the output


def test_the_output_of_a_serial_recaller_is_one_hot_at_lag_one_and_flat_without_its_head():
    found = ml.output_crp(planted.induction(), LISTS, ablate=["L1H0"])
    assert_allclose(found["mean"].sel(head_set="intact"), found.lag == 1, atol=1e-6)
    assert_allclose(found.share.sel(head_set="intact", lag=1), 1, atol=1e-6)
    flat = found.probability.sel(head_set="ablated")
    assert_allclose(flat, 1 / planted.N_VOCAB, rtol=1e-5)
    assert_allclose(found.share.sel(head_set="ablated"), 1 / N, rtol=1e-5)
    assert_allclose(
        found.source_probability.sel(head_set="ablated"), N / planted.N_VOCAB, rtol=1e-5
    )
    assert_allclose(found.serial_position.sel(head_set="ablated"), 1 / planted.N_VOCAB, rtol=1e-5)


def test_output_probabilities_equal_plain_loops(toy_model: ToyModel):
    model = toy_model("neox")
    lists = repeated_tokens(2, 8)
    found = ml.output_crp(model, lists, max_lag=2)
    for index, one in enumerate(as_token_ids(model, list(lists))):
        row = [model.tokenizer.bos_token_id, *one.numbers]
        with torch.no_grad():
            logits = toys.make_hf("neox")(torch.tensor([row])).logits[0].double()
        probability = logits.softmax(-1).numpy()
        for lag in range(-2, 3):
            inside = [p for p in range(8) if 0 <= p + lag < 8]
            raw = [probability[9 + p, row[1 + p + lag]] for p in inside]
            assert_allclose(found.probability[index, 0].sel(lag=lag), np.mean(raw), atol=1e-5)


# ------------------------------------------------------------------------------------ the ablation


def test_pattern_preserving_ablation_removes_a_write_and_no_composition():
    model = planted.induction()
    matching = {
        kind: ml.induction_scores(model, LISTS, ablate=["L0H0"], ablation=kind)
        .prefix_matching.mean("prompt")[1, 0]
        .item()
        for kind in ("zero", "pattern_preserving")
    }
    assert matching["zero"] < 0.1 and matching["pattern_preserving"] > 1 - 1e-6
    loss = ml.copy_loss(model, LISTS, ablate=["L0H0"], ablation="pattern_preserving")
    assert_allclose(loss.effect, 0, atol=1e-6)  # its write counts through composition alone


def test_mean_ablation_changes_nothing_for_a_constant_head_and_is_idempotent():
    model = planted.planted({"L1H0": ("induction", "out", 5.0)}, bias="L0H1")
    options = {"ablation": "mean", "reference": CONTROL}
    constant = ml.copy_loss(model, LISTS, ablate=["L0H1"], **options)
    zeroed = ml.copy_loss(model, LISTS, ablate=["L0H1"])
    assert_allclose(constant.effect, 0, atol=1e-6)
    assert np.abs(zeroed.effect).max() > 1e-2
    from mechlab.methods.induction.ablating import prepared

    runner, sets = prepared(model, ["L1H0"], "mean", CONTROL, "over_positions", ["resid_post"])
    mean = runner.of(sets[1].heads)
    tokens = torch.tensor([[0, *LISTS[0].numbers]])
    kept: list[torch.Tensor] = []
    mean.run(tokens, {("z", 1): lambda z: kept.append(z.clone())})
    assert_allclose(
        kept[0][0, :, 0], np.broadcast_to(runner.means[1][0, 0], kept[0][0, :, 0].shape)
    )


def test_ablation_equals_the_one_of_a_plain_hook(toy_model: ToyModel):
    model = toy_model("llama")
    lists = repeated_tokens(1, 8)
    found = ml.copy_loss(model, lists, ablate=["L1H2", "L0H1"])
    (one,) = as_token_ids(model, list(lists))
    row = torch.tensor([[model.tokenizer.bos_token_id, *one.numbers]])

    def silence(z: torch.Tensor, hook: object, head: int) -> torch.Tensor:
        z = z.clone()
        z[:, :, head] = 0
        return z

    hooks = [
        (f"blocks.{layer}.attn.hook_z", lambda z, hook, h=head: silence(z, hook, h))
        for layer, head in ((1, 2), (0, 1))
    ]
    with torch.no_grad():
        logits = model.bridge.run_with_hooks(row, fwd_hooks=hooks)[0, :-1]
    expected = cross_entropy(logits, row[0, 1:], reduction="none").reshape(2, 8).mean(1)
    assert_allclose(found.loss[0, 1], expected, atol=1e-5)
