"""Fixtures for every test: offline, one thread, tiny random-weight models of five families."""

import inspect
import os

os.environ["HF_HUB_OFFLINE"] = "1"  # before transformers is imported: it reads this once

from collections.abc import Callable, Hashable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
import toys
from transformers import PreTrainedTokenizerFast

if TYPE_CHECKING:
    from mechlab.models import Model

torch.set_num_threads(1)  # toys are too small to share out


@pytest.fixture(params=toys.FAMILIES)
def family(request: pytest.FixtureRequest) -> str:
    """Each of the five families in turn."""
    return str(request.param)


@pytest.fixture(params=toys.ATTENTION_FAMILIES)
def attention_family(request: pytest.FixtureRequest) -> str:
    """Each family with attention in turn."""
    return str(request.param)


@pytest.fixture(scope="session")
def words_tokenizer() -> PreTrainedTokenizerFast:
    """One id per word; see `toys.make_tokenizer`."""
    return toys.make_tokenizer("words")


@pytest.fixture(scope="session")
def bpe_tokenizer() -> PreTrainedTokenizerFast:
    """Byte-level pieces; unseen names take several tokens."""
    return toys.make_tokenizer("bpe")


@pytest.fixture(scope="session")
def toy_model() -> Iterator[Callable[..., "Model"]]:
    """`toy_model(family, kind="words")`: a wrapped toy, made once and shared by all tests.

    A test that edits weights or loads hooks of its own takes `fresh_model`. At the end of the
    session every shared model must hold the weights it was made with.
    """
    shared = _Shared()

    def model(family: str, kind: str = "words") -> "Model":
        return shared.get((family, kind), lambda: _wrap(family, kind))

    yield model
    shared.check()


@pytest.fixture(scope="session")
def _loaded() -> Iterator["_Shared"]:
    shared = _Shared()
    yield shared
    shared.check()


@pytest.fixture
def loaded_once(_loaded: "_Shared", monkeypatch: pytest.MonkeyPatch) -> None:
    """A model is loaded, proved, and given an untrained twin once per session, not per test.

    What `load_model` and `untrained` return is theirs; from the second call with the same
    arguments on it is the same object, which must hold its weights at the end of the session.
    """
    import mechlab as ml
    from mechlab import models

    # Taken from the front door, which keeps what it hands out: asked only after the patch of
    # `models`, it would keep the stand-in for good.
    load, twin = ml.load_model, ml.untrained
    arguments = inspect.signature(load)

    def load_model(name: str | Path, **options: Any) -> "Model":
        asked = arguments.bind(str(name), **options)
        asked.apply_defaults()
        key = ("load", *((k, str(v)) for k, v in asked.arguments.items()))
        return _loaded.get(key, lambda: load(name, **options))

    def untrained(model: "Model", seed: int = 0) -> "Model":
        return _loaded.get(("untrained", model, seed), lambda: twin(model, seed))

    for name, function in {"load_model": load_model, "untrained": untrained}.items():
        monkeypatch.setattr(models, name, function)
        monkeypatch.setattr(ml, name, function)
    monkeypatch.setattr("mechlab.methods.checkpoints.load_model", load_model)


class _Shared:
    """Models made on demand and kept, with a copy of the weights that they were made with."""

    def __init__(self) -> None:
        self.made: dict[Hashable, tuple[Model, list[torch.Tensor]]] = {}

    def get(self, key: Hashable, make: Callable[[], "Model"]) -> "Model":
        if key not in self.made:
            model = make()
            self.made[key] = model, [p.clone() for p in model.hf.parameters()]
        return self.made[key][0]

    def check(self) -> None:
        for key, (model, weights) in self.made.items():
            then_and_now = zip(weights, model.hf.parameters(), strict=True)
            assert all(torch.equal(then, now) for then, now in then_and_now), (
                f"{key}: edits left behind"
            )


@pytest.fixture
def fresh_model() -> Callable[..., "Model"]:
    """`fresh_model(family, kind="words", **make_hf_options)`: a wrapped toy of the test's own."""
    return _wrap


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """`model_folder(family, kind="words")`: a saved toy with its tokenizer, written once."""
    made: dict[tuple[str, str], Path] = {}

    def folder(family: str, kind: str = "words") -> Path:
        if (family, kind) not in made:
            path = tmp_path_factory.mktemp(f"{family}-{kind}")
            made[family, kind] = toys.save_folder(family, path, kind=kind)
        return made[family, kind]

    return folder


def _wrap(family: str, kind: str = "words", **options: Any) -> "Model":
    from mechlab.models import wrap_model

    hf = toys.make_hf(family, **options)
    return wrap_model(hf, toys.make_tokenizer(kind), name=f"toy-{family}")
