"""Equal models have equal fingerprints; anything that changes numbers changes them."""

import shutil
import time

import pytest
import torch
import toys

from mechlab.models import load_model, wrap_model
from mechlab.models.fingerprint import bare_weights, tokenizer_digest, weight_digest


def test_two_loads_are_equal(model_folder, family: str) -> None:
    folder = model_folder(family)
    one, two = (load_model(folder, device="cpu") for _ in range(2))
    assert one.fingerprint == two.fingerprint and len(one.fingerprint) == 64
    assert one.provenance == two.provenance


def test_the_place_does_not_count_but_the_name_does(model_folder, tmp_path) -> None:
    here = shutil.copytree(model_folder("gpt2"), tmp_path / "a" / "mine")
    there = shutil.copytree(here, tmp_path / "b" / "mine")
    other = shutil.copytree(here, tmp_path / "other")
    one, two, three = (load_model(path, device="cpu") for path in (here, there, other))
    assert one.fingerprint == two.fingerprint != three.fingerprint
    assert str(tmp_path) not in str(one.provenance.values())


def test_the_device_does_not_count(fresh_model) -> None:
    one, two = fresh_model("gpt2"), fresh_model("gpt2")
    two.device = torch.device("cuda", 3)
    assert one.fingerprint == two.fingerprint
    assert two.provenance["device"] == "cuda:3"


def test_one_bit_of_one_weight_counts(family: str) -> None:
    hf = toys.make_hf(family)
    with torch.no_grad():
        weight = hf.get_output_embeddings().weight
        bits = weight.view(torch.int32)
        bits[3, 5] ^= 1
    changed = wrap_model(hf, toys.make_tokenizer(), name="toy")
    same = wrap_model(toys.make_hf(family), toys.make_tokenizer(), name="toy")
    assert changed.fingerprint != same.fingerprint
    assert changed.provenance["weight_digest"] != same.provenance["weight_digest"]
    assert changed.provenance["tokenizer_digest"] == same.provenance["tokenizer_digest"]


@pytest.mark.parametrize(
    "options",
    [
        {"dtype": "bfloat16"},
        {"dtype": "float16"},
        {"prepend_bos": False},
        {"weights": "processed"},
    ],
)
def test_what_changes_numbers_counts(model_folder, options: dict[str, object]) -> None:
    plain = load_model(model_folder("gpt2"), device="cpu")
    other = load_model(model_folder("gpt2"), device="cpu", **options)
    assert plain.fingerprint != other.fingerprint


def test_the_tokenizer_counts(fresh_model) -> None:
    assert fresh_model("gpt2", "words").fingerprint != fresh_model("gpt2", "bpe").fingerprint
    tokenizer = toys.make_tokenizer("words")
    before = tokenizer_digest(tokenizer)
    tokenizer(["Rome", "The city of Rome"], padding=True, truncation=True, max_length=3)
    assert tokenizer_digest(tokenizer) == before  # padding is a setting of the last call
    tokenizer.add_tokens(["quokka"])
    assert tokenizer_digest(tokenizer) != before


def test_edits_in_force_count(fresh_model) -> None:
    model = fresh_model("gpt2")
    before = model.fingerprint
    model.edits = ("abc",)
    assert model.fingerprint != before and model.provenance["edits"] == "abc"
    model.edits = ()
    assert model.fingerprint == before


def test_wrapping_does_not_change_the_digest(family: str) -> None:
    hf = toys.make_hf(family)
    plain = weight_digest(bare_weights(hf))
    assert wrap_model(hf, toys.make_tokenizer()).provenance["weight_digest"] == plain


def test_processed_weights_keep_the_digest_of_what_was_loaded(model_folder) -> None:
    raw, processed = (
        load_model(model_folder("gpt2"), device="cpu", weights=kind)
        for kind in ("raw", "processed")
    )
    assert raw.provenance["weight_digest"] == processed.provenance["weight_digest"]


def test_tied_weights_count_once() -> None:
    hf = toys.make_hf("gpt2")
    assert hf.lm_head.weight is hf.transformer.wte.weight
    names = set(bare_weights(hf))
    assert len(names & {"lm_head.weight", "transformer.wte.weight"}) == 1


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.int64])
def test_dtype_shape_and_name_count(dtype: torch.dtype) -> None:
    tensor = torch.arange(6).to(dtype)
    digests = {
        weight_digest(weights)
        for weights in (
            {"a": tensor},
            {"b": tensor},
            {"a": tensor.reshape(2, 3)},
            {"a": tensor.reshape(3, 2).T},
            {"a": torch.zeros(6).to(dtype)},
            {"a": torch.zeros(()).to(dtype)},
            {"a": torch.zeros(0).to(dtype)},
        )
    }
    assert len(digests) == 7
    assert weight_digest({"a": tensor}) == weight_digest({"a": tensor.clone()})


@pytest.mark.slow  # a time, which depends on the machine
def test_half_a_gigabyte_costs_less_than_two_seconds_of_work() -> None:
    weights = {f"w{i}": torch.zeros(16_000_000) for i in range(2)}  # 128 MB, a quarter of it
    start = time.process_time()  # not the clock on the wall: other tests may be running
    weight_digest(weights)
    assert time.process_time() - start < 2 / 4
