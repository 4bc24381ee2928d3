"""The screen and its verification: what is chosen, what agrees, what was missed."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import toys
from circuits import made
from numpy.testing import assert_allclose
from scipy import stats

from mechlab.errors import OptionError
from mechlab.methods import activation_patch, attribution_patch
from mechlab.models import Model
from mechlab.prompts import PromptPair
from mechlab.store import Store
from mechlab.workflows import screen_then_verify

ToyModel = Callable[..., Model]
PAIRS = [
    PromptPair("Paris is the capital of", "Rome was by tower near", "Paris", "Rome"),
    PromptPair("Ann was born in", "Bob speaks from in", "Madrid", "Cairo"),
]


def test_the_planted_heads_come_first_and_nothing_is_missed() -> None:
    circuit = made("conflict", "llama")
    ours = screen_then_verify(circuit.model, circuit.pairs, k=3, sample=4)
    chosen = np.argwhere(ours.chosen.values == "top").tolist()
    assert sorted(chosen) == sorted([h.layer, h.head] for h in circuit.heads.values())
    assert int((ours.chosen == "sample").sum()) == 4
    assert float(ours.rank_agreement_top) == 1.0
    assert int(ours.missed) == 0
    for role, head in circuit.heads.items():
        assert_allclose(ours.effect[:, head.layer, head.head], circuit.direct[role], atol=1e-4)


@pytest.mark.parametrize("site", ["z", "v"])
def test_the_parts_are_those_of_the_two_methods(site: str, toy_model: ToyModel) -> None:
    model, by = toy_model("llama"), "kv_head" if site == "v" else "head"
    options: Any = {"site": site, "by": by, "direction": "noising"}
    ours = screen_then_verify(model, PAIRS, k=2, sample=2, seed=4, **options)
    screen = attribution_patch(model, PAIRS, **options).effect
    exact = activation_patch(model, PAIRS, **options).effect
    assert_allclose(ours.estimate, screen, atol=1e-6)
    done = (ours.chosen != "").values
    assert done.sum() == 4
    assert_allclose(ours.effect.values[:, done], exact.values[:, done], atol=1e-5)
    assert np.isnan(ours.effect.values[:, ~done]).all()
    size = np.abs(screen.mean("prompt").values)
    top = (ours.chosen == "top").values
    assert size[top].min() >= size[~top].max()
    guess, found = (a.mean("prompt").values[done] for a in (screen, exact))
    expected = stats.spearmanr(guess, found).statistic
    assert float(ours.rank_agreement) == pytest.approx(expected)
    sizes = np.abs(exact.mean("prompt").values)
    drawn = (ours.chosen == "sample").values
    assert int(ours.missed) == int((sizes[drawn] > sizes[top].min()).sum())


def test_the_sample_depends_on_the_seed_alone(toy_model: ToyModel) -> None:
    model = toy_model("gpt2")
    runs = [screen_then_verify(model, PAIRS, k=2, sample=3, seed=s).chosen for s in (0, 0, 1)]
    assert runs[0].equals(runs[1])
    assert not runs[0].equals(runs[2])
    every = screen_then_verify(model, PAIRS, k=2, sample=99)
    assert int((every.chosen == "sample").sum()) == toys.N_LAYERS * toys.N_HEADS - 2
    assert not np.isnan(every.effect).any()
    none = screen_then_verify(model, PAIRS, k=2, sample=0)
    assert np.isnan(none.rank_agreement_sample) and int(none.missed) == 0


def test_it_can_be_stored(toy_model: ToyModel, tmp_path: Any) -> None:
    store, model = Store(tmp_path), toy_model("gpt2")
    first = store.run(screen_then_verify, model, PAIRS, k=2, sample=2)
    again = store.run(screen_then_verify, model, PAIRS, k=2, sample=2)
    assert again.identical(first)
    assert first.attrs["method"] == "screen_then_verify"


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"k": 0}, "k=0"),
        ({"sample": -1}, "sample=-1"),
        ({"positions": "each"}, "no ranking"),
        ({"by": "layer"}, "by='layer'"),
        ({"metric": "rank"}, "no gradient"),
    ],
)
def test_options_that_mean_nothing_are_refused(
    options: dict[str, Any], reason: str, toy_model: ToyModel
) -> None:
    with pytest.raises(OptionError, match=reason):
        screen_then_verify(toy_model("gpt2"), PAIRS, **options)
