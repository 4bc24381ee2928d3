"""The contrast and the draws by themselves, and what is refused before anything runs."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from transformers import TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

from mechlab.axes import Head
from mechlab.canonical import canonical_json
from mechlab.errors import ModelError, OptionError, PromptError, SiteError
from mechlab.methods import DeCoRe, Sampling, generate, score_answers
from mechlab.methods.decoding.decore import mix
from mechlab.methods.decoding.sampling import pick, uniforms
from mechlab.models import Model
from mechlab.prompts import Fact

ToyModel = Callable[..., Model]
VOCAB = 50
DRAWN = torch.Generator().manual_seed(0)
BASE, MASKED = (3 * torch.randn(20, VOCAB, generator=DRAWN) for _ in range(2))
RULE = DeCoRe(["L0H1"])


@pytest.mark.parametrize("rule", [RULE, DeCoRe(["L0H1"], alpha=0.0), None])
def test_without_a_contrast_the_mix_is_the_base_to_the_last_bit(rule: DeCoRe | None) -> None:
    same = rule is RULE
    found = mix(BASE, BASE.clone() if same else MASKED, rule)
    assert torch.equal(found.scores, found.base)
    assert torch.equal(found.log_probabilities, found.base)
    assert torch.equal(found.base, BASE.double().log_softmax(-1))
    assert bool((found.alpha > 0).all()) == same


def test_alpha_is_the_entropy_in_nats_from_certain_to_uniform() -> None:
    certain = torch.zeros(1, VOCAB).index_fill(1, torch.tensor([3]), 1e4)
    rows = torch.cat([torch.zeros(1, VOCAB), certain, BASE])
    alpha = mix(rows, rows + 1, RULE).alpha
    assert float(alpha[0]) == pytest.approx(math.log(VOCAB), abs=1e-12)
    assert float(alpha[1]) == 0.0
    assert bool(((alpha >= 0) & (alpha <= math.log(VOCAB))).all())
    p = torch.distributions.Categorical(logits=BASE.double())
    torch.testing.assert_close(alpha[2:], p.entropy())


def test_the_mix_is_the_published_formula() -> None:
    found = mix(BASE, MASKED, RULE)
    p, m = (logits.double().log_softmax(-1).numpy() for logits in (BASE, MASKED))
    alpha = -(np.exp(p) * p).sum(-1, keepdims=True)
    np.testing.assert_allclose(found.scores, (1 + alpha) * p - alpha * m, rtol=1e-12)


def test_what_the_masked_branch_prefers_is_demoted_and_the_rest_promoted() -> None:
    found = mix(BASE, MASKED, DeCoRe(["L0H1"], alpha=0.5))
    prefers = MASKED.double().log_softmax(-1) > found.base
    assert bool((found.scores < found.base)[prefers].all())
    assert bool((found.scores > found.base)[~prefers].all())
    assert 0 < int(prefers.sum()) < prefers.numel()


def test_the_renormalised_mix_sums_to_one_whatever_a_branch_rules_out() -> None:
    base, masked = BASE.clone(), MASKED.clone()
    masked[:, 0] = -math.inf  # the masked branch alone
    base[:, 1] = -math.inf  # the base alone
    base[:, 2] = masked[:, 2] = -math.inf  # both
    for rule in (RULE, DeCoRe(["L0H1"], alpha=0.5, plausibility=0.1), DeCoRe(["L0H1"], alpha=0)):
        found = mix(base, masked, rule)
        p = found.log_probabilities.exp()
        torch.testing.assert_close(p.sum(-1), torch.ones(20, dtype=p.dtype))
        assert bool((p[:, 1:3] == 0).all()) and not bool(p.isnan().any())
    free = mix(base, masked, RULE)
    assert bool(torch.isfinite(free.scores[:, 0]).all())
    assert bool((free.scores[:, 0] > free.base[:, 0]).all())


def test_plausible_tokens_are_those_with_a_share_of_the_most_probable_one() -> None:
    found = mix(BASE, MASKED, DeCoRe(["L0H1"], plausibility=0.1))
    p = found.base.exp()
    assert torch.equal(torch.isfinite(found.scores), p >= 0.1 * p.amax(-1, keepdim=True))
    alone = mix(BASE, MASKED, DeCoRe(["L0H1"], plausibility=1.0))
    assert torch.equal(alone.scores.argmax(-1), BASE.argmax(-1))


def test_alpha_may_be_scaled_to_the_vocabulary_and_capped() -> None:
    free, scaled, capped = (
        mix(BASE, MASKED, rule).alpha
        for rule in (
            RULE,
            DeCoRe(["L0H1"], scale="log_vocab"),
            DeCoRe(["L0H1"], scale="log_vocab", cap=0.2),
        )
    )
    torch.testing.assert_close(scaled, free / math.log(VOCAB))
    torch.testing.assert_close(capped, scaled.clamp(max=0.2))
    assert float(scaled.max()) > 0.2


def test_draws_have_the_probabilities_of_hugging_face_s_warpers() -> None:
    grid = (torch.arange(4000, dtype=torch.float64) + 0.5) / 4000
    for row in (BASE[:4] / 3).double():
        scores = row.log_softmax(-1)
        warped = TemperatureLogitsWarper(0.7)(None, scores[None])
        warped = TopKLogitsWarper(12)(None, warped)
        expected = TopPLogitsWarper(0.8)(None, warped).softmax(-1)[0]
        drawn = pick(scores.expand(4000, -1), Sampling(0.7, top_k=12, top_p=0.8), grid)
        share = torch.bincount(drawn, minlength=VOCAB) / 4000
        assert float((share - expected).abs().max()) <= 1 / 4000 + 1e-9
        assert 1 < int((expected > 0).sum()) <= 12


def test_draws_follow_seed_prompt_and_step_and_spread_evenly() -> None:
    one = uniforms(Sampling(seed=1), ["a", "b"], 0)
    assert one == uniforms(Sampling(seed=1), ["a", "b"], 0)
    assert one[::-1] == uniforms(Sampling(seed=1), ["b", "a"], 0)
    many = np.array([uniforms(Sampling(), ["a"], step)[0] for step in range(2000)])
    assert len(set(many)) == 2000 and 0 <= many.min() and many.max() < 1
    counts = np.histogram(many, bins=10, range=(0, 1))[0]
    assert counts.min() > 150 and counts.max() < 250  # 200 each, 3.7 standard deviations


def test_a_rule_holds_its_heads_in_order_and_is_keyed_by_content() -> None:
    one = DeCoRe(["L2H0", Head(0, 3)], alpha=1)
    other = DeCoRe((Head(0, 3), Head(2, 0)), alpha=1)
    assert one == other and hash(one) == hash(other)
    assert canonical_json(one) == canonical_json(other) != canonical_json(RULE)


def test_all_that_is_wrong_with_a_rule_is_said_at_once() -> None:
    with pytest.raises(OptionError) as error:
        DeCoRe(["L0H1", "L0H1", "top"], alpha="Entropy", mask="mean", phase="prefill",  # type: ignore[arg-type]
               plausibility=0.0, scale="bits", cap=-1)  # fmt: skip  # type: ignore[arg-type]
    for word in ("L0H1 named more than once", "'top' is no head", "alpha='Entropy'", "mask='mean'",
                 "phase='prefill'", "plausibility=0.0", "scale='bits'", "cap=-1"):  # fmt: skip
        assert word in str(error.value)
    for heads in ([], "L0H1", 3, Head(0, 1)):
        with pytest.raises(OptionError, match="cannot be set up so"):
            DeCoRe(heads)  # type: ignore[arg-type]
    for alpha in (-0.5, math.nan, math.inf, True, None, np.ones(2)):
        with pytest.raises(OptionError, match="alpha="):
            DeCoRe(["L0H1"], alpha=alpha)  # type: ignore[arg-type]
    with pytest.raises(OptionError, match="fixed alpha=0.5"):
        DeCoRe(["L0H1"], alpha=0.5, cap=1.0)
    with pytest.raises(OptionError) as error:
        Sampling(temperature=0, top_k=0, top_p=1.5, seed=0.5)  # type: ignore[arg-type]
    for word in ("temperature=0", "top_k=0", "top_p=1.5", "seed=0.5"):
        assert word in str(error.value)


@pytest.fixture
def no_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fail whatever runs a model."""

    def run(*args: object, **kwargs: object) -> None:
        raise AssertionError("a forward pass ran")

    monkeypatch.setattr("mechlab.engine.generation.twin.Twin.run", run)
    monkeypatch.setattr("transformer_lens.model_bridge.TransformerBridge.forward", run)


BAD = {
    "max_new_tokens=0": {"max_new_tokens": 0},
    "max_batch=0": {"max_batch": 0},
    "Allowed: None for the model as it is": {"decode": "decore"},
    "Allowed: None for the most probable token": {"sampling": 0.7},
    "mask='mean'": {"mask": "mean"},
    "phase='prefill'": {"phase": "prefill"},
    "more than once: L0H1": {"ablate": ["L0H1", "L0H1"]},
    "together with decode": {"ablate": ["L0H2"], "decode": RULE},
    "stop=": {"stop": ["x"]},
}


@pytest.mark.parametrize("message", BAD)
def test_options_are_refused_before_a_forward_pass(
    message: str, toy_model: ToyModel, no_run: None
) -> None:
    with pytest.raises(OptionError, match=message):
        generate(toy_model("gpt2"), "Ann was born in", **BAD[message])  # type: ignore[arg-type]


def test_heads_of_another_model_are_refused_before_a_forward_pass(
    toy_model: ToyModel, no_run: None
) -> None:
    model, fact = toy_model("llama"), Fact("Ann was born in", "Ann", "Madrid")
    other = DeCoRe(["L0H1", "L3H0", "L0H4"])
    for options in ({"decode": other}, {"ablate": ["L0H1", "L3H0", "L0H4"]}):
        with pytest.raises(SiteError, match="does not have: .*L3H0"):
            generate(model, fact, **options)  # type: ignore[arg-type]
        with pytest.raises(SiteError, match="L0H4"):
            score_answers(model, fact, **options)  # type: ignore[arg-type]
    with pytest.raises(ModelError, match="recurrent"):
        generate(toy_model("mamba"), fact)


def test_prompts_that_cannot_be_continued_are_refused_before_a_forward_pass(
    toy_model: ToyModel, no_run: None
) -> None:
    model = toy_model("gpt2")
    full = " ".join(["w1"] * 127)  # and <bos>: 128 of 128
    with pytest.raises(PromptError, match="128 tokens and 1 to follow"):
        generate(model, ["Ann was born in", full])
    with pytest.raises(PromptError, match="2 of 3 texts are empty: #0, #2"):
        generate(model, ["", "Ann was born in", "  "])
    with pytest.raises(PromptError, match="no token for 'unheard'"):
        generate(model, "Ann unheard")
    with pytest.raises(PromptError):
        generate(model, [])
    with pytest.raises(PromptError, match="not Fact"):
        generate(model, [Fact("Ann was born in", "Ann"), "Ann was born in"])  # type: ignore[list-item]


def test_answers_that_cannot_be_scored_are_refused_before_a_forward_pass(
    toy_model: ToyModel, no_run: None
) -> None:
    model, fact = toy_model("gpt2"), Fact("Ann was born in", "Ann")
    with pytest.raises(PromptError, match="no target to score: #0"):
        score_answers(model, fact)
    for answers in ("Madrid", [], [["Madrid"], ["Cairo"]], [[]], [1]):
        with pytest.raises(OptionError, match="answers="):
            score_answers(model, fact, answers=answers)  # type: ignore[arg-type]
    with pytest.raises(OptionError, match="more than once"):
        score_answers(model, fact, answers=["Madrid", "Madrid"])
    with pytest.raises(PromptError, match=r"(?s)2 of 3 answers.*#1 '' is empty.*#2 ' ' is empty"):
        score_answers(model, fact, answers=["Madrid", "", " "])
    long = " ".join(["w1"] * 126)
    with pytest.raises(PromptError, match="128"):
        score_answers(model, long, answers=["Madrid w1 w2 w3"])
    with pytest.raises(OptionError, match="renormalise=1"):
        score_answers(model, fact, answers=["Madrid"], renormalise=1)  # type: ignore[arg-type]
