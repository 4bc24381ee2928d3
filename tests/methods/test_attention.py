"""Patterns of single heads, and the tokens that a head speaks for, against independent routes."""

from collections.abc import Callable

import numpy as np
import pytest
import toys

import mechlab as ml
from mechlab.hooks import Block
from mechlab.plots.grid_view import MASKED, VALUE
from mechlab.results import check_result

ToyModel = Callable[..., ml.Model]
PAIRS = [
    ml.prompts.PromptPair("The capital of France is", "The city of Italy is", "Paris", "Rome"),
    ml.prompts.PromptPair("Oslo is near", "Lima is near", "w7", "Egypt"),
]
HEADS = ["L2H3", "L0H1"]


@pytest.mark.parametrize("family", toys.ATTENTION_FAMILIES)
def test_a_pattern_is_what_a_plain_run_attends_with(family: str, toy_model: ToyModel) -> None:
    model = toy_model(family)
    found = ml.attention_pattern(model, PAIRS, heads=HEADS)
    check_result(found)
    for row, pair in enumerate(PAIRS):
        tokens = model.tokenizer(pair.clean, return_tensors="pt").input_ids
        _, cache = model.bridge.run_with_cache(tokens)
        count = tokens.shape[1]
        for name, head in zip(HEADS, ml.heads(*HEADS), strict=True):
            there = found.pattern.sel(head_set=name)[row, :count, :count]
            plain = cache[f"blocks.{head.layer}.attn.hook_pattern"][0, head.head]
            np.testing.assert_allclose(there, plain.detach().numpy(), atol=1e-5)
    assert found.pattern[1, :, :, 4:].isnull().all()  # beyond the end of the shorter prompt
    np.testing.assert_allclose(found.pattern[0].sum("key"), 1, atol=1e-5)
    last = ml.attention_pattern(model, PAIRS, heads=HEADS, queries="last")
    np.testing.assert_array_equal(last.pattern[1, :, 0, :4], found.pattern[1, :, 3, :4])
    assert last.query_token.values[:, 0].tolist() == [found.token.values[0, 5], "near"]


def test_a_blocked_edge_has_no_weight_and_the_other_prompt_is_another(toy_model: ToyModel) -> None:
    model = toy_model("llama")
    cut = [Block(2, queries=(4,), keys=(1,), heads=(3,))]
    plain = ml.attention_pattern(model, PAIRS[:1], heads=HEADS).pattern[0]
    blocked = ml.attention_pattern(model, PAIRS[:1], heads=HEADS, interventions=cut).pattern[0]
    assert float(plain[0, 4, 1]) > 1e-4
    assert float(blocked[0, 4, 1]) == 0
    other = ml.attention_pattern(model, PAIRS[:1], heads=HEADS, run="corrupted")
    assert other.prompt_text.item() == PAIRS[0].corrupted
    assert float(abs(other.pattern[0] - plain).max()) > 1e-3


@pytest.mark.parametrize("family", toys.ATTENTION_FAMILIES)
def test_the_logits_of_a_heads_tokens_are_its_direct_attribution(
    family: str, toy_model: ToyModel
) -> None:
    """Every token that is listed is asked for as an answer, where DLA takes another way."""
    model = toy_model(family)
    found = ml.head_tokens(model, PAIRS[:1], heads=HEADS, top_k=2)
    check_result(found)
    assert (found.raised_logit.diff("k") <= 0).all()
    assert (found.lowered_logit.diff("k") >= 0).all()
    clean = PAIRS[0].clean
    for name, head in zip(HEADS, ml.heads(*HEADS), strict=True):
        for end in ("raised", "lowered"):
            token = str(found[f"{end}_token"].sel(head_set=name)[0, 0].item())
            if model.answer_tokens([clean], [token])[0] != model.answer_tokens([clean], ["w7"])[0]:
                fact = ml.prompts.Fact(clean, "France", token)
                share = ml.direct_logit_attribution(model, fact, metric="logit").head_attribution
                told = found[f"{end}_logit"].sel(head_set=name)[0, 0]
                np.testing.assert_allclose(told, share[0, head.layer, head.head], atol=2e-5)
    everything = ml.head_tokens(model, PAIRS[:1], heads=HEADS, top_k=model.d_vocab)
    np.testing.assert_allclose(everything.raised_logit.sum("k"), 0, atol=1e-2)
    turned = everything.lowered_logit.isel(k=slice(None, None, -1))
    np.testing.assert_array_equal(everything.raised_logit, turned)


def test_what_cannot_be_shown_is_refused_before_a_run(toy_model: ToyModel) -> None:
    model = toy_model("gpt2")
    for method in (ml.attention_pattern, ml.head_tokens):
        with pytest.raises(ml.SiteError, match="L9H0, L0H9"):
            method(model, PAIRS, heads=["L9H0", "L0H9"])
        with pytest.raises(ml.OptionError, match="at least one"):
            method(model, PAIRS, heads=[])
        with pytest.raises(ml.OptionError, match="facts"):
            fact = ml.prompts.Fact("Oslo is near", "Oslo")
            method(model, fact, heads=HEADS, run="corrupted")
        with pytest.raises(ml.SiteError, match="recurrent"):
            method(toy_model("mamba"), PAIRS, heads=HEADS)


def test_a_grid_of_attention_leaves_the_future_and_the_padding_out(toy_model: ToyModel) -> None:
    found = ml.attention_pattern(toy_model("llama"), PAIRS, heads=HEADS)
    view = ml.plots.attention_views(found, prompt=1, heads=["L0H1"])[0]
    assert view.shape == (4, 4)
    assert view.limits == (0.0, 1.0)
    assert view.col_labels[1] == "1·Oslo"
    expected = np.where(np.tril(np.ones((4, 4))), VALUE, MASKED)
    np.testing.assert_array_equal(view.state, expected)
    last = ml.attention_pattern(toy_model("llama"), PAIRS[1], heads=HEADS, queries="last")
    strip = ml.plots.attention_views(last)[1]
    assert (strip.state == VALUE).all()
    np.testing.assert_allclose(strip.values[0], view.values[3], atol=1e-6)
    with pytest.raises(ml.OptionError, match="L1H1"):
        ml.plots.attention(found, heads=["L1H1"])
