"""Requests and view models of the pages on heads and paths, on a real tiny model; no Streamlit."""

import inspect
import json
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import numpy as np
import pytest
import xarray as xr

import head_panel_view
import heads_request
import heads_view
import loaded
import mechlab as ml
import paths_request
import paths_view
import runs
from heads_request import HOW, HeadsRequest
from pair_request import PairRequest, file_rows
from paths_request import PathsRequest
from paths_walk import Walk, joined

PAIR = {
    "clean": "The capital of Italy is",
    "corrupted": "The capital of Spain is",
    "answer": "Rome",
    "wrong_answer": "Madrid",
}
ROWS = json.dumps([PAIR, {**PAIR, "corrupted": "The capital of Peru is", "wrong_answer": "Lima"}])
HINTS = {"progress", "journal", "max_batch", "mode"}


@pytest.fixture
def toy(
    toy_model: Callable[..., ml.Model], monkeypatch: pytest.MonkeyPatch, own_store: Path
) -> ml.Model:
    """The tiny llama, which every request loads."""
    model = toy_model("llama")
    monkeypatch.setattr(ml, "load_model", lambda name, **_: model, raising=False)
    monkeypatch.setattr(loaded, "_models", OrderedDict())
    return model


def computed(request: PairRequest, model: ml.Model) -> tuple[str, Any]:
    run = request.compute(model, None, recompute=False)[:12]
    return run, runs.load(run)


def named(model: ml.Model, **options: Any) -> dict[str, Any]:
    return {"model": model.name, **PAIR, **options}


# --- requests -------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", HOW)
def test_every_option_of_every_method_is_known_with_its_default(how: str) -> None:
    request = HeadsRequest(how=how)
    parameters = list(inspect.signature(getattr(ml, HOW[how])).parameters.values())[2:]
    defaults = {p.name: p.default for p in parameters if p.name not in HINTS}
    plain = {n: [] if v == () else v for n, v in defaults.items()}
    assert {**request.OTHER_DEFAULTS, **request.options} == plain


def test_every_option_of_path_patching_is_known_with_its_default() -> None:
    parameters = list(inspect.signature(ml.path_patch).parameters.values())[2:]
    defaults = {p.name: p.default for p in parameters if p.name not in HINTS}
    assert {**PathsRequest.OTHER_DEFAULTS, **PathsRequest().options} == defaults


ASKED = [
    HeadsRequest(**PAIR),
    HeadsRequest(**PAIR, without=("L1H2",)),
    HeadsRequest(**PAIR, how="ablate", site="mlp_out"),
    HeadsRequest(how="ablate", ablation="mean", source="rows", rows=ROWS),
    HeadsRequest(how="ablate", ablation="resample", source="rows", rows=ROWS),
    HeadsRequest(**PAIR, how="patch", direction="noising", positions="last"),
    HeadsRequest(**PAIR, how="gradient"),
    HeadsRequest(
        source="fact", prompt="The capital of Italy is", subject="Italy", target="Rome",
        how="ablate",
    ),
    PathsRequest(**PAIR),
    PathsRequest(**PAIR, receiver="L2H1.q", freeze="heads+mlps"),
    PathsRequest(**PAIR, senders="set", nodes="L0H1, L1H0+L1H2; mlp1", receiver="MLP2"),
]  # fmt: skip


@pytest.mark.parametrize("request_", ASKED, ids=lambda r: f"{r.method}-{ASKED.index(r)}")
def test_a_result_is_found_again_asks_for_itself_and_its_code_gives_it_back(
    request_: PairRequest, toy: ml.Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dataclasses import replace

    request = replace(request_, model=toy.name)
    run, result = computed(request, toy)
    assert runs.find(request) == run
    module = heads_request if isinstance(request, HeadsRequest) else paths_request
    again = module.request_of(result, toy.name)
    assert request.differences(again) == []
    assert again.options == request.options
    assert runs.find(again) == run
    changed = replace(
        request, wrong_answer="Lima", target="Oslo", rows=ROWS.replace("Rome", "Oslo")
    )
    assert changed.differences(again)
    assert runs.find(changed) is None

    monkeypatch.setenv("MECHLAB_CACHE", "memory://elsewhere")  # so that it is computed anew
    space: dict[str, Any] = {}
    script = request.code(run)
    exec(script.replace(request.PLOT, ""), space)
    for name, array in result.data_vars.items():
        xr.testing.assert_identical(space["result"][name].variable, array.variable)


def test_a_built_in_set_is_made_once_the_model_is_there(toy: ml.Model) -> None:
    request = HeadsRequest(model=toy.name, source="conflicts", count=3)
    assert request.problem() == ""
    assert request.digest() is None
    assert runs.find(request) is None
    assert request.spec()["prompts"] == {
        "set": "conflicts",
        "count": 3,
        "seed": 0,
        "form": "repeat",
    }
    assert "ml.prompts.conflicts(count=3, seed=0, form='repeat', model=model)" in request.code()


def test_fields_out_of_use_make_no_other_request() -> None:
    assert HeadsRequest(**PAIR).id == HeadsRequest(**PAIR, prompt="x", rows="[]", count=9).id
    assert HeadsRequest(**PAIR).id != HeadsRequest(**PAIR, how="ablate").id
    assert HeadsRequest(**PAIR).id == HeadsRequest(**PAIR, ablation="mean").id
    assert HeadsRequest(**PAIR).differences(HeadsRequest(**PAIR, device="cuda")) == []


@pytest.mark.parametrize(
    ("request_", "said"),
    [
        (HeadsRequest(source="fact", prompt="a b", subject="a", how="patch"), "second prompt"),
        (HeadsRequest(source="fact", prompt="a b", subject="c", target="x"), "does not occur"),
        (HeadsRequest(**{**PAIR, "wrong_answer": "Rome"}), "are both 'Rome'"),
        (HeadsRequest(**PAIR, without=("head 5",)), "not a head"),
        (HeadsRequest(source="rows"), "Choose a file"),
        (PathsRequest(**PAIR, receiver="L5H4.x"), "is not a node here"),
        (PathsRequest(**PAIR, senders="set"), "Name the senders"),
        (PathsRequest(**PAIR, senders="set", nodes="L1H1.q"), "is not a node here"),
        (PathsRequest(source="rows", rows='[{"prompt": "a b", "subject": "a"}]'), "give a pair"),
    ],
)
def test_what_cannot_be_run_is_said_in_a_sentence(request_: PairRequest, said: str) -> None:
    assert said in request_.problem()
    assert len(request_.id) == 12  # the page asks for it all the same


def test_files_of_pairs_and_of_facts_become_rows_and_others_are_refused() -> None:
    csv = "clean,corrupted,answer,wrong_answer\na b,a c,x,y\n"
    request = HeadsRequest(source="rows", rows=file_rows("pairs.CSV", csv.encode()))
    assert (request.kind, request.size, request.prompts()[0].wrong_answer) == ("pair", 1, "y")
    facts = HeadsRequest(
        source="rows", rows=file_rows("f.csv", b"prompt,subject,target\na b,a,x\n")
    )
    assert facts.kind == "fact"
    for name, content in (("a.py", b"1"), ("a.json", b"{"), ("a.csv", b"\xff\xfe")):
        with pytest.raises(ml.PromptError):
            file_rows(name, content)


# --- heads ----------------------------------------------------------------------------------------


def test_mlps_stand_beside_the_heads_whatever_is_measured(toy: ml.Model) -> None:
    for how in ("attribution", "ablate", "patch"):
        request = HeadsRequest(**named(toy, how=how))
        _, result = computed(request, toy)
        beside = request.companion()
        other = None if beside is None else runs.load(runs.find(beside) or "")
        assert (other is None) == (how == "attribution")
        view = heads_view.grid(result, other)
        assert view.shape == (toy.n_layers, toy.n_heads + 1)
        assert view.col_labels[-1] == "MLP"
        alone = heads_view.grid(result if other is not None else result.drop_vars(
            ["component_attribution", "component_logit"]))  # fmt: skip
        np.testing.assert_array_equal(view.values[:, :-1], alone.values)
        if other is None:
            mlps = result.component_attribution.sel(component=["L0.mlp", "L1.mlp", "L2.mlp"])[0]
            np.testing.assert_allclose(view.values[:, -1], mlps, rtol=1e-6)
        assert view.limits[1] == pytest.approx(np.abs(view.values).max())


def test_the_strongest_heads_come_first_and_a_row_keeps_the_scale_of_the_whole(
    toy: ml.Model,
) -> None:
    _, result = computed(HeadsRequest(model=toy.name, source="rows", rows=ROWS), toy)
    view = heads_view.grid(result)
    best = heads_view.ranked(view, most=4)
    assert [abs(b.value) for b in best] == sorted((abs(b.value) for b in best), reverse=True)
    assert abs(best[0].value) == pytest.approx(np.abs(view.values).max())
    assert all(b.low is not None and b.low <= b.value <= b.high for b in best)
    assert {b.layer for b in heads_view.ranked(view, layer=1)} == {1}
    row = heads_view.in_layer(view, 2)
    assert (row.shape, row.limits, row.row_labels) == ((1, view.shape[1]), view.limits, ("2",))
    faded = heads_view.crosses_zero(view)
    np.testing.assert_array_equal(faded, (view.ci_low <= 0) & (view.ci_high >= 0))
    one = heads_view.grid(result, prompt=1)
    assert heads_view.crosses_zero(one) is None
    np.testing.assert_allclose(one.values[:, :-1], result.head_attribution[1], rtol=1e-6)
    assert heads_view.head_value(view, 99, 0) is None
    assert heads_view.HeadValue(2, "MLP", 0.0, None, None).name == "L2 MLP"


def test_a_model_that_prefers_the_other_answer_breaks_the_baseline(toy: ml.Model) -> None:
    _, result = computed(HeadsRequest(**named(toy)), toy)
    right = result.assign(total=abs(result.total))
    assert heads_view.wrong_baseline(right) == ""
    assert "1 of 1 clean prompts" in heads_view.wrong_baseline(right.assign(total=-right.total))
    two = xr.concat([right, right.assign(total=-right.total)], "prompt", combine_attrs="override")
    assert heads_view.wrong_baseline(two) == ""


# --- one head -------------------------------------------------------------------------------------


def test_a_look_at_a_head_agrees_with_the_methods_behind_it(toy: ml.Model) -> None:
    prompt = ml.prompts.PromptPair(**PAIR)
    look = head_panel_view.look_at(toy, prompt, ["L2H1", "L0H3"])
    labels, weights, effects = head_panel_view.sources(look, 2, 1)
    assert labels[-1].endswith("·is")
    assert sum(weights) == pytest.approx(1, abs=1e-5)
    direct = ml.direct_logit_attribution(toy, prompt).head_attribution[0, 2, 1]
    assert sum(effects) == pytest.approx(float(direct), abs=1e-5)
    view = head_panel_view.attention_view(look, "L2H1")
    assert view.shape == (len(labels), len(labels))
    raised, lowered = head_panel_view.tokens_of(look, "L2H1")
    assert raised[0][1] > 0 > lowered[0][1]
    before = head_panel_view.previous_token(look, "L0H3")
    pattern = head_panel_view.pattern_of(look, "L0H3")
    expected = [pattern[i, i - 1] for i in range(2, len(labels))]
    assert before is not None and before.value == pytest.approx(np.mean(expected))


def test_without_an_answer_there_is_a_pattern_but_no_effect(toy: ml.Model) -> None:
    look = head_panel_view.look_at(toy, ml.prompts.Fact("Oslo is near", "Oslo"), ["L1H1"])
    assert "No answer" in look.refused
    assert head_panel_view.sources(look, 1, 1)[2] == []


# --- paths ----------------------------------------------------------------------------------------


def test_heads_behind_the_receiver_are_hatched_and_the_rest_is_the_result(toy: ml.Model) -> None:
    _, result = computed(PathsRequest(**named(toy, receiver="L1H2.q")), toy)
    view = paths_view.sender_grid(result)
    assert (view.state[1:] == 0).all()
    np.testing.assert_allclose(view.values[0], result.effect[0, : toy.n_heads, 0], rtol=1e-6)
    assert paths_view.sender_at(view, 0, 3) == "L0H3"
    assert result.receiver.values.tolist() == ["L1H2.q"]


def test_a_walk_joins_what_fits_and_leaves_out_the_rest(toy: ml.Model) -> None:
    _, to_logits = computed(PathsRequest(**named(toy)), toy)
    _, to_head = computed(PathsRequest(**named(toy, receiver="L2H1.q")), toy)
    _, other = computed(PathsRequest(**named(toy, senders="all_mlps")), toy)
    both, places = joined([to_logits, to_head, to_logits, other])
    assert places == [0, 1]
    assert both.receiver.values.tolist() == ["logits", "L2H1.q"]
    edges, total = paths_view.edges_shown(both, 0.0)
    assert total == 12 + 8
    assert len(edges) == 20
    few, _ = paths_view.edges_shown(both, abs(edges[3].effect))
    assert len(few) == 4
    assert paths_view.strongest(both) == pytest.approx(abs(edges[0].effect))
    assert "all paths together" in paths_view.checks(to_logits)


def test_the_code_of_a_walk_makes_its_joined_effects(toy: ml.Model, monkeypatch) -> None:
    requests = [PathsRequest(**named(toy, receiver=name)) for name in ("logits", "L2H1.q")]
    both, _ = joined([computed(request, toy)[1] for request in requests])
    drawn: list[Any] = []
    monkeypatch.setattr(ml, "load_model", lambda *_, **__: toy)
    monkeypatch.setattr(ml.plots, "path_graph", lambda result: drawn.append(result) or MagicMock())
    exec(Walk(tuple(requests)).code("0123456789ab"), {})
    np.testing.assert_array_equal(drawn[0].effect.values, both.effect.values)
    assert drawn[0].receiver.values.tolist() == ["logits", "L2H1.q"]
    alone = Walk((requests[0],)).code()
    assert "path_graph(result)" in alone and "sender_grid" not in alone


def test_the_trail_grows_by_a_step_and_is_cut_where_it_comes_back() -> None:
    assert paths_view.trail_of("", "logits") == ["logits"]
    assert paths_view.trail_of("logits", "L5H4.q") == ["logits", "L5H4.q"]
    assert paths_view.trail_of("logits~L5H4.q~L3H1", "L5H4.q") == ["logits", "L5H4.q"]
    assert paths_view.trail_of("logits~<script>~../x", "L5H4.q") == ["logits", "L5H4.q"]
    assert paths_view.trail_text(["logits", "L5H4.q"]) == "logits~L5H4.q"


def test_every_node_of_a_record_reads_as_people_write_it() -> None:
    for text in ("L5H4.q", "L5H4", "MLP3", "attn2", "L6H0+L6H1"):
        sender = not text.endswith(".q")
        stored = paths_request._as_stored(text, sender=sender)
        assert paths_request.node_text(stored) == text
    assert paths_request.head_of("L12H3.v") == (12, 3)
    assert paths_request.head_of("logits") is None
    assert paths_request.receiver_of(5, 4, "z") == "L5H4"


def test_keys_and_values_are_asked_of_the_head_that_query_heads_share() -> None:
    asked = {part: paths_request.receiver_of(5, 7, part, group=2) for part in ("q", "k", "v")}
    assert asked == {"q": "L5H7.q", "k": "L5H3.k", "v": "L5H3.v"}


def test_a_result_of_a_built_in_set_asks_for_that_set_as_long_as_it_is_known(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import pair_request

    request = HeadsRequest(source="conflicts", count=2, prompt_seed=3)
    made = ml.prompts.conflicts(count=2, seed=3)
    monkeypatch.setattr(pair_request, "_made", {request._set_key(): made})
    records = [json.dumps(pair.to_json()) for pair in made]
    result = xr.Dataset(
        coords={"prompt_record": ("prompt", records)}, attrs={"prompts_digest": made.digest}
    )
    fields = pair_request.prompt_fields_of(result)
    assert fields == {"source": "conflicts", "count": 2, "prompt_seed": 3, "form": "repeat"}
    monkeypatch.setattr(pair_request, "_made", {})
    again = HeadsRequest(**pair_request.prompt_fields_of(result))
    assert again.source == "rows"
    assert again.digest() == made.digest
