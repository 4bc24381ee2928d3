"""Loading by name: folders, refused folders, and every error before a weight is read."""

import json
import shutil
from pathlib import Path

import pytest
import torch
import toys
from safetensors.torch import load_file, save_file

from mechlab import organisms
from mechlab.errors import ModelError, OptionError
from mechlab.models import installed_models, load_model


@pytest.fixture
def folder(model_folder, tmp_path: Path) -> Path:
    """A model folder that the test may spoil."""
    return shutil.copytree(model_folder("llama"), tmp_path / "mine")


def _edit_json(path: Path, **changes: object) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_a_folder_loads_as_it_was_saved(model_folder, family: str) -> None:
    model = load_model(str(model_folder(family)), device="cpu")
    tokens = model.tokenize("The capital of France is").tokens
    with torch.no_grad():
        plain = toys.make_hf(family)(tokens).logits
        assert torch.allclose(model.bridge(tokens), plain, atol=1e-5, rtol=0)
    assert model.name == model_folder(family).name
    assert model.provenance["source"] == "folder"


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float64"])
def test_the_precision_is_the_one_asked_for(model_folder, dtype: str) -> None:
    model = load_model(model_folder("llama"), device="cpu", dtype=dtype)
    assert {p.dtype for p in model.hf.parameters()} == {getattr(torch, dtype)}
    assert model.provenance["dtype"] == dtype
    with torch.no_grad():
        assert torch.isfinite(model.bridge(model.tokenize("The city of").tokens)).all()


def test_processed_weights_keep_log_probabilities_and_move_logits(
    model_folder, attention_family: str
) -> None:
    raw, processed = (
        load_model(model_folder(attention_family), device="cpu", weights=kind)
        for kind in ("raw", "processed")
    )
    tokens = raw.tokenize("The capital of France is").tokens
    with torch.no_grad():
        before, after = raw.bridge(tokens), processed.bridge(tokens)
    assert torch.allclose(before.log_softmax(-1), after.log_softmax(-1), atol=1e-4, rtol=0)
    assert (before - after).abs().max() > 1e-3
    assert not any(p.requires_grad for p in processed.bridge.parameters())


def test_the_bos_rule_can_be_set(model_folder) -> None:
    assert load_model(model_folder("gpt2"), device="cpu").prepend_bos
    assert not load_model(model_folder("gpt2"), device="cpu", prepend_bos=False).prepend_bos


def test_loading_prints_nothing(model_folder, capfd) -> None:
    load_model(model_folder("gpt2"), device="cpu", weights="processed")
    assert capfd.readouterr() == ("", "")


def test_pickled_weights_are_refused_with_their_names(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(
        ModelError,
        match=r"(?s)mine has only pickled weights \(pytorch_model.bin\).*save_pretrained",
    ):
        load_model(folder, device="cpu")


def test_a_pickle_beside_safetensors_is_not_read(folder: Path) -> None:
    (folder / "pytorch_model.bin").write_bytes(b"not even a pickle")
    assert load_model(folder, device="cpu").n_layers == toys.N_LAYERS


def test_weights_in_another_format_and_no_weights_are_refused(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "model.gguf")
    with pytest.raises(ModelError, match=r"another format \(model.gguf\)"):
        load_model(folder, device="cpu")
    (folder / "model.gguf").unlink()
    with pytest.raises(ModelError, match="mine has no weights"):
        load_model(folder, device="cpu")


@pytest.mark.parametrize("file", ["config.json", "tokenizer_config.json"])
def test_a_model_that_brings_code_is_refused(folder: Path, file: str) -> None:
    _edit_json(folder / file, auto_map={"AutoModelForCausalLM": "modeling.Evil"})
    (folder / "modeling.py").write_text("raise SystemExit('code from the folder ran')")
    with pytest.raises(ModelError, match=rf"own code \({file} has an auto_map: AutoModelForCausal"):
        load_model(folder, device="cpu")


def test_nan_weights_are_refused_by_name(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    weights["model.layers.2.self_attn.o_proj.weight"][1, 1] = float("nan")
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match=r"layers\.2\.self_attn\.o_proj\.weight: 1 of 4096"):
        load_model(folder, device="cpu")


def test_missing_weights_are_refused_instead_of_being_drawn(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    del weights["model.layers.0.mlp.up_proj.weight"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(
        ModelError, match=r"lacks 1 weights, such as model\.layers\.0\.mlp\.up_proj"
    ):
        load_model(folder, device="cpu")


def test_weights_of_another_shape_are_refused(folder: Path) -> None:
    _edit_json(folder / "config.json", intermediate_size=96)
    with pytest.raises(ModelError, match="the weights of mine cannot be read"):
        load_model(folder, device="cpu")


def test_damaged_weights_are_refused_with_the_cause(folder: Path) -> None:
    content = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(content[: len(content) // 2])
    with pytest.raises(ModelError, match="the weights of mine cannot be read") as caught:
        load_model(folder, device="cpu")
    assert caught.value.__cause__ is not None


def test_a_missing_tokenizer_is_refused(folder: Path) -> None:
    for file in folder.glob("tokenizer*"):
        file.unlink()
    with pytest.raises(ModelError, match="(?s)mine has no tokenizer.*tokenizer.save_pretrained"):
        load_model(folder, device="cpu")
    (folder / "vocab.json").write_text("{}")
    with pytest.raises(ModelError, match=r"none of .*vocab.json \+ merges.txt"):
        load_model(folder, device="cpu")


def test_damaged_json_is_refused(folder: Path) -> None:
    (folder / "tokenizer.json").write_text("{")
    with pytest.raises(ModelError, match="the tokenizer of mine cannot be read"):
        load_model(folder, device="cpu")
    (folder / "config.json").write_text("{")
    with pytest.raises(ModelError, match="the config.json of mine cannot be read"):
        load_model(folder, device="cpu")
    (folder / "config.json").write_text('{"model_type": "nobody-knows"}')
    (folder / "tokenizer.json").unlink()
    (folder / "vocab.txt").write_text("")
    with pytest.raises(ModelError, match="the config.json of mine cannot be read"):
        load_model(folder, device="cpu")


def test_an_unproven_architecture_is_refused_before_its_weights_are_read(folder: Path) -> None:
    _edit_json(folder / "config.json", model_type="mistral", sliding_window=16)
    (folder / "model.safetensors").write_bytes(b"")  # would not survive being read
    with pytest.raises(ModelError, match="mine .mistral. is a model with sliding-window attention"):
        load_model(folder, device="cpu")


def test_things_that_are_not_model_folders_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="has no config.json"):
        load_model(tmp_path)
    for impossible in ("~nosuchuser/x", "x" * 3000):
        with pytest.raises(ModelError, match="it cannot be a folder's name"):
            load_model(impossible)
    with pytest.raises(ModelError, match="there is no such folder"):
        load_model(tmp_path / "absent")
    (tmp_path / "file").write_text("")
    with pytest.raises(ModelError, match="it is a file, not the folder"):
        load_model(tmp_path / "file")
    with pytest.raises(ModelError, match="no name was given"):
        load_model("")


def test_a_folder_has_no_versions(folder: Path) -> None:
    with pytest.raises(OptionError, match="checkpoint=3 was given for the folder"):
        load_model(folder, checkpoint=3)
    with pytest.raises(OptionError, match="revision='main' was given for the folder"):
        load_model(folder, revision="main")


@pytest.mark.gpu
def test_a_gpu_gives_the_same_model(model_folder, family: str) -> None:
    on_cpu = load_model(model_folder(family), device="cpu")
    on_gpu = load_model(model_folder(family), device="auto")
    assert on_gpu.device.type == "cuda" and on_gpu.tokenize("The city").tokens.is_cuda
    assert on_gpu.fingerprint == on_cpu.fingerprint
    texts = ["The capital of France is", "Rome"]
    with torch.no_grad():
        here, there = (
            model.bridge(batch.tokens, attention_mask=batch.mask)[:, -1].cpu()
            for model in (on_cpu, on_gpu)
            for batch in (model.tokenize(texts),)
        )
    assert torch.allclose(here, there, atol=1e-4, rtol=0)


@pytest.fixture
def shipped(model_folder, monkeypatch) -> None:
    """Two shipped models: `pebble`, and `stone` with two checkpoints."""
    folders = {
        ("pebble", None): model_folder("gpt2"),
        ("stone", 100): model_folder("llama"),
        ("stone", 200): model_folder("gpt2"),
        ("stone", None): model_folder("gpt2"),
    }

    def path(name: str, checkpoint: int | None = None) -> Path:
        if (name, checkpoint) not in folders:
            raise ModelError(f"{name!r} has no checkpoint {checkpoint!r}.")
        return folders[name, checkpoint]

    monkeypatch.setattr(organisms, "names", lambda: ("pebble", "stone"))
    monkeypatch.setattr(organisms, "checkpoints", lambda name: (100, 200) * (name == "stone"))
    monkeypatch.setattr(organisms, "path", path)


def test_a_shipped_model_loads_by_its_name(shipped) -> None:
    model = load_model("pebble", device="cpu")
    assert model.name == "pebble" and model.family == "gpt2"
    assert model.provenance["source"] == "shipped" and model.provenance["revision"] is None


def test_a_shipped_checkpoint_is_another_model(shipped) -> None:
    early = load_model("stone", device="cpu", checkpoint=100)
    assert early.family == "llama" and early.provenance["revision"] == "100"
    with pytest.raises(ModelError, match="'stone' has no checkpoint 5"):
        load_model("stone", checkpoint=5)
    last = load_model("stone", device="cpu", checkpoint=200)
    assert load_model("stone", device="cpu").fingerprint == last.fingerprint != early.fingerprint
    with pytest.raises(OptionError, match="revision='main' was given for the shipped model"):
        load_model("pebble", revision="main")


def test_a_shipped_name_comes_before_a_folder_of_that_name(
    shipped, model_folder, tmp_path: Path, monkeypatch
) -> None:
    shutil.copytree(model_folder("neox"), tmp_path / "pebble")
    monkeypatch.chdir(tmp_path)
    assert load_model("pebble", device="cpu").family == "gpt2"
    assert load_model("./pebble", device="cpu").family == "gpt_neox"


def test_shipped_models_are_listed_first_also_when_another_is_absent(shipped) -> None:
    assert installed_models()[0].name == "pebble"
    with pytest.raises(ModelError, match=r"(?s)'pebbel' is not available.*pebble \(shipped, 0\."):
        load_model("pebbel")
