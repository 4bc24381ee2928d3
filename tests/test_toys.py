"""Toys must be good enough to catch errors: deterministic, lively, and what they claim to be."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import toys

from mechlab import errors, models

TEXT = "Paris is the capital of France w1 w2"


def test_same_seed_same_weights_and_another_seed_others(family: str) -> None:
    first, again, other = (toys.make_hf(family, seed=seed).state_dict() for seed in (0, 0, 1))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert any(not torch.equal(first[name], other[name]) for name in first)


@torch.no_grad()
def test_every_vector_and_matrix_matters(family: str) -> None:
    """Zeroing any one parameter moves the logits: nothing in a toy is decoration."""
    model, tokens = toys.make_hf(family), torch.tensor([[0, 20, 30, 40, 50, 60]])
    before = model(tokens, use_cache=False).logits
    for name, parameter in model.named_parameters():
        kept = parameter.clone()
        parameter.zero_()
        change = float((model(tokens, use_cache=False).logits - before).abs().max())
        parameter.copy_(kept)
        # A key bias shifts every score of a query alike, so a softmax cannot see it: it hides
        # inside the fused biases and is no exception here.
        assert change > 1e-3, name


def test_both_tokenizers_cover_the_models_and_put_bos_in_front() -> None:
    for kind in ("words", "bpe"):
        tokenizer = toys.make_tokenizer(kind)  # type: ignore[arg-type]
        assert len(tokenizer) == toys.N_VOCAB
        assert tokenizer(TEXT).input_ids[0] == tokenizer.bos_token_id == 0
    assert len(toys.make_tokenizer("words")(TEXT).input_ids) == 9
    pieces = toys.make_tokenizer("bpe").tokenize(" Zanzibar")
    assert len(pieces) > 2
    assert "".join(pieces) == "ĠZanzibar"


@torch.no_grad()
def test_a_saved_folder_holds_the_same_model(
    family: str, model_folder: Callable[..., Path], toy_model: Callable[..., models.Model]
) -> None:
    loaded = models.load_model(str(model_folder(family)), device="cpu")
    batch = loaded.tokenize([TEXT])
    shared = toy_model(family)
    assert torch.equal(batch.tokens, shared.tokenize([TEXT]).tokens)
    assert torch.equal(loaded.bridge(batch.tokens), shared.bridge(batch.tokens))


def test_shared_toys_are_made_once_and_fresh_ones_every_time(
    toy_model: Callable[..., models.Model], fresh_model: Callable[..., models.Model]
) -> None:
    assert toy_model("gpt2") is toy_model("gpt2")
    assert toy_model("gpt2", "bpe") is not toy_model("gpt2")
    assert fresh_model("gpt2").fingerprint == toy_model("gpt2").fingerprint
    assert fresh_model("gpt2", seed=1).fingerprint != toy_model("gpt2").fingerprint
    with pytest.raises(errors.PromptError, match="no token"):
        toy_model("gpt2").tokenize(["Zanzibar"])
