"""Architectures that are not proven are refused by name, from their configuration alone."""

import pytest
import torch
import toys
import transformers as tf

from mechlab.errors import ModelError
from mechlab.models import wrap_model
from mechlab.models.admission import check_config, check_finite

REFUSED = [
    (tf.T5Config(), "an encoder-decoder model"),
    (tf.MixtralConfig(sliding_window=None), "a mixture of experts: .*num_local_experts=8"),
    (tf.Qwen3MoeConfig(), "a mixture of experts"),
    (tf.DeepseekV3Config(), "a mixture of experts: .*n_routed_experts=256"),
    (tf.MistralConfig(sliding_window=64, max_position_embeddings=128), "sees 64 tokens of .* 128"),
    (tf.Gemma2Config(), "sliding-window attention"),
    (tf.GPTNeoConfig(), "sees 256 tokens of a context of 2048"),
    (tf.JambaConfig(num_experts=1), "a hybrid model: .*mamba"),
    (tf.FalconH1Config(), "a hybrid model: it has blocks of the kind hybrid"),
    (tf.RecurrentGemmaConfig(), "recurrent|sliding"),
    (tf.Gemma3Config(), "a model of several modalities"),
    (tf.BertConfig(architectures=["BertForMaskedLM"]), "BertForMaskedLM is not trained to predict"),
    (tf.LlamaConfig(quantization_config={"quant_method": "gptq", "bits": 4}), "quantised"),
]

ALLOWED = [
    tf.MistralConfig(sliding_window=128, max_position_embeddings=128),
    tf.MistralConfig(sliding_window=None),
    tf.Qwen2Config(sliding_window=64, use_sliding_window=False),
    tf.Phi3Config(),
    tf.OPTConfig(),
    tf.MambaConfig(),
    *(toys.make_hf(family, n_layers=1).config for family in toys.FAMILIES),
]


@pytest.mark.parametrize(("config", "reason"), REFUSED, ids=lambda x: getattr(x, "model_type", ""))
def test_unproven_kinds_are_refused_by_name(config, reason: str) -> None:
    with pytest.raises(ModelError, match=rf"(?s)some/model \({config.model_type}\) is .*{reason}"):
        check_config("some/model", config)


@pytest.mark.parametrize("config", ALLOWED, ids=lambda config: config.model_type)
def test_what_is_proven_or_harmless_is_let_in(config) -> None:
    check_config("some/model", config)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_weights_that_are_not_finite_are_named(value: float) -> None:
    weights = {"a.weight": torch.ones(3, 3), "b.bias": torch.ones(4), "steps": torch.tensor(3)}
    check_finite("m", weights)
    weights["b.bias"][2] = value
    with pytest.raises(ModelError, match=r"(?s)m has weights.*b\.bias: 1 of 4 values") as caught:
        check_finite("m", weights)
    assert "a.weight" not in str(caught.value)


def test_infinities_of_both_signs_do_not_cancel() -> None:
    weights = {"w": torch.tensor([float("inf"), -float("inf"), 1.0])}
    with pytest.raises(ModelError, match="w: 2 of 3"):
        check_finite("m", weights)


def test_large_finite_weights_are_let_in() -> None:
    check_finite("m", {"w": torch.full((64,), 60000.0, dtype=torch.float16)})
    check_finite("m", {"w": torch.full((64,), 3e38)})
    check_finite("m", {"w": torch.full((64,), 1e308, dtype=torch.float64)})  # the sum overflows


def test_many_bad_tensors_are_summarised() -> None:
    weights = {f"w{i:02}": torch.tensor([float("nan")]) for i in range(14)}
    with pytest.raises(ModelError, match=r"w09: 1 of 1 values\n  \.\.\. and 4 more tensors"):
        check_finite("m", weights)


def test_modules_that_cannot_be_run_are_refused() -> None:
    tokenizer = toys.make_tokenizer("words")
    with pytest.raises(ModelError, match="is a Linear, not a Hugging Face model"):
        wrap_model(torch.nn.Linear(2, 2), tokenizer)
    with pytest.raises(ModelError, match="LlamaModel has no head that predicts the next token"):
        wrap_model(toys.make_hf("llama", n_layers=1).model, tokenizer)
    with pytest.raises(ModelError, match="its weights lie on meta"):
        wrap_model(toys.make_hf("llama", n_layers=1).to("meta"), tokenizer)
    split = toys.make_hf("llama", n_layers=1)
    split.lm_head.to("meta")
    with pytest.raises(ModelError, match="its weights lie on cpu, meta"):
        wrap_model(split, tokenizer)
    quantised = toys.make_hf("llama", n_layers=1)
    quantised.is_quantized = True
    with pytest.raises(ModelError, match="its weights are quantised"):
        wrap_model(quantised, tokenizer)
