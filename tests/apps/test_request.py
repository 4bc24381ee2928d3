import json
from dataclasses import replace
from types import SimpleNamespace

import pytest

import mechlab as ml
from trace_request import TraceRequest
from versions import version_of

FACT = {"prompt": "The capital of France is", "subject": "France", "target": "Paris"}


def test_equal_requests_share_an_id_and_the_device_does_not_count() -> None:
    assert TraceRequest(**FACT).id == TraceRequest(**FACT, device="cuda:0").id
    assert len(TraceRequest(**FACT).id) == 12
    others = [{"seed": 1}, {"dtype": "bfloat16"}, {"model": "echo"}, {"known_only": False}]
    assert len({TraceRequest(**{**FACT, **other}).id for other in [{}, *others]}) == 5


def test_the_order_of_sites_does_not_count() -> None:
    assert TraceRequest(**FACT, sites=("a", "b")).id == TraceRequest(**FACT, sites=("b", "a")).id


def test_a_cached_model_is_keyed_by_every_argument_that_it_is_loaded_with() -> None:
    arguments = TraceRequest(**FACT).load_arguments
    assert set(arguments) == {"name", "device", "dtype", "weights", "revision", "checkpoint"}


def test_what_differs_is_said_in_words() -> None:
    old = TraceRequest(**FACT)
    new = TraceRequest(**{**FACT, "subject": " France "}, samples=3, device="cuda")
    assert new.differences(old) == ["samples: 10 → 3"]


def test_the_place_of_a_folder_does_not_count_as_a_difference() -> None:
    assert TraceRequest(model="/somewhere/toy").differences(TraceRequest(model="toy")) == []
    assert TraceRequest(model="/somewhere/toy").id != TraceRequest(model="toy").id


def test_the_last_checkpoint_of_a_shipped_model_is_the_model_itself() -> None:
    asked = TraceRequest(**FACT, model="echo")
    about = {"model_dtype": "float32", "model_weights": "raw"}

    def stored(revision: str) -> SimpleNamespace:
        told = {**about, "model_revision": revision}
        return SimpleNamespace(
            method="causal_trace", model_name="echo", options=asked.options, provenance=told
        )

    versions = ("1000", "none", "500")
    assert [asked.answered_by(stored(one)) for one in versions] == [True, True, False]
    early = replace(asked, checkpoint=500)
    assert [early.answered_by(stored(one)) for one in versions] == [False, False, True]
    assert replace(asked, checkpoint=1000).differences(asked) == []
    assert early.differences(asked) == ["checkpoint: None → 500"]
    shipped = {"model_source": "shipped", "model_name": "echo"}
    told = [version_of({**shipped, "model_revision": one}) for one in versions]
    assert told == [{}, {}, {"checkpoint": 500}]


def test_every_option_of_the_method_is_known_with_its_default() -> None:
    import inspect

    hints = {"progress", "journal", "max_batch", "mode"}
    parameters = list(inspect.signature(ml.causal_trace).parameters.values())[2:]
    defaults = {p.name: p.default for p in parameters if p.name not in hints}
    offered = {name: defaults.pop(name) for name in TraceRequest.OPTIONS}
    assert defaults == TraceRequest.OTHER_DEFAULTS
    mine = TraceRequest(**FACT).options
    assert {n: mine[n] for n in TraceRequest.OPTIONS if n != "sites"} == {
        n: offered[n] for n in TraceRequest.OPTIONS if n != "sites"
    }


def test_options_that_the_page_does_not_offer_are_carried_along() -> None:
    request = TraceRequest(**FACT, more='{"score": "target"}')
    assert request.options["score"] == "target"
    assert "score='target'" in request.code()


@pytest.mark.parametrize("prompt", ['say "{x}" in France', "a\\nb 'c' France", "{} France {0}"])
def test_the_code_is_python_that_asks_for_the_same(prompt: str) -> None:
    request = TraceRequest(prompt=prompt, subject="France", target="Paris", window=2)
    asked: dict[str, object] = {}

    class Store:
        def run(self, function: object, model: object, fact: object, **options: object) -> object:
            asked.update(model=model, fact=fact, options=options)
            return None

    class Fake:
        prompts = ml.prompts
        causal_trace = None
        Store_ = Store

        @staticmethod
        def load_model(name: str, **arguments: object) -> object:
            return {"name": name, **arguments}

    Fake.Store = Store  # type: ignore[attr-defined]
    lines = request.code("3f9a1c22b7de").splitlines()
    assert lines[0] == "# run 3f9a1c22b7de"
    body = [line for line in lines if not line.startswith(("import", "ml.plots"))]
    exec("\n".join(body), {"ml": Fake})
    assert asked["fact"] == request.prompts()
    assert asked["options"] == request.options
    given = {name: value for name, value in request.load_arguments.items() if value is not None}
    assert asked["model"] == given


def test_the_notebook_holds_the_code() -> None:
    notebook = json.loads(TraceRequest(**FACT).notebook("abc"))
    assert notebook["cells"][0]["source"] == TraceRequest(**FACT).code("abc")


def test_a_subject_outside_its_prompt_is_refused_before_any_run() -> None:
    with pytest.raises(ml.PromptError, match="'Spain' does not occur"):
        TraceRequest(prompt="The capital of France is", subject="Spain").prompts()
