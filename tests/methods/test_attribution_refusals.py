"""What direct logit attribution refuses, and how it says so."""

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import toys

from mechlab.engine.readout import linear_norm
from mechlab.errors import Cancelled, ModelError, OptionError, PromptError, SiteError
from mechlab.hooks import FrozenArray, Site, Steer
from mechlab.methods.attribution import direct_logit_attribution
from mechlab.models import Model, wrap_model
from mechlab.progress import Progress
from mechlab.prompts import Fact, PromptPair
from mechlab.store import Store

ToyModel = Callable[..., Model]
GOOD = PromptPair("The capital of France is", "The capital of Italy is", "Paris", "Rome")
FACT = Fact("The capital of France is", "France", "Paris")


@pytest.mark.filterwarnings("ignore::mechlab.models.AnswerTokenWarning")
def test_answers_that_share_their_first_token_are_all_named(toy_model: ToyModel) -> None:
    model = toy_model("gpt2", "bpe")
    bad = [
        PromptPair("Ann was born in", "Bob was born in", "Paris one", "Paris two"),
        GOOD,
        PromptPair("John gave the book to", "Ann gave the book to", "Mary a", "Mary b"),
    ]
    with pytest.raises(PromptError, match=r"2 of 3 pairs") as error:
        direct_logit_attribution(model, bad)
    assert "'Paris two'" in str(error.value)
    assert "'Mary b'" in str(error.value)
    with pytest.raises(PromptError, match=r"2 of 3 pairs"):
        Store("memory://refusals").run(direct_logit_attribution, model, bad)


@pytest.mark.parametrize("by", ["head", "head_source"])
def test_recurrent_models_have_no_heads(by: str, toy_model: ToyModel) -> None:
    with pytest.raises(SiteError, match="no attention heads. Allowed: .* by='component'"):
        direct_logit_attribution(toy_model("mamba"), GOOD, by=by)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "options",
    [{"by": "layer"}, {"metric": "probability"}, {"run": "both"}, {"norm": "own"},
     {"max_batch": 0}],
)  # fmt: skip
def test_options_outside_their_choices_are_refused(
    options: dict[str, Any], toy_model: ToyModel
) -> None:
    (name,) = options
    with pytest.raises(OptionError, match=f"{name}=.*Allowed"):
        direct_logit_attribution(toy_model("gpt2"), GOOD, **options)


@pytest.mark.parametrize("options", [{}, {"metric": "logit", "run": "corrupted"}])
def test_facts_have_one_answer_and_one_prompt(options: dict[str, Any], toy_model: ToyModel) -> None:
    with pytest.raises(OptionError, match="Allowed for facts: metric='logit', run='clean'"):
        direct_logit_attribution(toy_model("gpt2"), FACT, **options)


def test_an_intervention_on_the_stream_itself_breaks_the_sum_and_is_named(
    toy_model: ToyModel,
) -> None:
    push = Steer(Site("resid_post", 1), FrozenArray(np.linspace(-1, 1, toys.D_MODEL)))
    with pytest.raises(ModelError, match="do not add up .* something changes the residual stream"):
        direct_logit_attribution(toy_model("gpt2"), GOOD, interventions=[push])


def test_heads_under_an_overwritten_sum_are_refused(toy_model: ToyModel) -> None:
    push = Steer(Site("attn_out", 1), FrozenArray(np.linspace(-1, 1, toys.D_MODEL)))
    with pytest.raises(SiteError, match="layer 1 .* cannot be split"):
        direct_logit_attribution(toy_model("gpt2"), GOOD, interventions=[push])
    found = direct_logit_attribution(toy_model("gpt2"), GOOD, interventions=[push], by="component")
    assert float(np.abs(found.unexplained).max()) < 1e-5


class Squaring(torch.nn.Module):
    """A norm that is none."""

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        return states.square()


def test_a_norm_of_another_form_is_refused() -> None:
    with pytest.raises(ModelError, match="Squaring is not a LayerNorm or RMSNorm"):
        linear_norm(Squaring(), 16, torch.float32, torch.device("cpu"))


def test_a_head_behind_the_unembedding_is_refused() -> None:
    """Something between final norm and logits, here a shift that no config declares."""
    hf = toys.make_hf("llama")
    inner = hf.lm_head.forward
    hf.lm_head.forward = lambda states: inner(states.roll(1, -1))
    model = wrap_model(hf, toys.make_tokenizer(), name="shifted")
    with pytest.raises(ModelError, match="something else lies between residual and logits"):
        direct_logit_attribution(model, GOOD)


def test_progress_counts_prompts_and_may_stop(toy_model: ToyModel) -> None:
    seen: list[tuple[int, int]] = []
    pairs = [GOOD, PromptPair("w1 Oslo is", "w2 Lima is", "w5", "w6"), GOOD]
    direct_logit_attribution(
        toy_model("gpt2"), pairs, max_batch=2, progress=lambda p: seen.append((p.done, p.total))
    )
    assert seen == [(2, 3), (3, 3)]

    def stop(progress: Progress) -> None:
        raise Cancelled("enough")

    with pytest.raises(Cancelled, match="enough"):
        direct_logit_attribution(toy_model("gpt2"), pairs, progress=stop)


def test_stored_prompt_by_prompt_it_is_what_a_whole_run_gives(
    toy_model: ToyModel, tmp_path: Any
) -> None:
    model = toy_model("llama")
    pairs = [GOOD, PromptPair("w1 w2 Oslo is near", "w1 w2 Lima is near", "w5", "w6")]
    stored = Store(tmp_path).run(direct_logit_attribution, model, pairs, by="head_source")
    whole = direct_logit_attribution(model, pairs, by="head_source")
    assert set(stored) == set(whole)
    for name in whole:
        np.testing.assert_allclose(stored[name], whole[name], atol=2e-5)


def test_the_messages_say_what_is_allowed(toy_model: ToyModel) -> None:
    with pytest.raises(OptionError, match=re.escape("Allowed: 'component', 'head', 'head_source'")):
        direct_logit_attribution(toy_model("gpt2"), GOOD, by="heads")  # type: ignore[arg-type]
