"""Retrieval heads: exact scores on synthetic attention, a planted model, masks, and refusals."""

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import needle_model
import numpy as np
import pytest
import torch
import toys
import xarray as xr
from needle_model import INDUCTION, N_HEADS, N_LAYERS, PREVIOUS

import mechlab as ml
from mechlab.errors import OptionError, PromptError, SiteError
from mechlab.methods.retrieval.copying import copies, head_scores
from mechlab.methods.retrieval.layout import lay_out
from mechlab.methods.retrieval.rouge import rouge1_recall
from mechlab.prompts import NeedlePrompt, PromptSet, closed_book

MakeModel = Callable[..., ml.Model]
READ, NEEDLE = (9, 4, 5, 6, 7, 8, 3), (1, 2, 3, 4)  # tokens 4 5 6 7 stand at positions 1 to 4


@pytest.fixture(scope="module")
def scores() -> xr.Dataset:
    return ml.retrieval_score(needle_model.model(), needle_model.prompts())


# ------------------------------------------------------------------------- synthetic attention


def score(looked: list[int], written: list[int], *, dedupe: bool = True) -> float:
    attended = np.array(looked, dtype=np.int32)[:, None, None]
    return float(head_scores(copies(attended, written, READ, NEEDLE), dedupe=dedupe).item())


@pytest.mark.parametrize(
    ("looked", "written", "expected"),
    [
        ([1, 2, 3, 4], [4, 5, 6, 7], 1.0),  # walks along the needle, and copies it
        ([1, 2, 3, 4], [5, 6, 7, 8], 0.0),  # looks there, but other tokens are written
        ([0, 0, 6, 5], [4, 5, 6, 7], 0.0),  # the needle is written, but attention is elsewhere
        ([1, 2, 0, 0], [4, 5, 6, 7], 0.5),  # half of it
        ([4, 3, 2, 1], [7, 6, 5, 4], 1.0),  # any order
        ([], [], 0.0),  # nothing was written: failed, not missing
    ],
)
def test_a_head_scores_the_share_of_the_needle_that_it_copies(
    looked: list[int], written: list[int], expected: float
) -> None:
    assert score(looked, written) == score(looked, written, dedupe=False) == expected


def test_a_token_copied_again_counts_once_unless_counted_as_in_the_published_code() -> None:
    assert score([1, 1, 1, 1, 2, 2], [4, 4, 4, 4, 5, 5]) == 0.5
    assert score([1, 1, 1, 1, 2, 2], [4, 4, 4, 4, 5, 5], dedupe=False) == 1.5


def test_scores_follow_their_heads_when_heads_are_reordered() -> None:
    random = np.random.default_rng(0)
    attended, written = random.integers(0, 7, (20, 3, 5)), random.integers(3, 9, 20).tolist()
    found, order = head_scores(copies(attended, written, READ, NEEDLE)), [3, 1, 4, 0, 2]
    again = head_scores(copies(attended[:, :, order], written, READ, NEEDLE))
    assert found.shape == (3, 5) and len(np.unique(found)) > 2
    np.testing.assert_array_equal(again, found[:, order])


@pytest.mark.parametrize(
    ("response", "answer", "expected"),
    [
        ("eat a sandwich", "Eat a Sandwich.", 100),
        ("sandwich", "eat a sandwich and sit", 20),
        ("a a a", "a b a b", 50),  # a word that is asked for twice counts twice, not three times
        ("", "b", 0),
        ("das Brötchen, süß", "süß Brötchen", 100),
    ],
)
def test_recall_is_the_share_of_the_answers_words(
    response: str, answer: str, expected: float
) -> None:
    assert rouge1_recall(response, answer) == expected


# ---------------------------------------------------------------------------- the planted model


def test_the_planted_head_retrieves_every_needle_and_no_other_head_does(
    scores: xr.Dataset,
) -> None:
    assert scores.success.all() and scores.stopped.all()
    assert [*scores.text.values] == [*scores.answer.values]
    planted = scores.score.sel(layer=INDUCTION.layer, head=INDUCTION.head)
    assert (planted == 1).all() and ml.retrieval_heads(scores, threshold=0.5) == [INDUCTION]
    assert scores.hits.sel(layer=INDUCTION.layer, head=INDUCTION.head).all()
    assert (scores.mass.sel(layer=INDUCTION.layer, head=INDUCTION.head) > 0.999).all()
    assert (scores.score.sel(layer=PREVIOUS.layer, head=PREVIOUS.head) == 0).all()
    assert set(scores.tokens.values) == {40} and scores.found.all()
    assert [*map(str, scores.needle_token.values[0])] == ["a0", "a1", "a2"]


@pytest.mark.parametrize("mask", ["uniform", "zero"])
def test_masking_the_planted_head_gives_0_and_masking_the_others_100(mask: Any) -> None:
    """The first head has done its work when decoding begins: only masks of the prompt reach it."""
    others = [
        ml.Head(layer, head)
        for layer in range(N_LAYERS)
        for head in range(N_HEADS)
        if ml.Head(layer, head) not in (INDUCTION, PREVIOUS)
    ]
    sets = {"induction": [INDUCTION], "previous": [PREVIOUS], "others": others, "none": []}
    recall = {
        phase: ml.needle_recall(
            needle_model.model(), needle_model.prompts(), ablate=sets, mask=mask, phase=phase
        )
        for phase in ("decode", "all")
    }
    expected = {"decode": [0, 100, 100, 100], "all": [0, 0, 100, 100]}
    for phase, found in recall.items():
        assert (found.recall == xr.DataArray(expected[phase], dims="head_set")).all()
        assert (found.unmasked_recall == 100).all()
        np.testing.assert_array_equal(found.effect, found.recall - 100)
        np.testing.assert_array_equal(found.success, found.recall == 100)
        assert (found.attrs["mask"], found.attrs["phase"]) == (mask, phase)
        assert [*found.k.values] == [1, 1, 4, 0]


def test_conditioned_and_unconditional_scores_differ_as_computed_by_hand() -> None:
    """One word each: needles of one word are answered in full, of three words to a third."""
    long = needle_model.prompts()[0]
    short = replace(long, needle="k1 a4 .", question="k1", answer="a4", name="short")
    found = ml.retrieval_score(needle_model.model(), [long, short, short, long], max_new_tokens=1)
    planted = found.sel(layer=INDUCTION.layer, head=INDUCTION.head)
    np.testing.assert_allclose(found.rouge1_recall, [100 / 3, 100, 100, 100 / 3])
    assert [*found.success.values] == [False, True, True, False]
    np.testing.assert_allclose(planted.score, [1 / 3, 1, 1, 1 / 3])
    np.testing.assert_allclose(planted.retrieval_score, [np.nan, 1, 1, np.nan])
    summary = ml.retrieval_summary(found).sel(layer=INDUCTION.layer, head=INDUCTION.head)
    assert math.isclose(summary.retrieval_score, 1) and math.isclose(
        summary.activation_frequency, 1
    )
    assert math.isclose(summary.retrieval_score_all, 2 / 3)
    assert (int(summary.prompts), int(summary.answered)) == (4, 2)


def test_without_a_needle_nothing_is_scored_and_nothing_recalled() -> None:
    prompts = needle_model.prompts()[:2]
    control = replace(prompts[0], needle="")
    mixed = ml.retrieval_score(needle_model.model(), [prompts[1], control])
    assert [*mixed.found.values] == [True, False] and [*mixed.success.values] == [True, False]
    for name in ("score", "retrieval_score", "retrieval_score_all", "active", "mass"):
        assert mixed[name][0].notnull().all() and mixed[name][1].isnull().all()
    assert not mixed.hits[1].any() and int(mixed.needle_tokens[1]) == 0
    alone = ml.needle_recall(needle_model.model(), closed_book(prompts), max_new_tokens=5)
    assert (alone.recall == 0).all() and [*alone.head_set.values] == ["unmasked"]


def test_random_controls_cover_the_grid_and_never_hold_a_ranked_head() -> None:
    prompts = needle_model.prompts()[:1]
    ranking = [INDUCTION, ml.Head(0, 0)]
    curve = ml.retrieval_curve(
        needle_model.model(), prompts, ranking=ranking, k=[1, 2], draws=12, max_new_tokens=3
    )
    assert (
        curve.sizes["head_set"] == 2 + 24 and (curve.is_control.values == (curve.draw >= 0)).all()
    )
    assert (curve.recall.sel(head_set=["top 1", "top 2"]) == 0).all()
    drawn = [ml.heads(*text.split("+")) for text in curve.members.values[curve.is_control.values]]
    assert [len(group) for group in drawn] == [*curve.k.values[2:]]
    assert {head for group in drawn for head in group} == {
        ml.Head(layer, head) for layer in range(N_LAYERS) for head in range(N_HEADS)
    } - set(ranking)
    previous = np.array([PREVIOUS in group for group in drawn])
    assert (curve.recall.values[0, 2:] == 100).all() and previous.any()
    again = ml.retrieval_curve(
        needle_model.model(), needle_model.prompts()[3:5], ranking=ranking, k=[1, 2], draws=12,
        max_new_tokens=1,
    )  # fmt: skip
    assert [*again.members.values] == [*curve.members.values]  # the same for every prompt


# --------------------------------------------------------------- agreement with plain attention


@pytest.mark.parametrize("family", toys.ATTENTION_FAMILIES)
def test_hits_equal_those_of_full_eager_attention_per_query_head(
    toy_model: MakeModel, family: str
) -> None:
    model, plain = toy_model(family), toys.make_hf(family)
    filler = " ".join(f"w{i} w{i + 1} in" for i in range(20))
    prompts = [
        NeedlePrompt(filler, "The river near Rome Italy", "The", "near Rome Italy", n, ends="n")
        for n in (30, 45)
    ]
    found = ml.retrieval_score(model, prompts, max_new_tokens=12, stop="")
    assert found.sizes["head"] == toys.N_HEADS
    expected = np.zeros(found.hits.shape, dtype=bool)
    for index, laid in enumerate(lay_out(model, PromptSet(tuple(prompts)))):
        ids = list(laid.tokens)
        for step in range(int((found.attended[index, :, 0, 0] >= 0).sum())):
            with torch.no_grad():
                out = plain(torch.tensor([ids]), output_attentions=True, use_cache=False)
            token = int(out.logits[0, -1].argmax())
            rows = torch.stack([layer[0, :, -1] for layer in out.attentions])
            np.testing.assert_array_equal(found.attended[index, step], rows.argmax(-1))
            for place, position in enumerate(laid.answer):
                if ids[position] == token:
                    expected[index, ..., place] |= (rows.argmax(-1) == position).numpy()
            ids.append(token)
        written = model.tokenizer.decode(ids[len(laid.tokens) :], skip_special_tokens=True)
        assert written == str(found.text[index].item())
    np.testing.assert_array_equal(found.hits, expected)


def test_prompts_continued_together_score_as_they_do_alone() -> None:
    """The longest prompt ends first: those that are left go on with a narrower prefix."""
    long, model = needle_model.prompts(60)[1], needle_model.model()
    short = replace(long, needle="k1 a4 .", question="k1", answer="a4", name="short")
    mixed = [short, replace(long, length=50), *needle_model.prompts(36)[3:6], short]
    together = ml.retrieval_score(model, mixed)
    alone = ml.retrieval_score(model, mixed, max_batch=1)
    xr.testing.assert_allclose(together, alone, atol=1e-6)
    assert together.success.all()
    masks = {"others": ["L0H0", "L1H0"], "induction": [INDUCTION]}
    batched = ml.needle_recall(model, mixed, ablate=masks)
    assert [*batched.recall.mean("prompt").values] == [100, 0]


# --------------------------------------------------------------------------- rankings and store


def grid(values: list[float], layers: int = 2) -> xr.DataArray:
    cells = np.array(values, dtype=float).reshape(layers, -1)
    return xr.DataArray(cells, dims=("layer", "head"))


def test_the_threshold_is_inclusive_whatever_the_rounding() -> None:
    array = xr.concat(
        [grid([0.3, 0.2, 0.9, 0.29]), grid([0, 0, 0, 0]), grid([0, 0.1, 0, 0])], "prompt"
    )
    assert float(array.mean("prompt")[0, 0]) < 0.1  # 0.3 / 3 in floating point
    assert [*map(str, ml.retrieval_heads(array))] == ["L1H0", "L0H1", "L0H0"]
    assert [*map(str, ml.retrieval_heads(array, k=1))] == ["L1H0"]
    counts = ml.retrieval_histogram(array)
    assert [*counts.values] == [0, 1, 3, 0]
    assert [*ml.retrieval_histogram(grid([0, 0.1, 0.5, 0.49])).values] == [1, 0, 2, 1]


def test_rankings_are_compared_by_ranks_and_by_their_tops() -> None:
    ours = grid([0.9, 0.8, 0.1, 0.0, 0.3, 0.2])
    same = ml.compare_rankings(ours, ours**3, k=2)
    assert float(same.rank_correlation) == 1 and float(same.overlap) == 1
    turned = ml.compare_rankings(ours, -ours, k=3)
    assert float(turned.rank_correlation) == -1 and float(turned.overlap) == 0
    assert float(turned.chance) == 0.5 and float(turned.correlation) == pytest.approx(-1)
    with pytest.raises(OptionError, match="same grid"):
        ml.compare_rankings(ours, grid([1, 2, 3, 4]), k=2)


def test_the_ranking_of_the_planted_model_is_stable(scores: xr.Dataset) -> None:
    found = ml.retrieval_stability(scores, k=1, cluster="group", splits=20)
    assert [*found.case.values] == ["depth", "halves"]
    assert (found.overlap == 1).all()
    assert (found.frequency.sel(layer=INDUCTION.layer, head=INDUCTION.head) == 1).all()


def test_stability_needs_two_prompts_that_were_answered(scores: xr.Dataset) -> None:
    failed = scores.assign(retrieval_score=scores.retrieval_score * np.nan)
    with pytest.raises(OptionError, match=f"0 of {scores.sizes['prompt']} prompts have a retr"):
        ml.retrieval_stability(failed, k=1)
    with pytest.raises(OptionError, match="1 of 1 prompts"):
        ml.retrieval_stability(scores.isel(prompt=[0]), k=1)


def test_results_are_stored_and_a_killed_run_resumes(tmp_path: Path) -> None:
    store, model = ml.Store(str(tmp_path)), needle_model.model()
    prompts = needle_model.prompts()[:3]
    seen: list[int] = []

    def stop_at_two(step: ml.Progress) -> None:
        seen.append(step.done)
        if step.done == 2:
            raise ml.Cancelled("enough")

    with pytest.raises(ml.Cancelled):
        store.run(ml.retrieval_score, model, prompts, progress=stop_at_two)
    resumed: list[int] = []
    result = store.run(
        ml.retrieval_score, model, prompts, progress=lambda step: resumed.append(step.done)
    )
    assert seen == [1, 2] and resumed[0] == 3
    direct = ml.retrieval_score(model, prompts)
    xr.testing.assert_allclose(result, direct)  # the last prompt was prefilled alone this time
    xr.testing.assert_equal(result.hits, direct.hits)
    xr.testing.assert_equal(store.run(ml.retrieval_score, model, prompts), result)


def test_texts_of_several_masks_are_read_back_in_their_places(tmp_path: Path) -> None:
    store, model = ml.Store(str(tmp_path)), needle_model.model()
    call = (ml.needle_recall, model, needle_model.prompts()[:3])
    masks = {"others": ["L0H0", "L1H0"], "induction": [INDUCTION], "none": []}
    first = store.run(*call, ablate=masks)
    assert (first.text.sel(head_set="others") != first.text.sel(head_set="induction")).any()
    xr.testing.assert_equal(store.run(*call, ablate=masks), first)


# -------------------------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"mask": "attention"}, OptionError, "mask='attention'"),
        ({"phase": "prefill"}, OptionError, "phase='prefill'"),
        ({"ablate": ["L1H2", "L5H0", "L0H7"]}, SiteError, "does not have: L5H0, L0H7"),
        ({"ablate": {"a": ["L0H3"]}}, SiteError, "L0H3"),
        ({"ablate": ["L1H2", "L1H2"]}, OptionError, "more than once"),
        ({"ablate": {}}, OptionError, "no set at all"),
        ({"max_new_tokens": 0}, OptionError, "max_new_tokens=0"),
        ({"success": 100}, OptionError, "success=100"),
        ({"stop": 13}, OptionError, "stop=13"),
        ({"chat": "yes"}, OptionError, "chat='yes'"),
    ],
)
def test_what_cannot_be_masked_is_refused(
    options: dict[str, Any], error: type[Exception], text: str
) -> None:
    with pytest.raises(error, match=text):
        ml.needle_recall(needle_model.model(), needle_model.prompts(), **options)


def test_other_wrong_calls_are_refused(toy_model: MakeModel, scores: xr.Dataset) -> None:
    model, prompts = needle_model.model(), needle_model.prompts()
    with pytest.raises(OptionError, match="dedupe=1"):
        ml.retrieval_score(model, prompts, dedupe=1)  # type: ignore[arg-type]
    with pytest.raises(SiteError, match="recurrent"):
        ml.retrieval_score(toy_model("mamba"), prompts)
    with pytest.raises(PromptError, match="not NeedlePrompt"):
        ml.retrieval_score(model, [ml.prompts.Fact("a b", "a")])
    with pytest.raises(OptionError, match=r"k=\[3\] of a ranking of 1"):
        ml.retrieval_curve(model, prompts, ranking=[INDUCTION], k=[1, 3])
    with pytest.raises(OptionError, match="left to draw from"):
        most = ["L0H0", "L0H1", "L0H2", "L1H0", "L1H1"]
        ml.retrieval_curve(model, prompts, ranking=["L1H2", "L0H1"], k=[2], exclude=most)
    with pytest.raises(OptionError, match="no retrieval_score"):
        ml.retrieval_heads(scores.drop_vars("retrieval_score"))
    with pytest.raises(OptionError, match="edges="):
        ml.retrieval_histogram(scores, edges=(0.5, 0.1))
