"""What the edit page asks for and what it shows, as plain values; on one small edit."""

import inspect
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import edit_toys
import numpy as np
import pytest
from edit_pages import FIELDS, REQUEST, SHARED, key, once, toy  # noqa: F401

import edit_drift
import edit_view
import mechlab as ml
import runs
from edit_known import known_settings, statistics_state
from edit_request import FactEditRequest
from edit_stored import request_of
from edit_traces import trace_pair, trace_problem

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*answers have several tokens"),
    pytest.mark.filterwarnings("ignore:.*key statistics"),
]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"template": "The river is"}, "needs {}, or 'Ann' itself"),
        ({"template": "{} and {} live in"}, "more than once"),
        ({"subject": ""}, "Give the subject"),
        ({"new_object": ""}, "Give the new object"),
        ({"new_object": "Madrid"}, "is what the fact says now"),
        ({"layer": None}, "Choose a layer"),
        ({"neighbours": "Mary lives in"}, "not written as: prompt | object"),
        ({"neighbours": "Mary lives in | Rome"}, "are both 'Rome'"),
        ({"tokens": 10**15}, "tokens 1,000,000,000,000,000 is too much"),
        ({"steps": 10**6}, "steps 1,000,000 is too much"),
        ({"noise_scale": 1e300}, "noise scale"),
        ({"seed": 2**53}, "allowed is up to 4,294,967,295"),
    ],
)
def test_every_field_that_cannot_be_used_is_told_in_a_sentence(
    changes: dict[str, Any], said: str
) -> None:
    assert REQUEST.problem() == ""
    problem = replace(REQUEST, **changes).problem()
    assert said in problem and "\n" not in problem


def test_a_loaded_tokenizer_refuses_objects_that_begin_alike(toy: ml.Model) -> None:  # noqa: F811
    import loaded

    loaded.load(REQUEST.load_arguments)
    assert REQUEST.problem() == ""
    assert "begin with the same token" in replace(REQUEST, new_object="Madrids").problem()


def test_typed_text_is_tidied_and_the_subject_may_stand_in_the_prompt() -> None:
    values = {name: getattr(REQUEST, name) for name in REQUEST.names()}
    typed = {"template": "Ann lives in ", "subject": " Ann ", "new_object": " Rome"}
    typed |= {"paraphrases": "\n Ann was born in \n\n"}
    assert FactEditRequest.from_fields({**values, **typed}) == REQUEST


def test_settings_are_those_of_the_card_until_own_ones_are_wanted(monkeypatch: Any) -> None:
    known = {"layer": 2, "steps": 100, "key_templates": ["{}"]}
    card = {"edit_settings": known, "architecture": {"layers": 8}}
    monkeypatch.setattr(ml.organisms, "card", lambda name: card)
    request = replace(REQUEST, model="atlas", own=False)
    assert known_settings(request) == known
    assert request.settings is None and request.options["settings"] is None
    assert "there is no 8" in replace(request, layer=8).problem()
    own = replace(request, own=True, clamp=9.0, alone=True).settings
    assert own is not None and own["clamp"] == 9.0 and own["key_templates"] == ["{}"]
    assert set(own) <= set(inspect.signature(ml.rank_one_edit).parameters)


def test_every_option_of_the_method_is_known_with_its_default() -> None:
    parameters = list(inspect.signature(ml.localize_edit_verify).parameters.values())[2:]
    hints = {"progress", "journal", "max_batch", "key_statistics"}
    defaults = {p.name: p.default for p in parameters if p.name not in hints}
    for name in REQUEST.options:
        del defaults[name]
    assert defaults == FactEditRequest.OTHER_DEFAULTS


def test_the_stored_edit_is_found_and_asks_for_the_same(key: str) -> None:  # noqa: F811
    assert runs.find(REQUEST) == key[:12]
    others = ({"layer": 2}, {"new_object": "Paris"}, {"steps": 3}, {"neighbours": ""}, {"seed": 1})
    assert [runs.find(replace(REQUEST, **change)) for change in others] == [None] * 5
    story, record = runs.load(key[:12]), runs.entry(key[:12])
    assert request_of(story, record.options, "gpt2").differences(REQUEST) == []
    assert "200 tokens · stored" in statistics_state(REQUEST, 1, 200, "atlas")
    assert "missing" in statistics_state(REQUEST, 2, 200, "atlas")


def test_options_without_a_field_are_carried_along(key: str) -> None:  # noqa: F811
    story, options = runs.load(key[:12]), dict(runs.entry(key[:12]).options)
    options |= {"layers": [0, 1], "layer": "score", "settings": {"kl_weight": 0.1}}
    found = request_of(story, options, "gpt2")
    assert {n: found.options[n] for n in ("layers", "layer", "settings")} == {
        "layers": [0, 1], "layer": "score", "settings": {"kl_weight": 0.1},
    }  # fmt: skip
    assert "range" not in found.code() and "layer=[0, 1]" in found.code()


def test_the_code_reproduces_the_arrays_from_an_empty_store(
    key: str,  # noqa: F811
    tmp_path: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    story = ml.Store().get(key)
    monkeypatch.setenv("MECHLAB_CACHE", str(tmp_path / "empty"))
    names: dict[str, Any] = {}
    exec(REQUEST.code(key[:12]), names)
    again = names["result"]
    for name in ("effect", "success", "left", "right", "nll"):
        np.testing.assert_array_equal(again[name].values, story[name].values)
    assert key in ml.Store(), "the same key, too"
    assert names["edit"].digest == ml.swept_edit(story).digest


def test_code_and_spec_of_a_country_name_the_request_alone() -> None:
    country = replace(
        REQUEST, template="The capital of {} is", subject="Germany", target="Berlin",
        paraphrases="", neighbours="",
    )  # fmt: skip
    found = eval(country.prompts_code(), {"ml": ml})
    assert found.digest == country.digest()
    assert len(country.case().paraphrases) > 5
    assert json.loads(json.dumps(country.spec()))["prompts"] == [
        {"template": "The capital of {} is", "subject": "Germany", "target": "Rome",
         "target_true": "Berlin"}
    ]  # fmt: skip
    with pytest.raises(ml.PromptError, match="dashboard only"):
        REQUEST.spec()


def test_shares_traces_and_texts_are_those_of_the_result(key: str) -> None:  # noqa: F811
    story = runs.load(key[:12])
    found = {one.kind: one for one in edit_view.shares(story)}
    assert {kind: one.count for kind, one in found.items()} == {
        "rewrite": 1, "paraphrase": 1, "neighbourhood": 2,
    }  # fmt: skip
    assert found["neighbourhood"].after[0] == float(story["neighbourhood"].values[0, 1])
    assert all(low <= share <= high for one in found.values() for share, low, high in [one.after])
    sites, before, after = trace_pair(story)
    assert sites == ["mlp_out", "resid_post", "attn_out"]
    np.testing.assert_allclose(
        after[0].values, story["effect"].sel(stage="after", site="mlp_out")[0], rtol=1e-6
    )
    assert before[0].shape == after[0].shape and before[0].sign != after[0].sign
    assert len(edit_view.texts_of(story)) == 1
    told = {fact.name: fact.value for fact in edit_view.change_facts(story)}
    assert float(told["residual ‖v − v*‖"]) < 1e-5 < float(told["residual, bare prompt"])
    older = story.drop_vars(["residual", "residual_bare"])
    assert len(edit_view.change_facts(older)) == len(told) - 2
    moved = edit_drift.told(story, key, 3)
    assert moved is not None and moved[3] == 3 and moved[1] <= moved[0] <= moved[2]
    assert edit_drift.told(story, key, 4) is None


def test_an_interval_of_a_share_has_a_width_at_its_ends() -> None:
    share, low, high = edit_view.wilson(10, 10)
    assert (share, high) == (1.0, 1.0) and low == pytest.approx(0.7225, abs=1e-4)
    assert edit_view.wilson(0, 10) == (0.0, 0.0, pytest.approx(1 - low))


def test_the_saved_delta_is_the_edit_is_no_pickle_and_needs_no_disk(
    key: str,  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    story = runs.load(key[:12])
    monkeypatch.setattr(Path, "open", lambda *_, **__: pytest.fail("a full disk does not matter"))
    saved = edit_view.delta_file(story)
    monkeypatch.undo()
    file = tmp_path / "delta.safetensors"
    file.write_bytes(saved)
    assert ml.Edit.load(file).digest == ml.swept_edit(story).digest
    assert b"{" in file.read_bytes()[:16], "a safetensors header is JSON"


def test_an_edit_of_what_the_model_says_already_is_refused(key: str) -> None:  # noqa: F811
    story = runs.load(key[:12])
    already = story.assign(efficacy_before=("case", [1.0]))
    assert "likelier than 'Madrid'" in edit_view.wrong_baseline(already)
    assert edit_view.wrong_baseline(story.assign(efficacy_before=("case", [0.0]))) == ""
    assert "its trace says little" in trace_problem(story)
    assert edit_toys.model("gpt2").edits == () and FIELDS["layer"] == 1 and SHARED
