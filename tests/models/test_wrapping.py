"""A model in memory becomes a `Model`: five families, both BOS rules, nothing lost."""

import copy

import pytest
import torch
import toys
import transformers

from mechlab.errors import ModelError
from mechlab.models import wrap_model


def test_the_shape_is_that_of_the_architecture(toy_model, family: str) -> None:
    model = toy_model(family)
    attention = family in toys.ATTENTION_FAMILIES
    assert model.has_attention is attention
    assert model.n_layers == toys.N_LAYERS and model.d_model == toys.D_MODEL
    assert model.d_vocab == toys.N_VOCAB
    assert model.n_heads == (toys.N_HEADS if attention else None)
    assert model.d_head == (toys.D_HEAD if attention else None)
    kv_heads = {"gpt2": toys.N_HEADS, "neox": toys.N_HEADS, "llama": toys.N_KV_HEADS}
    assert model.n_kv_heads == kv_heads.get(family)
    assert model.n_ctx == (128 if attention else None)
    assert model.family == ("gpt_neox" if family == "neox" else family)
    assert model.dtype is torch.float32 and model.device.type == "cpu"
    assert repr(model).startswith(f"Model('toy-{family}', {model.family}, 3 layers x 64, float32")


def test_the_bridge_computes_what_hugging_face_computes(toy_model, family: str) -> None:
    model = toy_model(family)
    tokens = model.tokenize("The capital of France is Paris").tokens
    with torch.no_grad():
        plain = toys.make_hf(family)(tokens).logits
        assert torch.allclose(model.bridge(tokens), plain, atol=1e-5, rtol=0)
        assert torch.allclose(model.hf(tokens).logits, plain, atol=1e-5, rtol=0)


def test_the_model_is_frozen_and_in_evaluation_mode(toy_model, family: str) -> None:
    model = toy_model(family)
    parameters = [*model.hf.parameters(), *model.bridge.parameters()]
    assert not any(parameter.requires_grad for parameter in parameters)
    assert not any(module.training for module in [*model.hf.modules(), *model.bridge.modules()])


def test_a_training_model_with_dropout_is_switched_to_evaluation() -> None:
    hf = toys.make_hf("gpt2", n_layers=1).train()
    model = wrap_model(hf, toys.make_tokenizer())
    tokens = model.tokenize("The city of Paris").tokens
    with torch.no_grad():
        assert torch.equal(model.bridge(tokens), model.bridge(tokens))


@pytest.mark.parametrize("named", [True, False])
def test_a_tokenizer_made_in_memory_wraps_and_stays_as_it_was(named: bool) -> None:
    tokenizer = toys.make_tokenizer("words")
    if not named:  # the state in which TransformerLens alone raises KeyError('name_or_path')
        tokenizer.init_kwargs.pop("name_or_path")
        tokenizer.init_kwargs.pop("add_bos_token")
    before = copy.deepcopy(tokenizer.init_kwargs)
    model = wrap_model(toys.make_hf("gpt2", n_layers=1), tokenizer)
    assert model.prepend_bos and model.tokenizer is tokenizer
    assert tokenizer.init_kwargs == before


def test_missing_special_tokens_are_not_added_to_the_callers_tokenizer() -> None:
    tokenizer = toys.make_tokenizer("words")
    tokenizer.pad_token = tokenizer.eos_token = None
    model = wrap_model(toys.make_hf("gpt2", n_layers=1), tokenizer)
    assert tokenizer.eos_token is None and len(tokenizer) == toys.N_VOCAB
    batch = model.tokenize(["Rome", "The city of Rome"])
    assert batch.tokens[0, 0] == 0 and batch.mask[0, 0] == 0


@pytest.mark.parametrize("put", [True, False])
def test_the_bos_rule_can_be_set_and_the_bridge_follows(put: bool) -> None:
    model = wrap_model(
        toys.make_hf("neox", n_layers=1), toys.make_tokenizer("bpe"), prepend_bos=put
    )
    tokens = model.tokenize("The city of").tokens
    assert (tokens[0, 0] == 0) == put == model.prepend_bos
    assert torch.equal(model.bridge.to_tokens("The city of"), tokens)


def test_attention_is_switched_to_eager() -> None:
    hf = toys.make_hf("llama", n_layers=1)
    hf.set_attn_implementation("sdpa")
    assert wrap_model(hf, toys.make_tokenizer()).provenance["attention"] == "eager"


def test_wrapping_twice_gives_the_same_model() -> None:
    hf = toys.make_hf("gpt2", n_layers=2)
    first = wrap_model(hf, toys.make_tokenizer())
    tokens = first.tokenize("The city of Rome").tokens
    with torch.no_grad():
        before = first.bridge(tokens)
        second = wrap_model(hf, toys.make_tokenizer())
        assert torch.equal(second.bridge(tokens), before)
    assert first.fingerprint == second.fingerprint


def test_weights_that_are_not_finite_are_refused() -> None:
    hf = toys.make_hf("llama", n_layers=2)
    with torch.no_grad():
        hf.model.layers[1].mlp.up_proj.weight[0, 0] = float("nan")
    with pytest.raises(ModelError, match=r"toy has weights.*\n  model.layers.1.mlp.up_proj.weight"):
        wrap_model(hf, toys.make_tokenizer(), name="toy")


def test_an_architecture_without_an_adapter_is_refused_by_name(monkeypatch) -> None:
    hf = toys.make_hf("llama", n_layers=1)
    hf.config.architectures = ["NobodyForCausalLM"]
    hf.config.model_type = "nobody"
    with pytest.raises(ModelError, match=r"cannot wrap m \(nobody\)") as caught:
        wrap_model(hf, toys.make_tokenizer(), name="m")
    assert caught.value.__cause__ is not None


def test_checks_are_empty_until_the_engine_fills_them(fresh_model) -> None:
    model = fresh_model("gpt2")
    assert model.checks is None and model.sites is None and model.parallel_blocks is None

    class Checks:
        sites = {"resid_post": "verified"}
        parallel_blocks = False

    model.checks = Checks()
    assert model.sites == {"resid_post": "verified"} and model.parallel_blocks is False


def test_wrapping_prints_nothing(capfd) -> None:
    transformers.utils.logging.set_verbosity_warning()
    wrap_model(toys.make_hf("llama", n_layers=1), toys.make_tokenizer())
    assert capfd.readouterr() == ("", "")
    assert transformers.utils.logging.get_verbosity() == transformers.logging.WARNING
