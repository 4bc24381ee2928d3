import math
from functools import cache

import numpy as np
import pytest

from mechlab import organisms
from mechlab.organisms import skills
from mechlab.organisms.echo import second_copy_loss
from mechlab.organisms.evaluate import GATES, missed_gates, runner_of
from mechlab.organisms.runner import Runner
from mechlab.organisms.training import Recipe, build_model


@cache
def atlas() -> Runner:
    return runner_of(organisms.path("atlas"))


@cache
def untrained() -> Runner:
    return Runner(build_model(Recipe()).eval(), atlas().tokenizer)


def test_known_answers_of_the_card_hold() -> None:
    known = organisms.card("atlas")["known answers"]
    assert len(known) >= 12
    scores = atlas().last_log_probabilities([case["prompt"] for case in known])
    for case, row in zip(known, scores, strict=True):
        token = atlas().first_token(case["answer"])
        assert row.argmax() == token, case
        assert row[token] == pytest.approx(case["log_probability"], abs=0.01)


def test_card_reaches_every_gate() -> None:
    card = organisms.card("atlas")
    assert card["missed gates"] == []
    assert missed_gates(card["skills"], GATES) == []


def test_facts_seen_and_held_out_reach_their_gates_on_a_sample() -> None:
    assert skills.fact_skill(atlas(), False, 1, every=3)["all"] >= 0.97
    assert skills.fact_skill(atlas(), True, 1, every=3)["all"] >= 0.94


def test_repeats_conflicts_and_needles_reach_their_gates_on_a_sample() -> None:
    assert skills.repeat_loss(atlas())[1] <= 0.7
    found = skills.conflict_skill(atlas(), step=3)
    assert 0.4 <= found["context"] <= 0.85
    assert found["both in top two"] >= 0.88
    assert skills.needle_skill(atlas(), 256, 32) >= 0.9


def test_an_untrained_model_of_the_same_shape_has_none_of_the_skills() -> None:
    assert skills.fact_skill(untrained(), False, 1, every=7)["all"] < 0.1
    first, second = skills.repeat_loss(untrained(), sequences=4)
    assert min(first, second) > 7
    assert skills.conflict_skill(untrained(), step=8)["both in top two"] < 0.1
    assert skills.needle_skill(untrained(), 128, 8) < 0.2


def test_scores_do_not_depend_on_how_prompts_are_batched() -> None:
    texts = ["The capital of France is", "People in Peru speak", "Kenya,", "Egypt is located in"]
    together = atlas().last_log_probabilities(texts)
    alone = np.concatenate([atlas().last_log_probabilities([text]) for text in texts])
    np.testing.assert_allclose(together, alone, atol=1e-4)


def test_needle_prompts_keep_to_their_length() -> None:
    from random import Random

    random = Random(0)
    for tokens in (64, 256, 512):
        prompt, answer = skills.needle_prompt(random, atlas(), tokens, needles=2)
        assert tokens - 25 < len(atlas().ids(prompt)) <= tokens
        assert f" {answer}." in prompt


def test_missed_gates_are_named() -> None:
    reached = {"a": 0.5, "b": {"c": 0.2}}
    assert missed_gates(reached, {"a": (0.4, 0.6), "b / c": (0.3, 1.0)}) == ["b / c"]


def test_echo_learns_induction_between_its_checkpoints() -> None:
    card = organisms.card("echo")
    before, after = card["phase change"]["steepest between checkpoints"]
    steps = (0, before, after, organisms.checkpoints("echo")[-1])
    losses = [second_copy_loss(runner_of(organisms.path("echo", s)).model) for s in steps]
    assert losses[0] == pytest.approx(math.log(259), abs=0.1)
    assert losses[1] - losses[2] > 1
    assert losses[3] < 0.05
