"""Hub models, from a cache that these tests lay out themselves; no network anywhere."""

import hashlib
import shutil
import subprocess
import sys
from pathlib import Path

import huggingface_hub
import pytest
import torch
import toys
from huggingface_hub import constants

from mechlab.errors import ModelError, OptionError
from mechlab.models import hub, installed_models, load_model

COMMIT = "0123456789abcdef0123456789abcdef01234567"
OTHER = "f" * 40


def lay_out(cache: Path, name: str, files: Path, refs: dict[str, str]) -> Path:
    """Write a model folder into a hub cache, as huggingface_hub itself does; return a snapshot."""
    root = cache / f"models--{name.replace('/', '--')}"
    (root / "blobs").mkdir(parents=True, exist_ok=True)
    for ref, commit in refs.items():
        (root / "refs").mkdir(exist_ok=True)
        (root / "refs" / ref).write_text(commit)
        snapshot = root / "snapshots" / commit
        snapshot.mkdir(parents=True, exist_ok=True)
        for file in files.iterdir():
            blob = root / "blobs" / hashlib.sha256(file.read_bytes()).hexdigest()
            shutil.copyfile(file, blob)
            (snapshot / file.name).symlink_to(Path("../../blobs") / blob.name)
    return snapshot


@pytest.fixture
def cache(tmp_path: Path, monkeypatch) -> Path:
    """An empty hub cache, and no hub."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    (tmp_path / "hub").mkdir()
    return tmp_path / "hub"


def test_a_cached_model_loads_offline(cache: Path, model_folder, family: str) -> None:
    lay_out(cache, f"somebody/tiny-{family}", model_folder(family), {"main": COMMIT})
    model = load_model(f"somebody/tiny-{family}", device="cpu")
    tokens = model.tokenize("The capital of France is").tokens
    with torch.no_grad():
        plain = toys.make_hf(family)(tokens).logits
        assert torch.allclose(model.bridge(tokens), plain, atol=1e-5, rtol=0)
    assert model.name == f"somebody/tiny-{family}"
    found = model.provenance
    assert (found["source"], found["commit"], found["revision"]) == ("hub", COMMIT, None)


def test_a_revision_and_a_checkpoint_name_the_same_version(
    cache: Path, model_folder, tmp_path: Path
) -> None:
    early = toys.save_folder("neox", tmp_path / "early", seed=7)
    lay_out(cache, "lab/steps", model_folder("neox"), {"main": COMMIT})
    lay_out(cache, "lab/steps", early, {"step1000": OTHER})
    last = load_model("lab/steps", device="cpu")
    by_revision = load_model("lab/steps", device="cpu", revision="step1000")
    by_step = load_model("lab/steps", device="cpu", checkpoint=1000)
    assert by_revision.fingerprint == by_step.fingerprint != last.fingerprint
    assert by_step.provenance["revision"] == "step1000"
    assert by_step.provenance["commit"] == OTHER
    with pytest.raises(OptionError, match="both name a version"):
        load_model("lab/steps", revision="main", checkpoint=1000)
    with pytest.raises(ModelError, match="not in the hub cache at revision 'step5'"):
        load_model("lab/steps", checkpoint=5)


def test_an_absent_model_is_refused_with_what_is_there(cache: Path, model_folder) -> None:
    lay_out(cache, "somebody/tiny", model_folder("gpt2"), {"main": COMMIT})
    with pytest.raises(ModelError) as caught:
        load_model("EleutherAI/pythia-70m")
    message = str(caught.value)
    assert "'EleutherAI/pythia-70m' is not available" in message
    assert "HF_HUB_OFFLINE is set" in message
    assert "somebody/tiny (cache, 0." in message and "MB)" in message
    assert caught.value.__cause__ is not None


@pytest.mark.parametrize("name", ["two words", "a/b/c", "-x-", "name?"])
def test_a_name_that_the_hub_does_not_allow_is_refused(cache: Path, name: str) -> None:
    with pytest.raises(ModelError, match="not a name that the hub allows"):
        load_model(name)


def test_a_cached_model_with_pickled_weights_is_refused(
    cache: Path, model_folder, tmp_path: Path
) -> None:
    files = shutil.copytree(model_folder("gpt2"), tmp_path / "files")
    (files / "model.safetensors").rename(files / "pytorch_model.bin")
    lay_out(cache, "old/model", files, {"main": COMMIT})
    with pytest.raises(ModelError, match=r"old/model has only pickled weights \(pytorch_model.bin"):
        load_model("old/model")
    assert "old/model" not in [model.name for model in installed_models()]


def test_pickled_weights_on_the_hub_are_named_without_being_fetched(
    cache: Path, model_folder, monkeypatch
) -> None:
    snapshot = lay_out(cache, "old/model", model_folder("gpt2"), {"main": COMMIT})
    (snapshot / "model.safetensors").unlink()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda *_, **__: str(snapshot))
    files = ["config.json", "pytorch_model.bin", "onnx/model.safetensors"]
    monkeypatch.setattr(huggingface_hub, "list_repo_files", lambda *_, **__: files)
    with pytest.raises(ModelError, match=r"only pickled weights \(pytorch_model.bin\)"):
        load_model("old/model")


def test_only_safetensors_and_the_tokenizer_are_fetched(cache: Path, monkeypatch) -> None:
    asked: dict[str, object] = {}

    def fetch(name: str, **options: object) -> str:
        asked.update(options, name=name)
        raise ConnectionError("no route to the hub")

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", fetch)
    with pytest.raises(ModelError, match=r"the hub cannot be reached \(ConnectionError\)"):
        load_model("somebody/tiny", revision="v1")
    files = [
        "config.json",
        "model.safetensors",
        "model-00001-of-00002.safetensors",
        "model.safetensors.index.json",
        "tokenizer.json",
        "tokenizer.model",
        "vocab.json",
        "merges.txt",
        "pytorch_model.bin",
        "modeling_custom.py",
        "onnx/model.safetensors",
        "flax_model.msgpack",
    ]
    wanted = huggingface_hub.utils.filter_repo_objects(
        files, allow_patterns=asked["allow_patterns"]
    )
    assert list(wanted) == files[:8]
    assert asked["revision"] == "v1"


def test_hub_errors_say_what_to_do() -> None:
    from huggingface_hub import errors

    class Gated(errors.GatedRepoError):
        def __init__(self) -> None:
            """Skip the web response that the parent asks for."""

    class NoRevision(errors.RevisionNotFoundError):
        def __init__(self) -> None:
            """Skip the web response that the parent asks for."""

    class NoRepository(errors.RepositoryNotFoundError):
        def __init__(self) -> None:
            """Skip the web response that the parent asks for."""

    assert "HF_TOKEN" in hub._reason(Gated(), None)
    assert "no revision 'x'" in hub._reason(NoRevision(), "x")
    assert "nor on the hub" in hub._reason(NoRepository(), None)


def test_installed_models_are_listed_with_their_size(cache: Path, model_folder) -> None:
    shipped = [model for model in installed_models() if model.source == "shipped"]
    assert installed_models() == shipped
    lay_out(cache, "z/last", model_folder("llama"), {"main": COMMIT, "copy": OTHER})
    lay_out(cache, "a/first", model_folder("gpt2"), {"main": COMMIT})
    (cache / "models--no--weights" / "snapshots" / COMMIT).mkdir(parents=True)
    found = installed_models()[len(shipped) :]
    assert [model.name for model in found] == ["a/first", "z/last"]
    size = sum(file.stat().st_size for file in model_folder("llama").iterdir())
    assert found[1].bytes == size  # two snapshots share their files
    assert [load_model(model.name, device="cpu").family for model in found] == ["gpt2", "llama"]


def test_a_fresh_process_without_cache_gives_one_clear_error(tmp_path: Path) -> None:
    code = (
        "from mechlab.errors import ModelError\n"
        "from mechlab.models import load_model\n"
        "try: load_model('gpt2')\n"
        "except ModelError as err: print(err)\n"
    )
    env = {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path), "PATH": "", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", code], env=env, capture_output=True, text=True, cwd=Path.cwd()
    )
    assert done.returncode == 0 and done.stderr == "", done.stderr
    assert done.stdout.startswith("model 'gpt2' is not available")
    assert "Present on this machine:" in done.stdout
