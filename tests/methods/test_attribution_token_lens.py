"""What the Token Lens must show (arXiv 2502.20475): a partition of what attention brings."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import circuits
import numpy as np
import pytest
import toys
import xarray as xr

from mechlab import engine
from mechlab.engine import Base
from mechlab.errors import OptionError, PromptError, SiteError
from mechlab.hooks import Block
from mechlab.methods.attribution import direct_logit_attribution, token_lens
from mechlab.methods.lens import logit_lens
from mechlab.models import Model
from mechlab.prompts import Fact, PromptPair
from mechlab.results import check_result
from mechlab.store import Store

ToyModel = Callable[..., Model]
pytestmark = pytest.mark.filterwarnings("ignore::mechlab.models.AnswerTokenWarning")
FACTS = [
    Fact("The Eiffel Tower is located in the city of", "Eiffel Tower", "Paris"),
    Fact("Paris is the capital of", "Paris", "France"),
    Fact("w1 w2 born in Space Needle", "Space Needle", "w7"),
]


def lens(model: Model, prompts: Any = FACTS, **options: Any) -> xr.Dataset:
    found = token_lens(model, prompts, **options)
    check_result(found)
    return found


def test_the_groups_of_a_layer_and_its_bias_add_up_to_the_attention_output(
    attention_family: str, toy_model: ToyModel
) -> None:
    """Decoded by the logit lens with a frozen norm, which knows nothing of heads and tokens."""
    model = toy_model(attention_family)
    found = lens(model, decode=["subject"])
    whole = logit_lens(model, FACTS, sites=["attn_out", "mlp_out"], norm="frozen")
    whole = whole.logit.isel(pos=0).sel(answer="answer")
    summed = (found.source_logit.sum("source") + found.bias_logit).sel(answer="answer")
    np.testing.assert_allclose(summed, whole.sel(site="attn_out"), atol=2e-5)
    np.testing.assert_allclose(
        found.attention_logit.sel(answer="answer"), whole.sel(site="attn_out"), atol=2e-5
    )
    np.testing.assert_allclose(
        found.mlp_logit.sel(answer="answer"), whole.sel(site="mlp_out"), atol=2e-5
    )
    assert float(np.abs(found.source_logit.sel(source="subject")).min()) > 1e-4
    assert (float(np.abs(found.bias_logit).max()) > 0) == (attention_family != "llama")


def test_groups_partition_the_tokens_and_empty_ones_are_nan(toy_model: ToyModel) -> None:
    found = lens(toy_model("gpt2"))
    assert found.source.values.tolist() == ["last", "other", "subject"]
    lengths = [10, 6, 7]  # a beginning-of-sequence token in front
    assert found.source_tokens.sum("source").values.tolist() == lengths
    assert found.source_tokens.values.tolist() == [[1, 7, 2], [1, 4, 1], [0, 5, 2]]
    empty = found.source_logit.sel(source="last")[2]  # its last token belongs to the subject
    assert np.isnan(empty).all()
    assert found.source_logit[:2].notnull().all()


def test_it_is_the_attribution_by_source_token_summed_over_heads(toy_model: ToyModel) -> None:
    model = toy_model("llama")
    shares = direct_logit_attribution(model, FACTS, by="head_source", metric="logit")
    found = lens(model, centred=True).source_logit.sel(answer="answer")
    for row, fact in enumerate(FACTS):
        first, last = model.subject_positions(fact)
        expected = shares.source_attribution[row, ..., first : last + 1].sum(("head", "pos"))
        np.testing.assert_allclose(found[row].sel(source="subject"), expected, atol=1e-5)


def test_centring_takes_the_average_over_the_vocabulary(toy_model: ToyModel) -> None:
    model = toy_model("gpt2")
    plain, centred = lens(model, decode=["subject"]), lens(model, decode=["subject"], centred=True)
    gap = plain.source_logit - centred.source_logit
    np.testing.assert_allclose(gap.isel(answer=0), gap.isel(answer=1), atol=1e-5)
    assert float(np.abs(gap).max()) > 1e-3


def test_cutting_a_group_of_tokens_leaves_nothing_of_it_and_its_share_of_the_rest(
    toy_model: ToyModel,
) -> None:
    """Weights set to 0 after the softmax in one layer: there, only that group's share goes."""
    model, fact = toy_model("gpt2"), FACTS[0]
    first, last = model.subject_positions(fact)
    end = len(model.token_strings(fact.prompt)) - 1
    cut = Block(1, (end,), tuple(range(first, last + 1)), mode="zero")
    before, after = lens(model, fact), lens(model, fact, interventions=[cut])
    here = {"prompt": 0, "layer": 1, "answer": 0}
    assert float(after.source_logit.sel(source="subject").isel(here)) == 0
    (one, other) = engine.record(
        model, [Base(fact.prompt), Base(fact.prompt, (cut,))], [("attn_out", 1)]
    )
    assert float((one.values["attn_out", 1] - other.values["attn_out", 1])[-1].abs().max()) > 1e-2
    scales = [
        direct_logit_attribution(
            model, fact, by="component", metric="logit", interventions=steps
        ).final_scale.item()
        for steps in ([], [cut])
    ]
    for source in ("last", "other"):
        kept = [d.source_logit.sel(source=source).isel(here).item() * s
                for d, s in zip((before, after), scales, strict=True)]  # fmt: skip
        assert kept[0] == pytest.approx(kept[1], rel=1e-3)


def test_an_anti_copy_head_lowers_the_token_it_reads_and_no_other_group_counts() -> None:
    circuit = circuits.anti_copy()
    pairs = [
        PromptPair(p.clean, p.corrupted, p.answer, p.wrong_answer,
                   places=(("city", 10, 10 + len(p.answer)),))
        for p in circuit.pairs
    ]  # fmt: skip
    assert all(pair.clean[10:].startswith(pair.answer) for pair in pairs)
    found = lens(circuit.model, pairs, centred=True)
    head = circuit.heads["anti"]
    assert found.source.values.tolist() == ["last", "other", "city"]
    city = found.source_logit.sel(source="city", layer=head.layer)
    lowered = city.sel(answer="answer") - city.sel(answer="wrong_answer")
    np.testing.assert_allclose(lowered, circuit.direct["anti"], rtol=1e-4)
    rest = found.source_logit.drop_sel(source="city")
    assert float(np.abs(rest).max()) < 1e-5
    assert float(np.abs(found.source_logit.drop_sel(layer=head.layer)).max()) < 1e-5


def test_words_at_places_and_in_notes_can_be_decoded(toy_model: ToyModel) -> None:
    model = toy_model("gpt2")
    pair = PromptPair(
        "Ann and Bob went to Rome", "Mary and John went to Rome", "w1", "w2",
        places=(("first", 0, 3), ("second", 8, 11)),
        corrupted_places=(("first", 0, 4), ("second", 9, 13)),
        about=(("third", "Cairo"), ("rank", 3)),
    )  # fmt: skip
    found = lens(model, pair, decode=["first", "third"])
    assert found.answer_token.values.tolist() == [["w1", "w2", "Ann", "Cairo"]]
    other = lens(model, pair, decode=["first"], groups=["second"], run="corrupted")
    assert other.answer_token.values.tolist() == [["w1", "w2", "Mary"]]
    assert other.source.values.tolist() == ["last", "other", "second"]


def test_the_store_gives_what_the_direct_call_gives(toy_model: ToyModel, tmp_path: Any) -> None:
    """Also where prompts have more places than others, or begin with other ones."""
    model = toy_model("gpt2")
    listed = [
        PromptPair("Ann went to", "Bob went to", "w1", "w2", places=(("who", 0, 3),)),
        PromptPair("Ann went to Rome and", "Bob went to Rome and", "w3", "w4",
                   places=(("who", 0, 3), ("first", 12, 16))),
    ]  # fmt: skip
    other = PromptPair("Rome and Ann went to", "Rome and Bob went to", "w3", "w4",
                       places=(("first", 0, 4), ("who", 9, 12)))  # fmt: skip
    for prompts in (FACTS, listed, [listed[0], other], [other, listed[0]]):
        whole = lens(model, prompts)
        for stored in (Store(tmp_path).run(token_lens, model, prompts) for _ in range(2)):
            xr.testing.assert_allclose(stored, whole, atol=2e-5)
            assert stored.source_tokens.dtype == whole.source_tokens.dtype
    assert whole.source.values.tolist() == ["last", "other", "first", "who"]
    assert np.isnan(whole.source_logit.sel(source="first")[1]).all()


def test_what_cannot_be_grouped_is_refused(toy_model: ToyModel) -> None:
    model = toy_model("gpt2")
    with pytest.raises(PromptError, match="3 of 3 prompts do not have all of the places 'city'"):
        lens(model, groups=["city"])
    with pytest.raises(PromptError, match="3 of 3 prompts .* 'o1'"):
        lens(model, decode=["o1"])
    with pytest.raises(OptionError, match="groups='subject'.*Put it in brackets"):
        lens(model, groups="subject")
    with pytest.raises(OptionError, match="'answer' are decoded in any case"):
        lens(model, decode=["answer"])
    shared = PromptPair("Ann and Bob went", "Bob and Ann went", "w1", "w2",
                        places=(("all", 0, 11), ("second", 8, 11)))  # fmt: skip
    with pytest.raises(PromptError, match="share tokens in 1 of 1 prompts"):
        lens(model, shared)
    lens(model, shared, groups=["second"])
    with pytest.raises(SiteError, match="no attention heads"):
        lens(toy_model("mamba2"))
    with pytest.raises(OptionError, match="centred='yes'"):
        lens(model, centred="yes")
    assert toys.N_LAYERS == lens(model).sizes["layer"]


def test_prompts_with_different_places_are_stored_as_they_are_computed(
    toy_model: ToyModel, tmp_path: Path
) -> None:
    model = toy_model("gpt2")
    pairs = [
        PromptPair("Mary gave Bob", "Mary gave Ann", "w1", "w2", places=(("io", 0, 4),)),
        PromptPair("Rome is in", "Oslo is in", "w1", "w2", places=(("city", 0, 4),)),
    ]
    direct, stored = lens(model, pairs), Store(tmp_path).run(token_lens, model, pairs)
    assert {"io", "city"} <= set(direct.source.values.tolist())
    for name in direct.data_vars:
        xr.testing.assert_equal(stored[name], direct[name])
        assert stored[name].dtype == direct[name].dtype
