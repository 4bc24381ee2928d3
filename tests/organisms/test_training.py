from pathlib import Path

import numpy as np
import pytest
import torch
from toys import make_hf

from mechlab.organisms.echo import EchoRecipe, build_echo, echo_batch, train_echo
from mechlab.organisms.language_training import Schedule, train_language_model
from mechlab.organisms.training import Recipe, build_model, train_atlas

TINY = Recipe(steps=4, tail=0, layers=1, width=16, heads=2, inner=16, vocabulary=512, warmup=2)


def parameters(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: p.detach().clone() for name, p in model.named_parameters()}


def same(one: torch.nn.Module, other: torch.nn.Module) -> bool:
    first, second = parameters(one), parameters(other)
    return all(torch.equal(first[name], second[name]) for name in first)


def test_resumed_atlas_training_is_bitwise_that_of_one_run(tmp_path: Path) -> None:
    options = {"compiled": False, "measured": False}
    whole = train_atlas(tmp_path / "whole", TINY, **options)  # type: ignore[arg-type]
    train_atlas(tmp_path / "parts", TINY, stop=2, **options)  # type: ignore[arg-type]
    parts = train_atlas(tmp_path / "parts", TINY, resume=True, **options)  # type: ignore[arg-type]
    assert parts.step == 4
    assert same(whole.model, parts.model)
    assert (whole.exposures == parts.exposures).all()
    assert not same(whole.model, build_model(TINY))  # control: training did change the weights


def test_resumed_echo_training_is_bitwise_that_of_one_run(tmp_path: Path) -> None:
    recipe = EchoRecipe(steps=4, rows=2, width=16, heads=2, first_checkpoint=1)
    whole = train_echo(tmp_path / "whole", recipe)
    train_echo(tmp_path / "parts", recipe, stop=2)
    parts = train_echo(tmp_path / "parts", recipe, resume=True)
    assert same(whole, parts)
    assert not same(whole, build_echo(recipe))
    kept = sorted(p.name for p in (tmp_path / "parts" / "checkpoints").iterdir())
    assert kept == sorted(p.name for p in (tmp_path / "whole" / "checkpoints").iterdir())


def test_echo_rows_repeat_one_sequence_of_distinct_tokens() -> None:
    tokens, repeated = echo_batch(EchoRecipe(), 0)
    for row, scored in zip(tokens, repeated, strict=True):
        length = int((scored == 0).sum())
        assert len(set(row[1 : length + 1])) == length
        assert (row[length + 1 :] == row[1 : len(row) - length]).all()


def test_learning_rate_warms_up_falls_and_starts_anew_for_the_tail() -> None:
    recipe = Recipe()
    rates = [recipe.rate(step) for step in range(recipe.total)]
    assert all(a < b for a, b in zip(rates[:199], rates[1:200], strict=True))
    assert rates[199] == recipe.learning_rate == max(rates)
    assert all(a > b for a, b in zip(rates[200:4399], rates[201:4400], strict=True))
    assert rates[4399] == pytest.approx(0.05 * recipe.learning_rate, rel=0.01)
    assert rates[4400] == recipe.tail_rate
    assert rates[-1] == pytest.approx(0.05 * recipe.tail_rate, rel=0.05)


def test_a_language_model_resumes_bitwise_and_learns(tmp_path: Path) -> None:
    schedule = Schedule(12, learning_rate=0.01, warmup=2)
    rows = np.random.default_rng(0).integers(3, 50, size=(4, 9))

    def batch(step: int) -> tuple[np.ndarray, np.ndarray]:
        return np.roll(rows, step, axis=0), np.ones((4, 8), dtype=np.float32)

    whole, parts = make_hf("llama", n_layers=1), make_hf("llama", n_layers=1)
    losses = train_language_model(whole, batch, schedule, tmp_path / "whole")
    begun = train_language_model(parts, batch, schedule, tmp_path / "parts", stop=5)
    parts = make_hf("llama", n_layers=1)
    seen: list[int] = []
    again = train_language_model(
        parts, batch, schedule, tmp_path / "parts", report=lambda step, _: seen.append(step)
    )
    assert same(whole, parts) and seen == list(range(6, 13))
    assert (again == losses).all() and (begun == losses[:5]).all()
    assert losses[-1] < 0.7 * losses[0]


def test_a_tokens_weight_decides_whether_it_is_learned(tmp_path: Path) -> None:
    rows = np.random.default_rng(0).integers(3, 50, size=(4, 9))
    weights = np.zeros((4, 8), dtype=np.float32)
    weights[:, :4] = 1.0
    model = make_hf("llama", n_layers=1)
    schedule = Schedule(20, learning_rate=0.01, warmup=2)
    train_language_model(model, lambda step: (rows, weights), schedule, tmp_path)
    with torch.no_grad():
        chances = model(torch.from_numpy(rows[:, :-1])).logits.log_softmax(-1)
    held = chances.gather(2, torch.from_numpy(rows[:, 1:, None]))[..., 0].exp()
    assert held[:, :4].mean() > 0.8 and held[:, 4:].mean() < 0.3
