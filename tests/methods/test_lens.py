"""What the logit lens must show, and what it refuses."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import toys
import xarray as xr

from mechlab import engine
from mechlab.engine import Base
from mechlab.errors import OptionError, SiteError
from mechlab.hooks import Ablate, Site
from mechlab.methods.attribution import direct_logit_attribution
from mechlab.methods.lens import logit_lens
from mechlab.models import Model
from mechlab.prompts import Fact, PromptPair
from mechlab.results import check_result
from mechlab.store import Store

ToyModel = Callable[..., Model]
PAIRS = [
    PromptPair("The capital of France is", "The capital of Italy is", "Paris", "Rome"),
    PromptPair("w1 w2 w5 Ann was born in the city of", "w1 Bob of", "Madrid", "Cairo"),
    PromptPair("Oslo is near", "Lima is near", "w7", "Egypt"),
]
LAST = toys.N_LAYERS - 1


def lens(model: Model, prompts: Any = PAIRS, **options: Any) -> xr.Dataset:
    found = logit_lens(model, prompts, **options)
    check_result(found)
    return found


def writers(model: Model) -> list[str]:
    return ["attn_out", "mlp_out"] if model.has_attention else ["mixer_out"]


@pytest.mark.parametrize("norm", ["own", "frozen"])
def test_the_last_residual_gives_the_models_own_predictions(
    norm: str, family: str, toy_model: ToyModel
) -> None:
    model = toy_model(family)
    found = lens(model, norm=norm, top_k=3).sel(site="resid_post", layer=LAST, pos=-1)
    for row, pair in enumerate(PAIRS):
        logits = torch.from_numpy(
            engine.run(model, [Base(pair.clean)], [], read="logits").bases
        )[0]  # fmt: skip
        logs = logits.log_softmax(-1)
        ids = [
            model.answer_tokens([pair.clean], [a])[0][0] for a in (pair.answer, pair.wrong_answer)
        ]
        ids = [int(logits.argmax()), *ids]
        np.testing.assert_allclose(found.logit[row], logits[ids], atol=3e-5)
        np.testing.assert_allclose(found.log_probability[row], logs[ids], atol=3e-5)
        np.testing.assert_allclose(found.probability[row], logs[ids].exp(), atol=1e-5)
        ranks = [int((logits > logits[token]).sum()) for token in ids]
        assert found["rank"][row].values.tolist() == ranks
        top = logs.topk(3)
        assert found.top_token[row].values.tolist() == [
            model.token_string(int(t)) for t in top.indices
        ]
        np.testing.assert_allclose(found.top_probability[row], top.values.exp(), atol=1e-5)
        assert found.predicted_token[row].item() == model.token_string(ids[0])


def test_the_extraction_rate_of_the_last_layer_is_one_and_of_earlier_ones_less(
    family: str, toy_model: ToyModel
) -> None:
    found = lens(toy_model(family), positions="all")
    extracted = (found["rank"].sel(answer="predicted", site="resid_post") == 0).where(
        found["rank"].sel(answer="predicted", site="resid_post").notnull()
    )
    rate = extracted.mean(("prompt", "pos"))
    assert float(rate[LAST]) == 1
    assert float(rate[0]) < 1


def test_the_residual_after_a_block_is_the_one_before_the_next(
    family: str, toy_model: ToyModel
) -> None:
    found = lens(toy_model(family), sites=["resid_post", "resid_pre"], positions="all")
    assert found.site.values.tolist() == ["resid_pre", "resid_post"]
    after = found.log_probability.sel(site="resid_post").isel(layer=slice(0, LAST)).values
    before = found.log_probability.sel(site="resid_pre").isel(layer=slice(1, None)).values
    np.testing.assert_allclose(after, before, atol=2e-5)


def test_all_positions_hold_the_last_one_and_nothing_beyond_the_end(
    family: str, toy_model: ToyModel
) -> None:
    model = toy_model(family)
    every, last = lens(model, positions="all"), lens(model)
    assert last.pos.values.tolist() == [-1]
    lengths = [len(model.token_strings(pair.clean)) for pair in PAIRS]
    for row, length in enumerate(lengths):
        np.testing.assert_allclose(
            every.logit[row, :, :, length - 1], last.logit[row, :, :, 0], atol=2e-5
        )
        assert every.token[row].values.tolist()[:length] == model.token_strings(PAIRS[row].clean)
        assert every.logit[row, :, :, :length].notnull().all()
        assert every.logit[row, :, :, length:].isnull().all()
        assert (every.top_token[row, :, :, length:] == "").all()


def test_a_state_in_the_middle_of_a_prompt_is_that_of_the_prompt_cut_there(
    toy_model: ToyModel,
) -> None:
    model, text = toy_model("llama"), "w1 w2 w5 Ann was born in the city of"
    whole = lens(model, Fact(text, "Ann", "Madrid"), positions="all")
    short = lens(model, Fact("w1 w2 w5 Ann was", "Ann", "Madrid"))
    np.testing.assert_allclose(whole.logit[0, :, :, 5], short.logit[0, :, :, 0], atol=2e-5)
    assert whole.predicted_token[0, 5].item() == short.predicted_token[0, 0].item()


def test_with_a_frozen_norm_decoded_writes_add_up_to_the_decoded_stream(
    family: str, toy_model: ToyModel
) -> None:
    """A difference of two answers' logits: biases of the readout are in the first state too."""
    model = toy_model(family)
    sites = ["resid_pre", "resid_post", *writers(model)]
    found = lens(model, sites=sites, norm="frozen", positions="all").logit
    change = found.sel(site="resid_post") - found.sel(site="resid_pre")
    written = found.sel(site=writers(model)).sum("site", skipna=False)
    np.testing.assert_allclose(written, change, atol=5e-5)
    assert float(np.abs(change).max()) > 0.1


def test_decoded_writes_are_direct_attributions(family: str, toy_model: ToyModel) -> None:
    """The lens decodes a module's output, attribution takes its share: one number."""
    model = toy_model(family)
    site = writers(model)[-1]
    decoded = lens(model, sites=[site], norm="frozen").logit.sel(site=site, pos=-1)
    difference = decoded.sel(answer="answer") - decoded.sel(answer="wrong_answer")
    shares = direct_logit_attribution(model, PAIRS, by="component").component_attribution
    labels = [f"L{layer}.{site.removesuffix('_out')}" for layer in range(model.n_layers)]
    np.testing.assert_allclose(difference, shares.sel(component=labels), atol=2e-5)


def test_without_norm_it_is_unembedding_times_state(toy_model: ToyModel) -> None:
    model, pair = toy_model("gpt2"), PAIRS[0]
    found = lens(model, pair, norm="none", sites=["resid_mid"])
    (seen,) = engine.record(model, [Base(pair.clean)], [("resid_mid", 1)])
    expected = model.hf.get_output_embeddings().weight @ seen.values["resid_mid", 1][-1]
    token = model.answer_tokens([pair.clean], [pair.answer])[0][0]
    assert float(found.logit.sel(answer="answer", layer=1).item()) == pytest.approx(
        float(expected[token]), abs=1e-5
    )
    own, frozen = (lens(model, pair, norm=n, sites=["resid_mid"]).logit for n in ("own", "frozen"))
    assert float(np.abs(own - found.logit).max()) > 0.1
    assert float(np.abs(own - frozen).max()) > 0.1


def test_an_intervention_is_seen_from_its_layer_on(toy_model: ToyModel) -> None:
    model = toy_model("gpt2")
    plain = lens(model).logit.sel(answer=["answer", "wrong_answer"])
    cut = lens(model, interventions=[Ablate(Site("mlp_out", 1))]).logit
    change = np.abs(cut.sel(answer=["answer", "wrong_answer"]) - plain).max(
        ("prompt", "site", "pos", "answer")
    )
    assert float(change[0]) == 0
    assert float(change[1:].min()) > 1e-3


def test_facts_without_a_target_follow_the_prediction_alone(toy_model: ToyModel) -> None:
    model = toy_model("gpt2")
    facts = [Fact("Paris is the capital of", "Paris"), Fact("Oslo is in", "Oslo", "Norway")]
    found = lens(model, facts, layers=[0, LAST])
    assert found.answer.values.tolist() == ["predicted", "answer"]
    assert found.logit.sel(answer="answer")[0].isnull().all()
    assert found.logit.sel(answer="answer")[1].notnull().all()
    assert found.answer_token.values.tolist() == [["", ""], ["", "Norway"]]
    assert found.layer.values.tolist() == [0, LAST]


def test_stored_prompt_by_prompt_it_is_what_a_whole_run_gives(
    toy_model: ToyModel, tmp_path: Any
) -> None:
    model = toy_model("neox")
    stored = Store(tmp_path).run(logit_lens, model, PAIRS, positions="all")
    whole = lens(model, positions="all")
    np.testing.assert_allclose(stored.logit, whole.logit, atol=2e-5)
    assert (stored.top_token == whole.top_token).all()
    np.testing.assert_array_equal(stored["rank"], whole["rank"])


def test_what_cannot_be_decoded_is_refused(toy_model: ToyModel) -> None:
    model = toy_model("neox")
    with pytest.raises(SiteError, match=r"\['z', 'resid'\] cannot be decoded. Allowed: resid_pre"):
        lens(model, sites=["z", "resid_post", "resid"])
    with pytest.raises(SiteError, match="'resid_mid': gpt_neox blocks have no such site"):
        lens(model, sites=["resid_mid"])
    with pytest.raises(SiteError, match="layers go from 0 to 2"):
        lens(model, layers=[0, 7])
    with pytest.raises(OptionError, match="top_k=0"):
        lens(model, top_k=0)
    with pytest.raises(OptionError, match="top_k=9999 of 320 tokens"):
        lens(model, top_k=9999)
    for name in ("positions", "norm", "run"):
        with pytest.raises(OptionError, match=f"{name}='x'. Allowed"):
            lens(model, **{name: "x"})
    with pytest.raises(OptionError, match="run='corrupted' of facts"):
        lens(model, Fact("Oslo is in", "Oslo"), run="corrupted")
