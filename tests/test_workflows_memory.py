"""`memory_ablation` on a planted circuit: what is lost with its heads, with random heads."""

import induction_models as planted
import numpy as np
import pytest
import xarray as xr
from numpy.testing import assert_allclose, assert_array_equal

import mechlab as ml
from mechlab.errors import OptionError, SiteError
from mechlab.prompts import repeated_tokens, texts
from mechlab.workflows import memory_ablation
from mechlab.workflows.head_draws import matched_draws

LISTS = repeated_tokens(4, 8, pool=planted.words())
TEXTS = texts([" ".join(f"w{(i * step) % 32}" for i in range(60)) for step in (5, 7, 11, 13)])
GROUPS = {"induction": ["L1H0"], "silent": ["L1H1"], "none": []}
LOG_V = np.log(planted.N_VOCAB)


@pytest.fixture(scope="module")
def found() -> xr.Dataset:
    return memory_ablation(
        planted.induction(), LISTS, TEXTS, groups=GROUPS, draws=20, hi=50, lo=5, resamples=200
    )


def test_without_its_induction_head_the_planted_circuit_recalls_nothing(found):
    loss = found["mean"].sel(outcome="copy_loss")
    assert (loss.sel(head_set="intact") < 1).all()
    # Uniform over the vocabulary again; with its mean in place, nearly so.
    assert_allclose(loss.sel(head_set="induction", ablation="zero"), LOG_V, rtol=1e-5)
    effect = found.effect.sel(head_set="induction")
    assert (effect.sel(outcome="copy_loss") > 2.5).all()
    assert (effect.sel(outcome="recall_next") < -0.8).all()
    assert (effect.sel(outcome="icl_score") > 1).all()
    low, high = found.effect_low, found.effect_high
    assert (low <= found.effect + 1e-9).all() and (high >= found.effect - 1e-9).all()
    assert found.attrs["interval_status"] == found.attrs["icl_interval_status"] == "ok"


def test_random_heads_change_nothing_and_give_the_rank_of_the_group(found):
    random = found.sel(head_set=found.is_control)
    assert (np.abs(random.effect) < 1e-6).all()
    assert set(random.members.values) <= {"L1H2", "L1H3"}  # its layer, and none of the groups
    group = found.sel(head_set="induction")
    # Two other heads in the layer: two draws are all there are, and p is never below 1/3.
    assert_allclose(group.p_value.sel(outcome=["copy_loss", "recall_next", "icl_score"]), 1 / 3)
    assert (
        "induction: only 2 different random sets of 20, so p is never below 0.33"
        in found.attrs["draws_status"]
    )
    assert_array_equal(found.sel(head_set="silent").p_value, np.ones((5, 3)))  # negative control
    assert found.p_value.sel(head_set="intact").isnull().all()


def test_an_empty_set_leaves_everything_bitwise_as_it_was(found):
    for name in ("copy_loss", "recall_next", "recall_next_share", "icl_score"):
        assert_array_equal(found[name].sel(head_set="none"), found[name].sel(head_set="intact"))
    assert not found.effect.sel(head_set="none").any()
    assert found.p_value.sel(head_set="none").isnull().all()


def test_the_numbers_are_those_of_the_methods_alone(found):
    loss = ml.copy_loss(planted.induction(), LISTS, ablate=["L1H0"])
    mine = found.copy_loss.sel(head_set="induction", ablation="zero")
    assert_array_equal(mine, loss.loss.sel(copy=2, head_set="ablated"))
    icl = ml.icl_score(planted.induction(), TEXTS, hi=50, lo=5)
    assert_array_equal(found.icl_score.sel(head_set="intact", ablation="zero"), icl.score[:, 0])


def test_draws_match_layers_and_go_to_the_nearest_where_one_is_exhausted():
    members = ml.heads("L1H0", "L1H1", "L1H2")
    drawn = matched_draws(planted.induction(), members, 20, barred=members, seed=0)
    for heads, away in drawn.items():
        layers = [head.layer for head in heads]
        assert layers == [0, 0, 1] and away == pytest.approx(2 / 3)
        assert not set(heads) & set(members)
    assert len(drawn) == 6  # pairs of four heads of layer 0
    exact = matched_draws(planted.induction(), ml.heads("L0H1"), 20, barred=[], seed=0)
    assert len(exact) == 4 and set(exact.values()) == {0.0}
    with pytest.raises(OptionError, match="5 random heads of planted are asked for, 3 are left"):
        five = ml.heads("L0H0", "L0H1", "L0H2", "L0H3", "L1H0")
        matched_draws(planted.induction(), five, 1, barred=five, seed=0)


def test_heads_of_other_layers_are_no_control_and_give_no_p_value():
    groups = {"layer": ["L1H0", "L1H1", "L1H2"], "note": ["L0H0"]}
    found = memory_ablation(
        planted.induction(), LISTS, groups=groups, draws=3, kinds=["zero"], resamples=40
    )
    recalled = found.sel(outcome="recall_next", ablation="zero")
    # One head is left in its layer, so two of the three come from the other one.
    assert recalled.effect.sel(head_set="layer") < -0.8
    assert recalled.p_value.sel(head_set="layer").isnull()
    assert recalled.p_value.sel(head_set="note") == 0.25  # the same result, layers match
    told = found.attrs["draws_status"]
    assert told.startswith("layer: no layer-matched control") and "0.7 layers away" in told
    assert "note" not in told


def test_the_same_seed_draws_the_same_heads_and_texts_may_be_left_out():
    one, two = (
        memory_ablation(planted.induction(), LISTS.select([0]), groups={"note": ["L0H0"]}, draws=2,
                        kinds=["zero"], seed=seed, resamples=40)
        for seed in (3, 3)
    )  # fmt: skip
    assert_array_equal(one.members, two.members)
    assert one.icl_score.isnull().all() and one.attrs["icl_interval_status"] == "no texts"
    assert one.effect_low.isnull().all() and "at least 4" in one.attrs["interval_status"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"groups": {}}, "a mapping from names"),
        ({"groups": {"intact": ["L0H0"]}}, "but not 'intact'"),
        ({"groups": {"a": ["L0H0"]}, "k": 2}, "k=2 heads of groups that have fewer: a (1)"),
        ({"groups": {"a": ["L0H0"]}, "kinds": "zero"}, "a list of zero, mean"),
        ({"groups": {"a": ["L0H0"]}, "kinds": ["blur"]}, "blur"),
        ({"groups": {"a": ["L0H0"]}, "kinds": ["zero"], "reference": LISTS}, "without 'mean'"),
        ({"groups": {"a": ["L0H0"]}, "resamples": 3}, "resamples=3"),
        ({"groups": {"a": ["L0H0"]}, "draws": -1}, "draws"),
    ],
)
def test_bad_options_are_refused_before_any_run(options, message):
    with pytest.raises(OptionError) as error:
        memory_ablation(planted.induction(), LISTS, **options)
    assert message in " ".join(str(error.value).split())


def test_heads_that_are_not_there_are_refused():
    with pytest.raises(SiteError, match="L7H0"):
        memory_ablation(planted.induction(), LISTS, groups={"a": ["L7H0"]})


# ------------------------------------------------------------------------------- ml.memory_heads


def test_the_planted_induction_head_is_found_with_its_peak_and_its_sign():
    found = ml.memory_heads(planted.induction(), LISTS, null_draws=40, candidates=3)
    score = found.prefix_matching.mean("prompt")
    assert ml.top_heads(score, k=1) == [planted.INDUCTION]
    head = found.sel(layer=1, head=0)
    assert head.peak_lag == 1 and head.distance < 1e-12
    assert_allclose(head.copying, 1, rtol=1e-5)
    assert (head.beta_enc, head.beta_rec, head.gamma_ft) == (1, 1, 0)
    assert head.p_walk < 0.05 < found.p_walk.sel(layer=0, head=0)
    # What attends to everything alike has no curve to fit: no number, but a reason.
    flat = found.sel(layer=1, head=1)
    assert flat.status == "the curve is constant"
    assert flat[["distance", "peak_lag", "p_walk", "gaussian_distance"]].to_array().isnull().all()


def test_one_result_holds_what_its_methods_say():
    model, options = planted.patterns(), {"null_draws": 40, "candidates": 3}
    found = ml.memory_heads(model, LISTS, source="pattern", **options)
    scores, by_lag = ml.induction_scores(model, LISTS), ml.attention_by_lag(
        model, LISTS, source="pattern"
    )  # fmt: skip
    assert_array_equal(found.duplicate_token, scores.duplicate_token)
    assert_array_equal(found.curve, by_lag.curve)
    assert_array_equal(found.contiguity_low, by_lag.contiguity_low)
    assert_array_equal(found.distance, ml.fit_cmr(by_lag.curve).distance)
    assert_array_equal(found.copying, ml.copying_scores(model).copying)
    assert found.peak_lag.sel(layer=0, head=1) == 0  # fits as well as induction, at another lag
    with pytest.raises(OptionError, match="max_lag=4"):
        ml.memory_heads(model, LISTS, max_lag=4)
