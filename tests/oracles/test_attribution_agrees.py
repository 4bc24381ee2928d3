"""TransformerLens' own logit attribution and logit lens give the same numbers, where they reach.

Theirs runs in compatibility mode (weights folded and centred) through the activation cache; ours on
raw weights through the engine.
"""

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import toys
from transformer_lens.tools.analysis import logit_lens as their_lens
from transformers import PreTrainedTokenizerFast

from mechlab.methods.attribution import direct_logit_attribution
from mechlab.methods.lens import logit_lens
from mechlab.models import Model
from mechlab.models.model import Origin
from mechlab.models.wrapping import wrap
from mechlab.prompts import PromptPair

ToyModel = Callable[..., Model]
PAIR = PromptPair("The capital of France is", "The capital of Italy is", "Paris", "Rome")


def ids_of(model: Model) -> list[int]:
    found = model.answer_tokens([PAIR.clean] * 2, [PAIR.answer, PAIR.wrong_answer])
    return [ids[0] for ids in found]


def processed(family: str, tokenizer: PreTrainedTokenizerFast) -> Model:
    origin = Origin("processed", "memory", weights="processed")
    return wrap(toys.make_hf(family), copy.deepcopy(tokenizer), origin, prepend_bos=None)


def their_cache(model: Model) -> Any:
    model.bridge.set_use_attn_result(True)
    with torch.no_grad():
        return model.bridge.run_with_cache(model.tokenize([PAIR.clean]).tokens)[1]


def test_shares_of_components_and_heads_are_those_of_logit_attrs(
    attention_family: str, toy_model: ToyModel, words_tokenizer: PreTrainedTokenizerFast
) -> None:
    raw, folded = toy_model(attention_family), processed(attention_family, words_tokenizer)
    right, wrong = ids_of(raw)
    cache = their_cache(folded)
    tokens = {"tokens": torch.tensor(right), "incorrect_tokens": torch.tensor(wrong)}
    stack, labels = cache.decompose_resid(pos_slice=-1, return_labels=True)
    theirs = dict(zip(labels, cache.logit_attrs(stack, pos_slice=-1, **tokens)[:, 0], strict=True))
    ours = direct_logit_attribution(raw, PAIR).isel(prompt=0)
    components = ours.component_attribution
    kinds = dict(zip(ours.component.values, components.values, strict=True))
    for layer in range(raw.n_layers):
        attention = kinds[f"L{layer}.attn"] + kinds.get(f"L{layer}.attn_bias", 0)
        assert attention == pytest.approx(float(theirs[f"{layer}_attn_out"]), abs=2e-5)
        assert kinds[f"L{layer}.mlp"] == pytest.approx(float(theirs[f"{layer}_mlp_out"]), abs=2e-5)
    assert kinds["embed"] == pytest.approx(float(theirs["embed"]), abs=2e-5)
    # Folding moves value biases into the output bias; our heads on the same weights agree as well.
    heads, _ = cache.stack_head_results(pos_slice=-1, return_labels=True)
    expected = cache.logit_attrs(heads, pos_slice=-1, **tokens)[:, 0].reshape(raw.n_layers, -1)
    same = direct_logit_attribution(folded, PAIR).head_attribution[0]
    np.testing.assert_allclose(same, expected, atol=2e-5)
    if attention_family == "llama":
        np.testing.assert_allclose(ours.head_attribution, expected, atol=2e-5)
    assert float(expected.abs().max()) > 0.05


def test_the_logit_lens_is_theirs(family: str, toy_model: ToyModel) -> None:
    model = toy_model(family)
    tokens = model.tokenize([PAIR.clean]).tokens
    answers = ids_of(model)
    ours = logit_lens(model, PAIR, sites=["resid_pre", "resid_post"], positions="all")
    ours = ours.isel(prompt=0)
    theirs = their_lens(
        model.bridge, tokens, positions=None, targets=answers, return_type="log_probs"
    )
    followed = ours.sel(answer=["answer", "wrong_answer"])
    entering = followed.sel(site="resid_pre")
    expected = theirs.values[:-1, 0].numpy()
    np.testing.assert_allclose(entering.log_probability, expected, atol=5e-5)
    ranks = theirs.readout.target_ranks
    assert ranks is not None
    np.testing.assert_array_equal(entering["rank"], ranks[:-1, 0])
    leaving = followed.sel(site="resid_post").isel(layer=-1)
    np.testing.assert_allclose(leaving.log_probability, theirs.values[-1, 0], atol=5e-5)
    best = their_lens(model.bridge, tokens, positions=None, top_k=5)
    assert best.readout.top_ids is not None
    words = [[[model.token_string(int(t)) for t in row] for row in entry[0]]
             for entry in best.readout.top_ids[:-1]]  # fmt: skip
    assert ours.sel(site="resid_pre").top_token.values.tolist() == words
