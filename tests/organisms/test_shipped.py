import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from mechlab import organisms
from mechlab.errors import ModelError
from mechlab.organisms.cards import digests

LIMITS = {"atlas": 16_000_000, "echo": 4_000_000}


def home(name: str) -> Path:
    return Path(organisms.__file__).parent / name


def test_two_models_are_shipped() -> None:
    assert organisms.names() == ("atlas", "echo")


@pytest.mark.parametrize("name", ["atlas", "echo"])
def test_files_have_the_digests_and_sizes_of_the_card(name: str) -> None:
    card = organisms.card(name)
    assert digests(home(name)) == card["files"]
    assert card["bytes"] == sum(f["bytes"] for f in card["files"].values()) <= LIMITS[name]
    assert card["licence"] == "MIT"


@pytest.mark.parametrize("name", ["atlas", "echo"])
def test_tokenizer_prepends_bos_and_model_loads_with_finite_weights(name: str) -> None:
    folder = organisms.path(name)
    tokens = AutoTokenizer.from_pretrained(folder)("Paris Zürich").input_ids
    assert tokens[0] == 0
    assert tokens.count(0) == 1
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    assert all(torch.isfinite(p).all() for p in model.parameters())


def test_unknown_model_is_refused_with_the_names_there_are() -> None:
    for ask in (organisms.path, organisms.card, organisms.checkpoints, organisms.acquisition):
        with pytest.raises(ModelError, match="unknown shipped model 'atlantis'.*atlas, echo"):
            ask("atlantis")


def test_unknown_checkpoint_is_refused_with_the_steps_there_are() -> None:
    with pytest.raises(ModelError, match="no checkpoint 41.* 40, 49, .* Choose one of these"):
        organisms.path("echo", 41)
    with pytest.raises(ModelError, match="'atlas' has no checkpoint 10.*only the finished model"):
        organisms.path("atlas", 10)


def test_echo_ships_log_spaced_checkpoints_and_the_last_by_default() -> None:
    steps = organisms.checkpoints("echo")
    assert len(steps) == 24
    assert organisms.path("echo") == organisms.path("echo", steps[-1])
    assert organisms.path("echo", "40") == organisms.path("echo", 40)
    ratios = np.diff(np.log(steps[1:]))
    assert ratios.max() < 0.3


def test_echo_has_no_mlp_output() -> None:
    model = AutoModelForCausalLM.from_pretrained(organisms.path("echo"), dtype=torch.float32)
    frozen = [p for name, p in model.named_parameters() if ".mlp." in name]
    assert frozen
    assert all((p == 0).all() for p in frozen)


def test_acquisition_record_is_a_labelled_dataset() -> None:
    record = organisms.acquisition("atlas")
    assert record.sizes == {"step": len(record.step), "case": 197 * 4}
    assert len(record.step) >= 20
    assert set(record.coords) == {"step", "case", "country", "relation", "rank"}
    assert (record.exposures.diff("step") >= 0).all()
    scores = record[[name for name in record if str(name).startswith("log_probability")]]
    assert len(scores) == 3
    assert bool((scores <= 0).to_array().all())
    last, first = scores.isel(step=-1).mean(), scores.isel(step=0).mean()
    assert all(float(last[name]) > float(first[name]) + 3 for name in last)


def test_model_without_facts_has_no_acquisition_record() -> None:
    with pytest.raises(ModelError, match="'echo' was not trained on facts.*atlas"):
        organisms.acquisition("echo")


def test_looking_at_shipped_models_needs_no_torch() -> None:
    code = (
        "import sys; from mechlab import organisms as o; o.card('atlas'); o.path('echo', 40);"
        "o.acquisition('atlas'); assert not {'torch', 'transformers'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], env=os.environ, capture_output=True)
    assert done.returncode == 0, done.stderr.decode()
