"""Each metric against what it is by definition, and what must not change it."""

import math

import pytest
import torch

from mechlab.errors import OptionError
from mechlab.metrics import METRICS, kl_divergence, logit_diff, named_metric, probability, rank

LOGITS = torch.tensor([[math.log(1), math.log(2), math.log(5)], [0.0, 3.0, 1.0]])
ANSWERS = torch.tensor([[1, 2], [0, 1]])


def test_probability_is_the_share_of_the_answer():
    assert probability(LOGITS, ANSWERS)[0] == pytest.approx(2 / 8)


def test_log_probability_is_its_logarithm():
    expected = probability(LOGITS, ANSWERS).log()
    torch.testing.assert_close(METRICS["log_probability"](LOGITS, ANSWERS), expected)


def test_logit_diff_changes_sign_when_the_answers_change_places():
    there, back = logit_diff(LOGITS, ANSWERS), logit_diff(LOGITS, ANSWERS.flip(1))
    torch.testing.assert_close(there, torch.tensor([math.log(2 / 5), -3.0]))
    torch.testing.assert_close(there, -back)


def test_rank_counts_the_tokens_above():
    assert rank(LOGITS, ANSWERS).tolist() == [1.0, 2.0]
    assert rank(LOGITS, LOGITS.argmax(1, keepdim=True)).tolist() == [0.0, 0.0]


def test_divergence_is_zero_from_itself_and_positive_otherwise():
    torch.testing.assert_close(kl_divergence(LOGITS, LOGITS), torch.zeros(2))
    assert (kl_divergence(LOGITS, LOGITS.flip(1)) > 0.01).all()


def test_divergence_is_taken_from_the_reference():
    reference, row = torch.tensor([[0.0, 0.0]]), torch.tensor([[math.log(3), 0.0]])
    expected = 0.5 * math.log(0.5 / 0.75) + 0.5 * math.log(0.5 / 0.25)
    assert kl_divergence(row, reference).item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("name", sorted(METRICS))
def test_a_constant_added_to_all_logits_changes_nothing(name):
    given = LOGITS.flip(1) if name == "kl_divergence" else ANSWERS
    torch.testing.assert_close(METRICS[name](LOGITS + 7, given), METRICS[name](LOGITS, given))


@pytest.mark.parametrize("name", sorted(METRICS))
def test_every_metric_gives_one_float32_number_per_row_in_any_precision(name):
    logits = LOGITS.to(torch.bfloat16)
    found = METRICS[name](logits, logits if name == "kl_divergence" else ANSWERS)
    assert (found.shape, found.dtype) == ((2,), torch.float32)


def test_an_unknown_metric_is_refused_with_those_there_are():
    with pytest.raises(OptionError, match="unknown metric 'prob'. Metrics: kl_divergence, "):
        named_metric("prob")
    assert named_metric("rank") is named_metric(rank) is rank


def test_a_difference_needs_two_answers():
    with pytest.raises(OptionError, match="an answer and a wrong answer"):
        logit_diff(LOGITS, ANSWERS[:, :1])
