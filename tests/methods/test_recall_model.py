"""CMR of Polyn et al.: theorems about its context, its likelihood by another route, its fit."""

from dataclasses import replace
from itertools import permutations

import numpy as np
import pytest

import mechlab as ml
from mechlab.methods.recall.equations import drift, log_choice, stop_probability

PLAIN = ml.CMR(phi_s=0, beta_start=0, gamma_fc=0)
VARIANTS = [
    ml.CMR(theta_s=0.05),
    ml.CMR(association="previous", gamma_fc=0.6, phi_s=2, beta_dist=0.4, theta_s=0.1),
    ml.CMR(choice="power", power=1.7, gamma_cf=0.6, theta_s=0.1),
    ml.CMR(stopping="none", choice="power", beta_rec=0.4),
]


def all_recalls(items: int) -> list[list[int]]:
    """Every sequence of different items, the empty one included."""
    every = range(1, items + 1)
    return [list(some) for count in range(items + 1) for some in permutations(every, count)]


def first_recall(model: ml.CMR, items: int) -> np.ndarray:
    """Return the probability of first recall, up to a factor, without any drawing."""
    alone = ml.prompts.recall_sequences([[i + 1] for i in range(items)], list_length=items)
    return np.exp(model.log_likelihood(alone).values)


# --- context --------------------------------------------------------------------------------------


def test_drift_keeps_context_at_length_1_and_beta_says_how_far_it_goes() -> None:
    random = np.random.default_rng(0)
    context, entering = (
        v / np.linalg.norm(v, axis=-1, keepdims=True) for v in random.normal(size=(2, 500, 6))
    )
    for beta in (0.0, 0.3, 0.9, 1.0):
        moved = drift(context, entering, np.full(500, beta))
        np.testing.assert_allclose(np.linalg.norm(moved, axis=1), 1, atol=1e-12)
    np.testing.assert_allclose(drift(context, entering, np.zeros(500)), context, atol=1e-12)
    ahead = (context * entering).sum(axis=1) >= 0
    whole = drift(context[ahead], entering[ahead], np.ones(ahead.sum()))
    np.testing.assert_allclose(whole, entering[ahead], atol=1e-7)  # a root of rounding errors
    same = drift(context, context, np.full(500, 0.7))
    np.testing.assert_allclose(same, context, atol=1e-7)


def test_contexts_of_study_are_rho_to_the_distance_alike() -> None:
    studied = PLAIN.memory(6).studied[0]
    rho = np.sqrt(1 - PLAIN.beta_enc**2)
    steps = np.abs(np.subtract.outer(np.arange(7), np.arange(7)))
    np.testing.assert_allclose(studied @ studied.T, rho**steps, atol=1e-12)


@pytest.mark.parametrize("association", ["updated", "previous"])
def test_immediate_recall_without_primacy_favours_the_end_of_the_list(association: str) -> None:
    model = replace(PLAIN, gamma_cf=1.0, association=association)  # type: ignore[arg-type]
    memory = model.memory(7)
    support = memory.to_item[0] @ memory.start[0]
    np.testing.assert_allclose(support[1:] / support[:-1], 1 / np.sqrt(1 - 0.7**2), rtol=1e-12)
    assert (np.diff(first_recall(model, 7)) > 0).all()


def test_primacy_comes_from_phi_or_from_the_context_of_the_start() -> None:
    without = first_recall(PLAIN, 6)
    strong = first_recall(replace(PLAIN, phi_s=5.0), 6)
    assert strong[0] / strong[1] > without[0] / without[1]
    assert without.argmin() == 0
    assert first_recall(replace(PLAIN, beta_start=1.0), 6).argmax() == 0


def test_what_an_item_brings_back_is_forward_only_or_symmetric() -> None:
    """Its own unit is in the contexts after it alone; its studied context is shared both ways."""
    base = ml.CMR(gamma_cf=1, phi_s=0)
    forward, both = (replace(base, gamma_fc=g).memory(6) for g in (0.0, 1.0))
    cue = forward.brought[0] @ forward.to_item[0].T
    assert (np.tril(cue, -1) == 0).all() and (np.triu(cue)[np.triu_indices(6)] > 0).all()
    cue = both.brought[0] @ both.to_item[0].T
    np.testing.assert_allclose(cue, cue.T, atol=1e-12)

    def asymmetry(gamma_fc: float) -> float:
        model = ml.CMR(gamma_fc=gamma_fc, gamma_cf=0.7, phi_s=0, stopping="none")
        return float(ml.recall_indices(model.simulate(1500, 8, seed=3)).asymmetry[0])

    assert asymmetry(0.0) > 0.3 > asymmetry(1.0) + 0.1


# --- likelihood -----------------------------------------------------------------------------------


@pytest.mark.parametrize("model", VARIANTS)
def test_all_recalls_of_a_list_have_probability_1_together(model: ml.CMR) -> None:
    every = ml.prompts.recall_sequences(all_recalls(3), list_length=3)
    assert np.exp(model.log_likelihood(every)).sum().item() == pytest.approx(1, abs=1e-12)
    values = model.values
    for recalled in (0, 1, 2, 3):
        stop = stop_probability(recalled, 3, values, model.rules)
        assert 0 <= stop[0] <= 1 and (recalled < 3 or stop[0] == 1)


def plain_log_likelihood(model: ml.CMR, recalled: list[int], items: int) -> float:
    """One list, matrices grown by outer products, one item at a time."""
    units = np.eye(items + 2)
    to_item = np.zeros((items, items + 2))
    brings = np.zeros((items + 2, items))

    def move(context: np.ndarray, entering: np.ndarray, beta: float) -> np.ndarray:
        dot = context @ entering
        return (np.sqrt(1 + beta**2 * (dot**2 - 1)) - beta * dot) * context + beta * entering

    context = units[0]
    for i in range(items):
        before, item = context, np.eye(items)[i]
        context = move(context, units[i + 1], model.beta_enc)
        bound = context if model.association == "updated" else before
        phi = 1 + model.phi_s * np.exp(-model.phi_d * i)
        to_item += np.outer(item, (1 - model.gamma_cf) * units[i + 1])
        to_item += model.gamma_cf * phi * np.outer(item, bound)
        brings += np.outer((1 - model.gamma_fc) * units[i + 1] + model.gamma_fc * bound, item)
    context = move(context, units[-1], model.beta_dist)
    context = move(context, units[0], model.beta_start)
    left, total = list(range(items)), 0.0
    for count, item in enumerate([*(r - 1 for r in recalled), None]):
        stop = min(1.0, model.theta_s * np.exp(model.theta_r * count))
        stop = 0.0 if model.stopping == "none" else stop
        stop = stop if left else 1.0
        if item is None:
            return total + float(np.log(stop)) if stop else -np.inf
        support = to_item @ context
        scores = np.exp(support / model.temperature)
        scores = scores if model.choice == "softmax" else support**model.power
        total += float(np.log(1 - stop) + np.log(scores[item] / scores[left].sum()))
        left.remove(item)
        entering = brings[:, item] / np.linalg.norm(brings[:, item])
        context = move(context, entering, model.beta_rec)
    raise AssertionError


@pytest.mark.parametrize("model", VARIANTS)
def test_the_likelihood_agrees_with_a_plain_model(model: ml.CMR) -> None:
    data = model.simulate(12, 5, seed=1)
    rows = [row[row > 0].tolist() for row in data.values]
    expected = [plain_log_likelihood(model, row, 5) for row in rows]
    np.testing.assert_allclose(model.log_likelihood(data), expected, rtol=1e-10)


def test_recalls_are_simulated_as_often_as_they_are_likely() -> None:
    model, n = VARIANTS[1], 20_000
    every = all_recalls(3)
    expected = np.exp(model.log_likelihood(ml.prompts.recall_sequences(every, list_length=3)))
    drawn = model.simulate(n, 3, seed=5).values
    counts = np.array([(drawn == row + [-1] * (3 - len(row))).all(axis=1).sum() for row in every])
    assert counts.sum() == n
    error = np.sqrt(n * expected * (1 - expected))
    assert (np.abs(counts - n * expected) < 4.5 * error + 1e-9).all()
    np.testing.assert_array_equal(model.simulate(7, 4, seed=2), model.simulate(7, 4, seed=2))


def test_intrusions_and_repeats_are_passed_over() -> None:
    spoiled = ml.prompts.recall_sequences([[0, 3, 3, 1, 0]], list_length=4)
    plain = ml.prompts.recall_sequences([[3, 1]], list_length=4)
    assert ml.CMR().log_likelihood(spoiled).item() == ml.CMR().log_likelihood(plain).item()


def test_the_power_rule_without_support_draws_evenly() -> None:
    model = replace(VARIANTS[2], power=2.0)
    available = np.array([[True, False, True]])
    found = log_choice(np.zeros((1, 1, 3)), available, model.values, model.rules)
    np.testing.assert_allclose(np.exp(found[0, 0]), [0.5, 0, 0.5])


# --- fit ------------------------------------------------------------------------------------------


def test_a_fit_finds_what_was_simulated_for_each_subject_and_pooled() -> None:
    truth = {"beta_enc": 0.5, "beta_rec": 0.7}
    base = ml.CMR(gamma_cf=0.5)
    data = replace(base, **truth).simulate(80, 8, seed=4)
    options = {"model": base, "free": tuple(truth), "population": 6, "generations": 30}
    pooled = ml.fit_recalls(data, **options)
    assert pooled.subject.values.tolist() == ["all"] and pooled.converged.all()
    for name, value in truth.items():
        assert float(pooled[name][0]) == pytest.approx(value, abs=0.08)
    own = float(replace(base, **truth).log_likelihood(data).sum())
    assert float(pooled.log_likelihood[0]) >= own
    found = ml.fitted_model(pooled)
    again = float(found.log_likelihood(data).sum())
    assert float(pooled.log_likelihood[0]) == pytest.approx(again, abs=1e-9)
    assert found.gamma_cf == 0.5
    halves = data.assign_coords(subject=("list", ["a"] * 40 + ["b"] * 40))
    each = ml.fit_recalls(halves, by="subject", **options)
    assert each.subject.values.tolist() == ["a", "b"] and each.lists.values.tolist() == [40, 40]
    assert float(each.log_likelihood.sum()) >= float(pooled.log_likelihood[0]) - 1e-6
    with pytest.raises(ml.OptionError, match="subject=None is not in this fit. Allowed: a, b"):
        ml.fitted_model(each)


def test_a_wrong_option_of_a_fit_is_told_with_all_others() -> None:
    data = ml.prompts.recall_sequences([[1]], list_length=2)
    with pytest.raises(ml.OptionError) as caught:
        ml.fit_recalls(
            data,
            free=("beta", "power", "beta_rec", "beta_rec"),
            by="list",  # type: ignore[arg-type]
            bounds={"gamma_fc": (0.5, 0.2)},
            population=0,
        )
    for told in ("'beta'", "none twice", "power", "by='list'", "0.5 to 0.2", "population=0"):
        assert told in str(caught.value)
    assert "gamma_fc" in str(caught.value)


def test_a_model_out_of_range_is_refused() -> None:
    with pytest.raises(ml.OptionError, match="beta_enc=1.2, phi_s=nan, temperature=0, choice='ra"):
        ml.CMR(beta_enc=1.2, temperature=0, phi_s=float("nan"), choice="race")  # type: ignore[arg-type]
    with pytest.raises(ml.OptionError, match=r"n_lists=0 \(from 1\), list_length=2.5"):
        ml.CMR().simulate(0, 2.5)  # type: ignore[arg-type]


@pytest.mark.slow
def test_twenty_simulated_experiments_are_recovered_within_the_stated_error() -> None:
    """Root mean squared errors of 200 lists of 12 items, truths drawn over these ranges.

    Measured: 0.019, 0.018, 0.074, 0.023, 0.51, 0.005, 0.023 in the order below.
    """
    ranges = {
        "beta_enc": (0.3, 0.9, 0.03),
        "beta_rec": (0.3, 0.95, 0.03),
        "beta_start": (0.1, 0.7, 0.12),
        "gamma_fc": (0.1, 0.7, 0.035),
        "phi_s": (0.5, 4.0, 0.8),
        "theta_s": (0.005, 0.05, 0.008),
        "theta_r": (0.1, 0.3, 0.035),
    }
    base, errors = ml.CMR(gamma_cf=0.5), []
    for seed in range(20):
        random = np.random.default_rng(seed)
        truth = {name: float(random.uniform(low, high)) for name, (low, high, _) in ranges.items()}
        data = replace(base, **truth).simulate(200, 12, seed=seed)
        fit = ml.fit_recalls(data, model=base, seed=seed)
        own = float(replace(base, **truth).log_likelihood(data).sum())
        assert float(fit.log_likelihood[0]) >= own, "the search missed the best setting"
        errors.append([float(fit[name][0]) - truth[name] for name in ranges])
    error = np.sqrt((np.array(errors) ** 2).mean(axis=0))
    stated = {name: most for name, (_, _, most) in ranges.items()}
    assert (error <= np.array(list(stated.values()))).all(), dict(zip(stated, error, strict=True))
