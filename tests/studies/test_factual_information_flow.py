"""The study of how facts flow: claims hold on planted and handmade flows, and fail elsewhere."""

from types import ModuleType
from typing import Any

import circuits
import numpy as np
import planted
import pytest
import xarray as xr

import mechlab as ml

N_LAYERS, N_FACTS = 6, 24


@pytest.fixture(scope="module")
def claims(study_file) -> ModuleType:
    return study_file("factual_information_flow", "flow_claims")


@pytest.fixture(scope="module")
def study(study_file) -> ModuleType:
    return study_file("factual_information_flow", "study")


def made(dims: tuple[str, ...], values: np.ndarray, **coords: Any) -> xr.DataArray:
    return xr.DataArray(values, {"layer": range(N_LAYERS), **coords}, dims)


def handmade(
    claims: ModuleType,
    *,
    subject: float = 0.6,
    other: float = 0.1,
    attention: float = 1.0,
    carried: float = 3.0,
    given: float = -2.0,
    late_mlp: float = -1.0,
    middle_mlp: float = 1.0,
) -> Any:
    """Facts and lists: knockouts peak in layer 4, extraction is there from layer 4 on."""
    rng = np.random.default_rng(0)
    spread = 1 + 0.2 * rng.standard_normal((N_FACTS, 1))
    shape = np.exp(-((np.arange(N_LAYERS) - 4) ** 2) / 2)
    lost = np.stack([-subject * spread * shape, -other * spread * shape], axis=-1)
    cut = xr.Dataset(
        {
            "relative_change": made(
                ("prompt", "layer", "source"), lost, source=["subject", "not_subject"]
            )
        }
    )
    late = np.arange(N_LAYERS) >= 4
    ranks = np.full((N_FACTS, 2, N_LAYERS, 1, 2), 99.0)
    ranks[:, 1][:, late] = 0
    hits = rng.random(N_FACTS) < attention
    ranks[hits, 0, 4] = 0
    names = {"site": ["attn_out", "resid_post"], "answer": ["predicted", "answer"], "pos": [-1]}
    lens = xr.Dataset({"rank": made(("prompt", "site", "layer", "pos", "answer"), ranks, **names)})
    read = np.zeros((N_FACTS, N_LAYERS, 2, 1))
    read[:, 4, 0, 0], read[:, 4, 1, 0] = carried * spread[:, 0], 1.0
    tokens = xr.Dataset(
        {
            "source_logit": made(
                ("prompt", "layer", "source", "answer"),
                read,
                source=["subject", "other"],
                answer=["answer"],
            )
        }
    )
    subjects = [f"Land{i}" for i in range(N_FACTS)]
    facts = claims.Facts(cut, lens, tokens, subjects, ["one"] * N_FACTS)
    answers = ["answer_1", "answer_2", "answer_3"]
    listed = np.zeros((N_FACTS, N_LAYERS, 1, 3))
    listed[:, 5, 0, 0] = given * spread[:, 0]
    mlp = np.zeros((N_FACTS, N_LAYERS, 3))
    mlp[:, 2], mlp[:, 5, 0] = middle_mlp * spread, late_mlp * spread[:, 0]
    lists = xr.Dataset(
        {
            "source_logit": made(
                ("prompt", "layer", "source", "answer"), listed, source=["answer_1"], answer=answers
            ),
            "mlp_logit": made(("prompt", "layer", "answer"), mlp, answer=answers),
        }
    )
    return claims.Flow(facts, claims.Lists(lists, subjects, 30, N_FACTS))


def held(claims: ModuleType, flow: Any) -> set[str]:
    return {n for n, outcome in ml.claims.judge(claims.CLAIMS, flow).items() if outcome.holds}


ALL = {"subject_to_last", "extraction", "subject_carries", "promote", "suppress"}
CHANGED: dict[str, tuple[dict[str, float], str]] = {
    "the answer survives without the subject": ({"subject": 0.05}, "subject_to_last"),
    "other tokens matter as much": ({"other": 0.6}, "subject_to_last"),
    "no attention output holds the answer": ({"attention": 0.0}, "extraction"),
    "the subject writes nothing": ({"carried": 0.0}, "subject_carries"),
    "other tokens write more": ({"carried": 0.5}, "subject_carries"),
    "middle MLPs lower answers": ({"middle_mlp": -1.0}, "promote"),
    "given answers are raised": ({"given": 2.0}, "suppress"),
    "late MLPs raise them": ({"late_mlp": 1.0}, "suppress"),
}


def test_all_claims_hold_on_the_published_flow(claims):
    assert held(claims, handmade(claims)) == ALL


@pytest.mark.parametrize(("changes", "lost"), CHANGED.values(), ids=CHANGED)
def test_a_claim_fails_where_it_is_not_true(changes, lost, claims):
    assert held(claims, handmade(claims, **changes)) == ALL - {lost}


def test_lists_are_not_asked_of_a_model_that_cannot(claims):
    flow = handmade(claims)
    flow = claims.Flow(flow.facts, claims.Lists(None, [], 46, 7))
    found = ml.claims.judge(claims.CLAIMS, flow)
    assert {n for n, outcome in found.items() if not outcome.applies} == {"promote", "suppress"}
    assert found["promote"].note == "7 of 46 lists are answered without a fault; 8 are needed"


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_a_planted_fact_head_reads_the_subject(family, claims, study, monkeypatch):
    monkeypatch.setattr(claims, "MIN_FACTS", 6)
    monkeypatch.setattr(study.ml, "Store", planted.Unstored)
    model = circuits.conflict(family, copy=0.0, anti=0.0, fact=4.0, norm="real").model
    facts = [
        ml.prompts.Fact(f"they said {circuits.CITIES[(i + k) % 6]} . {country} is", country, city)
        for i, (country, city) in enumerate(zip(circuits.COUNTRIES, circuits.CITIES, strict=True))
        for k in (1, 2)
    ]
    flows = [
        claims.Flow(
            study.measure(one, ml.prompts.PromptSet(tuple(facts), "facts"), None),
            claims.Lists(None, [], 0, 0),
        )
        for one in (model, ml.untrained(model))
    ]
    found = ml.claims.judge(claims.CLAIMS, flows[0])
    assert found["subject_to_last"].holds and found["subject_carries"].holds
    assert found["subject_to_last"].note == "in the window around layer 1", "of the planted head"
    assert held(claims, flows[1]) == set()


@pytest.mark.parametrize(
    "family",
    [
        "neox",
        pytest.param("gpt2", marks=pytest.mark.slow),
        pytest.param("llama", marks=pytest.mark.slow),
    ],
)
def test_random_weights_reach_their_verdicts(
    family, study, model_folder, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(study.ml, "Store", planted.Unstored)
    arguments = ["--model", str(model_folder(family, "bpe")), "--count", "10", "--all-facts"]
    assert study.main([*arguments, "--out", str(tmp_path)]) == 1, capsys.readouterr().err
    found = planted.verdicts(tmp_path)
    assert {n for n, v in found.items() if v == "not applicable"} == {"promote", "suppress"}
    assert {n for n, v in found.items() if v == "fails"} == ALL - {"promote", "suppress"}
    pages = {path.name for path in tmp_path.glob("*/*.html")}
    assert pages == {"knockout.html", "extraction.html", "token-lens.html"}


def test_a_recurrent_model_has_no_edges(study, model_folder, capsys):
    assert study.main(["--model", str(model_folder("mamba", "bpe"))]) == 2
    assert "it has no attention edges to cut" in capsys.readouterr().err


def test_an_unknown_model_ends_with_one_error(study, capsys):
    assert planted.without_weights(study, capsys).startswith("ModelError: ")


@pytest.mark.filterwarnings("ignore:.*answers have several tokens")
def test_a_list_counts_when_every_step_names_an_open_answer(study, monkeypatch):
    pairs = list(ml.prompts.one_to_many(3, relation="continent"))
    listed = [dict(pair.about) for pair in pairs]
    wanted = [about[f"answer_{about['step']}"] for about in listed]
    model = ml.load_model("atlas")

    def lens(words: list[Any]) -> Any:
        ids = model.answer_tokens([p.clean for p in pairs], [str(word) for word in words])
        tokens = [[model.token_string(row[0])] for row in ids]
        return lambda *_, **__: xr.Dataset({"predicted_token": (("prompt", "pos"), tokens)})

    monkeypatch.setattr(study.ml, "logit_lens", lens(wanted))
    assert all(study._right_steps(model, pairs, "continent").values())
    monkeypatch.setattr(study.ml, "logit_lens", lens([about["subject"] for about in listed]))
    assert not any(study._right_steps(model, pairs, "continent").values())
