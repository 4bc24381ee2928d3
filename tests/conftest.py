"""Fixtures for every test: offline, one thread, tiny random-weight models of five families."""

import os

os.environ["HF_HUB_OFFLINE"] = "1"  # before transformers is imported: it reads this once

from collections.abc import Callable, Iterator
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
    made: dict[tuple[str, str], Model] = {}
    weights: dict[tuple[str, str], list[torch.Tensor]] = {}

    def model(family: str, kind: str = "words") -> "Model":
        if (family, kind) not in made:
            made[family, kind] = _wrap(family, kind)
            weights[family, kind] = [p.clone() for p in made[family, kind].hf.parameters()]
        return made[family, kind]

    yield model
    for key, shared in made.items():
        then_and_now = zip(weights[key], shared.hf.parameters(), strict=True)
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
