"""The retrieval page: its requests and view models, and its states on results of cardboard."""

import inspect
import time
from typing import Any

import numpy as np
import pytest
import xarray as xr
from toy_pages import grids_on, opened, press, run_to_the_end, texts

import mechlab as ml
import retrieval_view
import runs
from mechlab.results import analysis, new_result
from retrieval_request import MaskRequest, RetrievalRequest, request_of

HINTS = {"max_batch", "progress", "journal"}
SMALL = {"lengths": "128, 256", "depths": 2}


def options_in(names: dict[str, Any]) -> dict[str, Any]:
    """Return the options among the names of a function."""
    others = {*HINTS, "model", "prompts", "made", "fake"}
    return {name: value for name, value in names.items() if name not in others}


def copied(prompts: Any, *, right: bool) -> dict[str, Any]:
    """Return invented scores: L1H0 copies every needle, L2H1 every second one."""
    count, cells = len(prompts), ("prompt", "layer", "head")
    score = np.zeros((count, 4, 2))
    score[:, 1, 0], score[::2, 2, 1] = 1.0, 1.0
    attended = np.full((count, 2, 4, 2), 3)
    attended[:, 0, 1, 0] = 20
    return {
        "retrieval_score": (cells, score if right else np.nan * score),
        "retrieval_score_all": (cells, score),
        "score": (cells, score),
        "hits": ((*cells, "needle_pos"), (score > 0)[..., None]),
        "attended": (("prompt", "step", "layer", "head"), attended),
        "success": ("prompt", [right] * count),
        "text": ("prompt", ["$x$ <b>no</b>"] * count),
    }


def coordinates(prompts: Any) -> dict[str, Any]:
    columns = {
        "length": [p.length for p in prompts], "depth": [p.depth for p in prompts],
        "tokens": [40] * len(prompts), "found": [True] * len(prompts),
        "needle_start": [20] * len(prompts),
    }  # fmt: skip
    return {"prompt": list(prompts.labels)} | {n: ("prompt", v) for n, v in columns.items()}


@pytest.fixture
def cardboard(engine: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Put cardboard in the place of the scores and of masked heads too."""
    fake = engine

    def made(name: str, model: Any, prompts: Any, data: Any, more: Any, options: Any) -> Any:
        fake.runs += 1
        if fake.error is not None:
            raise fake.error
        return new_result(
            data, {**coordinates(prompts), **more}, method=name, version=1, model=model,
            prompts=prompts, options=options, seed=None, started=time.time(),
        )  # fmt: skip

    @analysis(version=1, prompt_kind="needle", per_prompt=False)
    def retrieval_score(
        model: Any, prompts: Any, *, max_new_tokens: int = 50, stop: Any = None,
        success: float = 50.0, dedupe: bool = True, chat: bool = False, progress: Any = None,
    ) -> xr.Dataset:  # fmt: skip
        options = options_in(locals())
        tokens = {
            "layer": range(4), "head": range(2),
            "needle_token": (("prompt", "needle_pos"), [[" fig"]] * len(prompts)),
            "token": (("prompt", "step"), [[" fig", " <b>"]] * len(prompts)),
        }  # fmt: skip
        right = fake.status == "ok"
        return made(
            "retrieval_score", model, prompts, copied(prompts, right=right), tokens, options
        )

    @analysis(version=1, prompt_kind="needle", per_prompt=False)
    def retrieval_curve(
        model: Any, prompts: Any, *, ranking: Any, k: Any, exclude: Any, draws: int, seed: int = 0,
        mask: str = "uniform", phase: str = "decode", max_new_tokens: int = 50, stop: Any = None,
        success: float = 50.0, chat: bool = False, progress: Any = None,
    ) -> xr.Dataset:  # fmt: skip
        options = options_in(locals())
        sets = [(n, d) for n in k for d in (-1, *range(draws))]
        recall = [[100.0 if d >= 0 else 0.0 for _, d in sets]] * len(prompts)
        values = {
            "recall": (("prompt", "head_set"), recall, {"units": "per cent"}),
            "unmasked_recall": ("prompt", [100.0] * len(prompts)),
        }
        axes = {
            "head_set": [f"{n} {d}" for n, d in sets], "k": ("head_set", [n for n, _ in sets]),
            "draw": ("head_set", [d for _, d in sets]),
            "is_control": ("head_set", [d >= 0 for _, d in sets]),
        }  # fmt: skip
        found = made("retrieval_curve", model, prompts, values, axes, options)
        return found.assign_attrs(mask=mask, phase=phase)

    monkeypatch.setattr(ml, "retrieval_score", retrieval_score, raising=False)
    monkeypatch.setattr(ml, "retrieval_curve", retrieval_curve, raising=False)
    monkeypatch.setattr(ml, "verify", lambda model: None, raising=False)
    return fake


def stored(cardboard: Any, **fields: Any) -> str:
    request = RetrievalRequest(model="toy-llama", **{**SMALL, **fields})
    return request.compute(cardboard.load_model("toy-llama"), None, recompute=False)[:12]


@pytest.mark.parametrize("kind", [RetrievalRequest, MaskRequest])
def test_every_option_of_both_methods_is_known_with_its_default(kind: Any) -> None:
    parameters = list(inspect.signature(getattr(ml, kind.METHODS[0])).parameters.values())[2:]
    defaults = {p.name: p.default for p in parameters if p.name not in HINTS}
    offered = {name: defaults.pop(name) for name in kind.OPTIONS}
    assert defaults == kind.OTHER_DEFAULTS
    assert "max_new_tokens" in offered


def test_a_stored_result_is_asked_for_again_by_the_fields_that_drew_its_needles(
    cardboard: Any,
) -> None:
    request = RetrievalRequest(model="toy-llama", **SMALL, count=2, seed=3, form="key-value")
    key = request.compute(cardboard.load_model("toy-llama"), None, recompute=False)
    assert request_of(runs.load(key[:12]), "toy-llama") == request
    assert runs.find(request) == key[:12]


def test_needles_made_elsewhere_are_known_by_their_digest_and_cannot_be_run(
    cardboard: Any,
) -> None:
    own = ml.prompts.needles(128, 2, form="atlas", count=1, seed=999)
    result = ml.Store().run(ml.retrieval_score, cardboard.load_model("toy-llama"), own)
    request = request_of(result, "toy-llama")
    assert request.other_prompts == own.digest == request.digest()
    assert request.max_new_tokens == 50
    assert "made in Python" in request.problem()


def test_code_draws_the_same_needles_and_lengths_must_be_numbers() -> None:
    request = RetrievalRequest(**SMALL, seed=4)
    drawn = eval(request.prompts_code(), {"ml": ml})
    assert drawn.digest == request.digest()
    assert request.size == len(drawn) == 4
    wrong = RetrievalRequest.from_fields({**vars(request), "lengths": "128,abc"})
    assert wrong.lengths == "128, abc"
    assert "abc" in wrong.problem()
    assert (wrong.digest(), wrong.size) == (None, 0)


def test_masked_heads_are_ranked_by_score_and_random_ones_are_no_retrieval_heads(
    cardboard: Any,
) -> None:
    scores = runs.load(stored(cardboard))
    masked = MaskRequest.after(RetrievalRequest(model="toy-llama", **SMALL), scores, draws=2)
    assert masked.ranking[:2] == ("L1H0", "L2H1") == masked.exclude
    assert masked.k == (1, 2, 5)  # six heads are left to draw from
    assert masked.seed == 1
    assert masked.digest() != RetrievalRequest(**SMALL).digest()
    assert masked.runs_of_the_model == 4 * (1 + 3 * 3)


def test_one_head_on_the_haystack_says_what_was_copied_and_where_it_looked(
    cardboard: Any,
) -> None:
    scores = runs.load(stored(cardboard))
    read = retrieval_view.read_at(scores, 0, 1, 0)
    assert [step.place for step in read.written] == ["copied", "elsewhere"]
    assert (read.copied, read.window, read.score) == ((True,), (12, 29), 1.0)
    assert read.written[0].looked_at == ml.plots.show_token(" fig", 20)
    far = retrieval_view.read_at(scores, 1, 3, 1)
    assert [step.place for step in far.written] == ["elsewhere", "elsewhere"]


def test_the_page_runs_scores_then_masks_heads_as_a_second_job(cardboard: Any) -> None:
    app = opened("retrieval")
    assert "Which heads fetch the answer" in texts(app)
    assert "about 15 answers written" in texts(app)
    assert (grids_on(app), ml.jobs.TABLE.jobs()) == (0, [])
    app = run_to_the_end(press(app, "run_now"))
    run = app.query_params["run"]
    assert (grids_on(app), len(app.get("plotly_chart"))) == (1, 1)
    assert "answered 15 of 15" in texts(app)
    app.segmented_control(key="chart").set_value("mask")
    app = run_to_the_end(press(app.run(), "mask_now"))
    assert "Recall with heads masked: uniform attention, while writing" in texts(app)
    assert app.query_params["run"] == run
    assert cardboard.runs == 2


def test_a_chosen_head_shows_its_trace_and_a_wrong_link_says_so(cardboard: Any) -> None:
    run = stored(cardboard)
    app = opened("retrieval", run=run, layer="1", head="0")
    assert "L1H0 on the haystack" in texts(app)
    assert "copied 100% of the needle" in texts(app)
    assert "toy-llama is not loaded" in texts(app)
    bad = opened("retrieval", run=run, layer="9", head="0")
    assert "layer '9': this result has layer 0 to 3" in texts(bad)


def test_a_model_that_answers_nothing_is_refused_with_a_way_on(cardboard: Any) -> None:
    cardboard.status = "wrong"
    app = opened("retrieval", run=stored(cardboard))
    assert "answers none of the 4 needles" in texts(app)
    assert "\\$x\\$" in app.warning[0].value  # what the model wrote is shown as text
    assert grids_on(app) == 0
    app = run_to_the_end(press(app, "anyway"))
    assert grids_on(app) == 1
    assert "none was answered" in texts(app)
