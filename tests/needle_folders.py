"""Saved toys that read needle prompts: random weights, the tokenizer and the context of `atlas`."""

import shutil
from pathlib import Path

import pytest
import torch
import toys
import transformers

import mechlab as ml

N_CTX, N_LAYERS = 512, 2


_MADE: dict[str, Path] = {}


def folder(family: str, factory: pytest.TempPathFactory) -> Path:
    """A saved toy of a family, written once; leave it as found."""
    if family not in _MADE:
        _MADE[family] = _written(family, factory)
    return _MADE[family]


def _written(family: str, factory: pytest.TempPathFactory) -> Path:
    path, shipped = factory.mktemp(f"{family}-needles"), Path(str(ml.organisms.path("atlas")))
    config = toys._config(family, N_LAYERS)
    config.vocab_size = ml.organisms.card("atlas")["architecture"]["vocabulary"]
    config.update({"n_positions" if family == "gpt2" else "max_position_embeddings": N_CTX})
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = transformers.AutoModelForCausalLM.from_config(config)
    toys._enliven(model, torch.Generator().manual_seed(0))
    model.save_pretrained(path)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(shipped / name, path / name)
    return path
