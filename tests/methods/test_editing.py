"""Edits as values: where a weight lies, what an edit does to it, and how it is undone."""

import copy

import numpy as np
import pytest
import torch
import toys
from transformers.pytorch_utils import Conv1D

from mechlab.errors import ModelError, OptionError, StoreError
from mechlab.methods.editing import Delta, DenseDelta, Edit
from mechlab.methods.editing.edits import unedited_fingerprint
from mechlab.methods.editing.modules import Projection, projection
from mechlab.models import load_model, wrap_model
from mechlab.prompts import EditRequest

REQUEST = EditRequest("The capital of {} is", "France", "Rome", target_true="Paris")

PATHS = {  # the names that the architectures themselves have
    "gpt2": "transformer.h.1.mlp.c_proj",
    "neox": "gpt_neox.layers.1.mlp.dense_4h_to_h",
    "llama": "model.layers.1.mlp.down_proj",
    "mamba": "backbone.layers.1.mixer.out_proj",
    "mamba2": "backbone.layers.1.mixer.out_proj",
}


@pytest.fixture(scope="module")
def toy():
    """One toy per family and precision, shared: edits must leave no trace."""
    made = {}

    def model(family, dtype=torch.float32):
        if (family, dtype) not in made:
            hf = toys.make_hf(family, dtype=dtype)
            made[family, dtype] = wrap_model(hf, toys.make_tokenizer("words"), name=family)
        return made[family, dtype]

    return model


def some_edit(model, layer=1, site=None, *, seed=0, scale=1.0, dense=False, made_on=()):
    place = projection(model, layer, site)
    random = np.random.default_rng(seed)
    left, right = random.normal(size=(place.d_out, 1)), random.normal(size=(place.d_in, 1)) / 8
    if dense:
        delta = DenseDelta(layer, place.site, scale * left @ right.T)
    else:
        delta = Delta(layer, place.site, scale * left, right)
    return Edit((delta,), (REQUEST,), unedited_fingerprint(model), made_on)


def logits_of(model):
    tokens = model.tokenize(["The capital of France is"]).tokens
    with torch.no_grad():
        return model.bridge(tokens, use_cache=False)


def bytes_of(model):
    return [p.detach().clone() for p in model.hf.parameters()]


def same(before, model):
    return all(torch.equal(a, b) for a, b in zip(before, model.hf.parameters(), strict=True))


def test_an_edit_changes_the_bridge_as_the_same_write_changes_a_plain_model(family, toy):
    plain = toys.make_hf(family)
    model = toy(family)
    edit = some_edit(model)
    module = plain.get_submodule(PATHS[family])
    stored_in_out = family == "gpt2"
    with torch.no_grad():
        change = edit.deltas[0].change(torch.float32)
        module.weight += change.T if stored_in_out else change
        tokens = model.tokenize(["The capital of France is"]).tokens
        expected = plain(tokens, use_cache=False).logits
    before = logits_of(model)
    with edit.applied(model):
        edited = logits_of(model)
        assert model.hf is not plain
    assert (edited - before).abs().max() > 1e-2
    torch.testing.assert_close(edited, expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("dense", [False, True])
def test_undo_restores_every_bit_also_after_an_exception(toy, dense):
    model = toy("gpt2")
    before, fingerprint = bytes_of(model), model.fingerprint
    edit = some_edit(model, scale=3.3, dense=dense)
    with edit.applied(model):
        assert not same(before, model)
        assert model.fingerprint != fingerprint and model.edits == (edit.digest,)
    with pytest.raises(ZeroDivisionError), edit.applied(model):
        raise ZeroDivisionError
    assert same(before, model) and model.fingerprint == fingerprint and model.edits == ()


def test_half_precision_is_restored_bitwise_and_adding_happens_in_float32(toy):
    model = toy("llama", dtype=torch.bfloat16)
    before, edit = bytes_of(model), some_edit(model)
    weight = projection(model, 1).weight.clone()
    with edit.applied(model):
        expected = (weight.float() + edit.deltas[0].change(torch.float32)).to(torch.bfloat16)
        assert torch.equal(projection(model, 1).weight, expected)
    assert same(before, model)


def test_conv1d_and_linear_storage_are_the_same_function_after_an_edit():
    torch.manual_seed(0)
    linear, conv = torch.nn.Linear(8, 8), Conv1D(8, 8)
    conv.weight.data.copy_(linear.weight.data.T)
    conv.bias.data.copy_(linear.bias.data)
    places = (
        Projection(0, "down_proj", linear, False, slice(None)),
        Projection(0, "down_proj", conv, True, slice(None)),
    )
    change = torch.randn(8, 1) @ torch.randn(1, 8)  # square and not symmetric: shape says nothing
    keys = torch.randn(5, 8)
    for place in places:
        place.weight.add_(change)
        torch.testing.assert_close(place.value_of(keys).float(), place.module(keys))
    torch.testing.assert_close(linear(keys), conv(keys))


def test_a_square_weight_is_edited_in_the_declared_orientation(words_tokenizer, monkeypatch):
    monkeypatch.setattr(toys, "D_MLP", toys.D_MODEL)
    for family in ("gpt2", "llama"):
        hf = toys.make_hf(family)
        model = wrap_model(copy.deepcopy(hf), words_tokenizer, name="square")
        place = projection(model, 1)
        assert place.d_in == place.d_out
        edit = some_edit(model)
        key = torch.randn(place.d_in)
        with edit.applied(model):
            reached = place.module(key)
        change = edit.deltas[0].change(torch.float32) @ key
        torch.testing.assert_close(reached - place.module(key), change, atol=1e-5, rtol=1e-4)


def test_a_half_of_mambas_input_projection_leaves_the_other_half_alone(toy):
    model = toy("mamba")
    whole = projection(model, 1, "in_proj_ssm").module.weight
    before = whole.detach().clone()
    half = len(before) // 2
    for site, mine, other in (
        ("in_proj_ssm", slice(0, half), slice(half, None)),
        ("in_proj_gate", slice(half, None), slice(0, half)),
    ):
        with some_edit(model, 1, site).applied(model):
            assert torch.equal(whole[other], before[other])
            assert bool((whole[mine] != before[mine]).any(1).all())
        assert torch.equal(whole, before)


def test_edits_compose_by_nesting_and_are_undone_in_turn(toy):
    model = toy("llama")
    first, second = some_edit(model, seed=1), some_edit(model, seed=2)
    before, start = bytes_of(model), projection(model, 1).weight.clone()
    with first.applied(model):
        after_first = projection(model, 1).weight.clone()
        with pytest.raises(ModelError, match="already edited"), second.applied(model):
            pass
        with second.applied(model, on_top=True):
            assert model.edits == (first.digest, second.digest)
            both = projection(model, 1).weight.clone()
        assert torch.equal(projection(model, 1).weight, after_first)
    step = start + first.deltas[0].change(torch.float32)
    assert torch.equal(both, step + second.deltas[0].change(torch.float32))
    assert same(before, model)


def test_an_edit_made_on_top_of_another_needs_it(toy):
    model = toy("llama")
    first = some_edit(model, seed=1)
    second = some_edit(model, seed=2, made_on=(first.digest,))
    with pytest.raises(ModelError, match="on top of 1 others"), second.applied(model, on_top=True):
        pass
    with first.applied(model), second.applied(model, on_top=True):
        pass


def test_an_edit_of_another_model_or_shape_is_refused_and_the_model_untouched(toy):
    model, other = toy("llama"), toy("gpt2")
    before, edit = bytes_of(other), some_edit(model)
    with pytest.raises(ModelError, match="fingerprint"), edit.applied(other):
        pass
    place = projection(model, 1)
    turned = Edit(
        (Delta(1, "down_proj", np.ones((place.d_in, 1)), np.ones((place.d_out, 1))),),
        (REQUEST,),
        unedited_fingerprint(model),
    )
    with pytest.raises(ModelError, match="do not fit"), turned.applied(model):
        pass
    assert same(before, other)


def test_weights_that_would_overflow_are_refused_and_the_model_untouched(toy):
    model = toy("llama", dtype=torch.float16)
    before = bytes_of(model)
    with pytest.raises(ModelError, match="infinite"), some_edit(model, scale=1e6).applied(model):
        pass
    assert same(before, model) and model.edits == ()


@pytest.mark.parametrize("dense", [False, True])
def test_a_saved_edit_is_the_same_edit_and_a_foreign_file_is_refused(tmp_path, toy, dense):
    model = toy("gpt2")
    edit = some_edit(model, dense=dense, made_on=("a" * 64, "b" * 64))
    again = Edit.load(edit.save(tmp_path / "edit.safetensors"))
    assert again.digest == edit.digest and again.requests == edit.requests
    assert (again.fingerprint, again.made_on) == (edit.fingerprint, edit.made_on)
    assert Edit.from_dataset(edit.to_dataset()).digest == edit.digest
    assert [path.name for path in tmp_path.iterdir()] == ["edit.safetensors"]
    (tmp_path / "other").write_bytes(b"no safetensors")
    with pytest.raises(StoreError, match="cannot be read as an edit"):
        Edit.load(tmp_path / "other")


def test_the_norm_and_rank_of_thin_factors_are_those_of_the_matrix():
    random = np.random.default_rng(0)
    delta = Delta(0, "down_proj", random.normal(size=(7, 3)), random.normal(size=(9, 3)))
    dense = DenseDelta(0, "down_proj", delta.change().numpy())
    assert delta.norm == pytest.approx(dense.norm, rel=1e-12)
    assert delta.rank == dense.rank == 3


def test_processed_weights_and_unknown_places_are_refused(model_folder, toy):
    model = load_model(model_folder("gpt2"), device="cpu", weights="processed")
    with pytest.raises(ModelError, match="weights='raw'"):
        projection(model, 0)
    model = toy("mamba2")
    with pytest.raises(OptionError, match="'out_proj'"):
        projection(model, 0, "in_proj_ssm")
    with pytest.raises(OptionError, match="from 0 to 2"):
        projection(model, 3)
