"""Entropy and consistency of generated texts, drift of predictions, and the summary of cases."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import toys
import xarray as xr
from scipy import stats

import mechlab as ml
from mechlab.errors import OptionError, PromptError
from mechlab.methods.editing import Delta, Edit
from mechlab.methods.evaluation.texts import InverseFrequencies, ngram_entropy
from mechlab.models import Model
from mechlab.prompts import EditCase, EditRequest
from mechlab.results import check_result

ToyModel = Callable[..., Model]

REQUEST = EditRequest("The capital of {} is", "France", "Rome", "Paris")
CASES = [
    EditCase(
        REQUEST,
        paraphrases=["France is near", "Ann gave Paris to"],
        neighbourhood=["The capital of Italy is"],
        generation_prompts=["The capital of France is", "France"],
        reference_texts=["Rome is the capital of Italy"],
    ),
    EditCase(
        EditRequest("{} was born in", "Ann", "Madrid", "Spain"),
        paraphrases=["Ann by"],
        neighbourhood=["Bob was born in", "Mary was born"],
        generation_prompts=["Ann was born in the"],
    ),
]
TEXTS = ["The river of Rome is near the tower", "Ann and Bob went to", "John gave the book"]


# --- entropy and likeness -------------------------------------------------------------------------


def test_distinct_words_have_the_entropy_of_the_closed_form():
    for n in (3, 10, 41):
        text = " ".join(f"word{k}" for k in range(n))
        expected = math.log2(n - 1) / 3 + 2 * math.log2(n - 2) / 3
        assert ngram_entropy(text) == pytest.approx(expected, abs=1e-12)
    assert ngram_entropy("so so so so so") == ngram_entropy("so") == ngram_entropy("") == 0
    # a b a b a: bigrams ab ba ab ba, trigrams aba bab aba
    third = -(2 / 3 * math.log2(2 / 3) + 1 / 3 * math.log2(1 / 3))
    assert ngram_entropy("a b a b a") == pytest.approx(1 / 3 + 2 * third / 3)


def test_identical_texts_are_alike_by_one_and_disjoint_ones_by_zero():
    words = InverseFrequencies.of(["Rome is in Italy", "Paris is in France"])
    assert words.similarity("Rome is old", "rome Is OLD") == pytest.approx(1)
    assert words.similarity("Rome old", "Paris new") == 0
    assert math.isnan(words.similarity("", "Paris"))


def test_likeness_is_the_cosine_of_counts_times_inverse_frequencies():
    words = InverseFrequencies.of(["rome is in italy", "paris is in france", "paris is in france"])
    rare, known = math.log(3 / 1) + 1, math.log(3 / 2) + 1  # in none and in one of two documents
    first, second = np.array([2 * known, rare, 0]), np.array([known, 0, known])
    expected = first @ second / np.linalg.norm(first) / np.linalg.norm(second)
    assert words.similarity("rome rome tiber", "rome paris") == pytest.approx(expected)


# --- generation -----------------------------------------------------------------------------------


def test_greedy_texts_are_those_of_hugging_face_and_give_the_measures(toy_model: ToyModel):
    model = toy_model("llama", "words")
    found = ml.evaluate_edit(model, CASES, generation_length=20, generation_top_k=1)
    check_result(found)
    hf = toys.make_hf("llama")
    for c, case in enumerate(CASES):
        texts = []
        for p, prompt in enumerate(case.generation_prompts):
            ids = model.tokenizer(prompt, return_tensors="pt").input_ids
            with torch.no_grad():
                while ids.shape[1] < 20:
                    ids = torch.cat([ids, hf(ids).logits[:, -1:].argmax(-1)], 1)
            texts.append(model.tokenizer.decode(ids[0], skip_special_tokens=True))
            assert str(found.generation[c, p].values) == texts[-1]
        mean = np.mean([ngram_entropy(text) for text in texts])
        assert found.generation_entropy[c].item() == pytest.approx(mean)
    assert 0 <= found.consistency[0].item() <= 1 and np.isnan(found.consistency[1].item())


def test_a_sampled_text_depends_on_seed_and_prompt_and_not_on_its_company(toy_model: ToyModel):
    model = toy_model("gpt2", "words")

    def texts(cases: Any, seed: int) -> list[str]:
        found = ml.evaluate_edit(model, cases, generation_length=24, seed=seed)
        return [text for text in found.generation.values.ravel().tolist() if text]

    both = texts(CASES, 0)
    assert both == [*texts(CASES[:1], 0), *texts(CASES[1:], 0)]
    assert both != texts(CASES, 1)


def test_without_generation_nothing_is_measured_on_texts(toy_model: ToyModel):
    found = ml.evaluate_edit(toy_model("mamba", "words"), CASES)
    assert np.isnan(found.generation_entropy).all() and np.isnan(found.consistency).all()
    assert set(found.generation.values.ravel().tolist()) == {""}


# --- drift ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", ["gpt2", "mamba"])
def test_drift_is_the_divergence_of_plain_runs_and_none_without_an_edit(
    family: str, fresh_model: ToyModel
):
    model = fresh_model(family, "words")
    reference = ml.next_token_reference(model, TEXTS)
    check_result(reference)
    still = ml.prediction_drift(model, reference)
    assert float(np.nanmax(np.abs(still.kl))) < 1e-6 and float(still.same_top.mean()) == 1
    before = toys.make_hf(family)
    after = toys.make_hf(family)
    with torch.no_grad():
        for hf in (model.hf, after):
            hf.get_output_embeddings().weight[:40] *= 1.5
    moved = ml.prediction_drift(model, reference, max_batch=1)
    check_result(moved)
    for row, text in enumerate(TEXTS):
        ids = model.tokenizer(text, return_tensors="pt").input_ids
        with torch.no_grad():
            p, q = (hf(ids).logits[0].log_softmax(-1) for hf in (before, after))
        kl = F.kl_div(q, p, log_target=True, reduction="none").sum(-1)
        at = {"prompt": row, "pos": slice(len(kl))}
        np.testing.assert_allclose(moved.kl[at], kl, atol=1e-5)
        loss = [F.nll_loss(logs[:-1], ids[0, 1:], reduction="none") for logs in (p, q)]
        np.testing.assert_allclose(moved.nll_change[at][:-1], loss[1] - loss[0], atol=1e-5)
        assert np.isnan(moved.kl[row, len(kl) :]).all()


def test_references_that_do_not_fit_are_refused(toy_model: ToyModel, monkeypatch: Any):
    words, pieces = toy_model("llama", "words"), toy_model("llama", "bpe")
    reference = ml.next_token_reference(words, TEXTS)
    with pytest.raises(OptionError, match="other tokens"):
        ml.prediction_drift(pieces, reference)
    with pytest.raises(OptionError, match="next_token_reference"):
        ml.prediction_drift(words, xr.Dataset())
    with pytest.raises(PromptError, match="list of texts"):
        ml.next_token_reference(words, TEXTS[0])
    monkeypatch.setattr("mechlab.methods.evaluation.drift.MAX_BYTES", 1000)
    with pytest.raises(OptionError, match="Take fewer or shorter texts"):
        ml.next_token_reference(words, TEXTS)


# --- summary --------------------------------------------------------------------------------------


def made(seed: int, count: int = 40, **fixed: float) -> xr.Dataset:
    """A result with made-up shares, shaped as `evaluate_edit` shapes it."""
    random = np.random.default_rng(seed)
    names = ["efficacy", "paraphrase", "neighbourhood", "other_relations", "languages", "two_hop"]
    names = [n for name in names for n in (name, f"{name}_magnitude")]
    names += ["generation_entropy", "consistency"]
    shares = {name: ("case", random.integers(0, 3, count) / 2) for name in names}
    shares |= {name: ("case", np.full(count, value)) for name, value in fixed.items()}
    about = {"method": "evaluate_edit", "prompts_digest": "x", "options": "{}"}
    about |= {"method_version": 1, "model_fingerprint": str(seed)}
    subjects = ("case", [f"s{n // 2}" for n in range(count)])
    return xr.Dataset(shares, {"subject": subjects}, about)


def test_s_is_the_harmonic_mean_of_the_three_means():
    result = made(0)
    table = ml.edit_summary(result).sel(metric="score")
    means = [float(result[name].mean()) for name in ("efficacy", "paraphrase", "neighbourhood")]
    assert float(table["mean"]) == pytest.approx(3 / sum(1 / mean for mean in means))
    assert float(table.low) < float(table["mean"]) < float(table.high) and int(table.n) == 40
    assert np.isnan(table.change) and np.isnan(table.before)
    zero = ml.edit_summary(made(0, neighbourhood=0.0)).sel(metric="score")
    assert float(zero["mean"]) == float(zero.high) == 0
    without = ml.edit_summary(made(0, paraphrase=math.nan)).sel(metric=["score", "paraphrase"])
    assert np.isnan(without["mean"]).all() and int(without.n[1]) == 0


def test_an_interval_stays_within_what_a_share_can_be_and_is_binomial_where_all_agree():
    table = ml.edit_summary(made(0, efficacy=1.0, two_hop=0.0))
    lowest = 0.025 ** (1 / 20)  # 40 cases of 20 subjects
    assert stats.binomtest(20, 20).proportion_ci(0.95).low == pytest.approx(lowest)
    row = table.sel(metric="efficacy")
    assert (float(row.low), float(row.high)) == pytest.approx((lowest, 1))
    row = table.sel(metric="two_hop")
    assert (float(row.low), float(row.high)) == pytest.approx((0, 1 - lowest))
    rare = made(0, languages=1.0)
    rare["languages"][0] = 0.0
    row = ml.edit_summary(rare).sel(metric="languages")
    assert 0 < float(row.low) < 39 / 40 < float(row.high) == 1


def test_changes_are_paired_by_case():
    before = made(1)
    after = before.copy()
    after["efficacy"] = before["efficacy"] + 0.25  # the same for every case: no uncertainty
    table = ml.edit_summary(after, before=before)
    row = table.sel(metric="efficacy")
    assert [float(row[c]) for c in ("change", "change_low", "change_high")] == pytest.approx(
        [0.25] * 3
    )
    assert float(row["mean"]) - float(row.before) == pytest.approx(0.25)
    assert float(row.high) - float(row.low) > 0.05  # of the mean itself there is
    score = table.sel(metric="score")
    assert 0 < float(score.change_low) <= float(score.change) <= float(score.change_high)
    same = ml.edit_summary(before, before=before)
    assert float(np.abs(same.change).max()) == 0


def test_only_evaluations_of_the_same_cases_are_compared():
    with pytest.raises(OptionError, match="after and before differ in prompts_digest"):
        ml.edit_summary(made(0), before=made(0).assign_attrs(prompts_digest="y"))
    with pytest.raises(OptionError, match="before did not come from evaluate_edit"):
        ml.edit_summary(made(0), before=xr.Dataset())
    with pytest.raises(OptionError, match="confidence"):
        ml.edit_summary(made(0), confidence=95)


@pytest.fixture(scope="module")
def edits() -> tuple[Model, list[Edit]]:
    """A model and two edits of it, drawn at random."""
    model = ml.wrap_model(toys.make_hf("llama"), toys.make_tokenizer("words"))
    found = []
    for seed in range(2):
        random = np.random.default_rng(seed)
        factors = random.normal(size=(64, 1)), random.normal(size=(128, 1))
        found.append(Edit((Delta(1, "down_proj", *factors),), (REQUEST,), model.fingerprint))
    return model, found


def test_an_edit_in_force_changes_the_evaluation_and_leaves_nothing_behind(
    edits: tuple[Model, list[Edit]],
):
    model, (edit, _) = edits
    before = ml.evaluate_edit(model, CASES, generation_length=12)
    with edit.applied(model):
        after = ml.evaluate_edit(model, CASES, generation_length=12)
    assert after.attrs["model_fingerprint"] != before.attrs["model_fingerprint"]
    assert not np.allclose(after.nll, before.nll, equal_nan=True)
    assert (after.generation.values != before.generation.values).any()
    table = ml.edit_summary(after, before=before)
    assert table.attrs["before_fingerprint"] == before.attrs["model_fingerprint"]
    again = ml.evaluate_edit(model, CASES, generation_length=12)
    assert again.drop_attrs().identical(before.drop_attrs())


def test_each_case_is_measured_under_its_own_edit_alone(edits: tuple[Model, list[Edit]]):
    model, both = edits
    reference = ml.next_token_reference(model, TEXTS)
    made: list[str] = []

    def make(request: EditRequest) -> Edit:
        assert not model.edits  # on the unedited model
        made.append(request.subject)
        return both[len(made) - 1]

    found = ml.evaluate_each_edit(model, CASES, make, generation_length=12, reference=reference)
    check_result(found)
    assert made == ["France", "Ann"] and not model.edits
    assert found.edit_digest.values.tolist() == [edit.digest for edit in both]
    for number, edit in enumerate(both):
        with edit.applied(model):
            alone = ml.evaluate_edit(model, CASES, generation_length=12).isel(case=number)
            drift = ml.prediction_drift(model, reference).kl.mean()
        assert float(found.drift[number]) == pytest.approx(float(drift)) and float(drift) > 0.01
        for name in alone.data_vars:
            got, expected = found[name].isel(case=number).values, alone[name].values
            if name == "generation":
                assert got.tolist() == expected.tolist()
            else:
                np.testing.assert_allclose(got, expected, atol=1e-5, err_msg=str(name))
    listed = ml.evaluate_each_edit(model, CASES, both)
    np.testing.assert_allclose(listed.nll, found.nll, atol=1e-6)
    assert np.isnan(listed.drift).all()
    summary = ml.edit_summary(listed, before=ml.evaluate_edit(model, CASES))
    assert "drift" in summary.metric and np.isfinite(summary.change.sel(metric="efficacy"))
    with pytest.raises(OptionError, match="edits: 1 for 2 cases"):
        ml.evaluate_each_edit(model, CASES, both[:1])
