"""Claims: a verdict needs the model to pass and the untrained one to fail."""

import json

import numpy as np
import pytest
import xarray as xr

import mechlab as ml
from mechlab.claims import Claim, Condition, Finding, Outcome, judge, mean_above, verdict

GOOD, BAD = (Outcome((Condition("it", 1.0, low, 2.0, 0.0),), "here") for low in (0.5, -0.5))
ABSENT = Outcome(note="no such module", applies=False)


@pytest.mark.parametrize(
    ("model", "untrained", "expected"),
    [
        (GOOD, BAD, "holds"),
        (GOOD, GOOD, "not discriminating"),
        (BAD, BAD, "fails"),
        (BAD, GOOD, "fails"),
        (ABSENT, GOOD, "not applicable"),
        (Outcome(), BAD, "fails"),
    ],
)
def test_verdicts(model, untrained, expected):
    assert verdict(model, untrained) == expected


def test_all_conditions_of_a_claim_must_hold():
    assert not Outcome((*GOOD.conditions, *BAD.conditions)).holds
    assert not Condition("unmeasured", np.nan, np.nan, np.nan).holds


def test_the_interval_is_the_hull_of_clustered_bootstraps():
    values = xr.DataArray(np.repeat([0.0, 1.0, 2.0, 3.0], 5), dims="prompt")
    alone = mean_above("mean", values)
    grouped = mean_above("mean", values, clusters=[np.repeat(range(4), 5).tolist(), range(20)])
    assert grouped.low < alone.low < grouped.value == 1.5 < alone.high < grouped.high
    assert np.isnan(mean_above("one cluster", values, clusters=[[0] * 20]).low)


def finding(*outcomes: Outcome) -> Finding:
    claims = tuple(
        Claim(f"claim {i}", "It is.", "Paper, section 1", "Above 0.", lambda found, i=i: found[i])
        for i in range(len(outcomes))
    )
    control = dict.fromkeys([c.name for c in claims], BAD)
    return Finding(
        "A study", claims, judge(claims, outcomes), control, ["Of 3 prompts."],
        [("number", "model"), ("share", "3 %")], {"model": "toy"},
    )  # fmt: skip


@pytest.mark.parametrize(
    ("outcomes", "code"), [((GOOD, ABSENT), 0), ((GOOD, BAD), 1), ((ABSENT,), 1)]
)
def test_the_exit_code_says_whether_every_claim_that_applies_holds(outcomes, code):
    assert finding(*outcomes).exit_code == code


def test_a_report_has_verdicts_conditions_and_numbers(tmp_path):
    unmeasured = Outcome((Condition("nothing", np.nan, np.nan, np.nan),), "nowhere")
    text, file = finding(GOOD, unmeasured, ABSENT).write(tmp_path / "new")
    report = text.read_text()
    assert "| It is. | Paper, section 1 | **holds** |" in report
    assert "| it | 0 | 1 (0.5 to 2) | yes | 1 (-0.5 to 2) | no |" in report
    assert "Not tested: no such module." in report and "| share | 3 % |" in report
    content = json.loads(file.read_text())
    assert content["model"] == "toy"
    assert content["claims"]["claim 0"]["verdict"] == "holds"
    assert content["claims"]["claim 1"]["model"]["conditions"][0]["value"] is None


def test_an_untrained_model_has_the_shape_and_other_weights(toy_model):
    model = toy_model("llama")
    first, again, other = ml.untrained(model), ml.untrained(model), ml.untrained(model, seed=1)
    assert (first.n_layers, first.n_heads, first.n_kv_heads) == (3, 4, 2)
    assert first.fingerprint == again.fingerprint
    assert len({m.fingerprint for m in (model, first, other)}) == 3
    assert first.tokenize(["w1 w2"]).lengths == model.tokenize(["w1 w2"]).lengths
