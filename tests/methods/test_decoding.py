"""Generation: equal to Hugging Face's and to a plain loop of two branches; draws; its end."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
import toys
from numpy.testing import assert_allclose, assert_array_equal
from torch import Tensor

from mechlab.axes import Head
from mechlab.errors import Cancelled
from mechlab.methods import DeCoRe, Sampling, generate
from mechlab.models import Model
from mechlab.progress import Progress
from mechlab.prompts import Fact, PromptPair, PromptSet
from mechlab.store import Store

ToyModel = Callable[..., Model]
TEXTS = [
    "The capital of France is",
    "Ann was born in",
    "When Mary and John went to the store w1 w2 w3 John gave the book to",
]
HEADS = ["L0H1", "L1H2", "L2H0", "L2H3"]
STEPS = 6


def plain_logits(model: Model, tokens: Sequence[int], silenced: Sequence[Head] = ()) -> Tensor:
    """Return logits [pos, vocab] of one whole forward, the outputs of some heads set to zero."""

    def silence(heads: list[int]) -> Callable[..., Tensor]:
        def hook(z: Tensor, hook: object) -> Tensor:
            z = z.clone()
            z[:, :, heads] = 0
            return z

        return hook

    layers = sorted({head.layer for head in silenced})
    hooks = [
        (f"blocks.{n}.attn.hook_z", silence([h.head for h in silenced if h.layer == n]))
        for n in layers
    ]
    with torch.no_grad():
        return model.bridge.run_with_hooks(torch.tensor([list(tokens)]), fwd_hooks=hooks)[0]


def read(model: Model, text: str) -> list[int]:
    return model.tokenize(text).tokens[0].tolist()


def ids(result: object, prompt: int = 0) -> list[int]:
    row = result.token_id.values[prompt]  # type: ignore[attr-defined]
    return row[row >= 0].tolist()


@pytest.mark.parametrize("decode", [None, DeCoRe(HEADS, alpha=0.0)], ids=["base", "alpha 0"])
def test_greedy_is_what_hugging_face_generates(
    decode: DeCoRe | None, attention_family: str, toy_model: ToyModel
) -> None:
    model, hf = toy_model(attention_family), toys.make_hf(attention_family)
    ours = generate(model, TEXTS, max_new_tokens=STEPS, decode=decode)
    for row, text in enumerate(TEXTS):
        tokens = torch.tensor([read(model, text)])
        theirs = hf.generate(tokens, max_new_tokens=STEPS, do_sample=False, pad_token_id=2)
        written = theirs[0, tokens.shape[1] :].tolist()
        stopped = written[-1] == 1
        assert ids(ours, row) == (written[:-1] if stopped else written)
        assert bool(ours.stopped[row]) == stopped
    assert float(ours.changed.max()) == 0 and float(ours.alpha.max()) == 0
    assert_array_equal(ours.token.values, ours.base_token.values)


@pytest.mark.parametrize("alpha", ["entropy", 2.0])
def test_decore_is_the_contrast_of_two_plain_runs(alpha: float | str, toy_model: ToyModel) -> None:
    model, heads = toy_model("llama"), [Head(0, 1), Head(1, 2), Head(2, 0), Head(2, 3)]
    rule = DeCoRe(heads, alpha=alpha, mask="zero", phase="all")  # type: ignore[arg-type]
    ours = generate(model, TEXTS[:2], max_new_tokens=STEPS, decode=rule, stop="")
    for row, text in enumerate(TEXTS[:2]):
        tokens = read(model, text)
        for step in range(int(ours.n_tokens[row])):
            base, masked = (
                plain_logits(model, tokens, silenced)[-1].double().log_softmax(-1).numpy()
                for silenced in ((), heads)
            )
            entropy = -(np.exp(base) * base).sum()
            by = entropy if alpha == "entropy" else alpha
            mixed = (1 + by) * base - by * masked
            mixed -= np.log(np.exp(mixed).sum())
            best = int(mixed.argmax())
            at = {"prompt": row, "step": step}
            assert int(ours.token_id[at]) == best
            assert float(ours.entropy[at]) == pytest.approx(entropy, abs=1e-4)
            assert float(ours.alpha[at]) == pytest.approx(by, abs=1e-4)
            assert float(ours.log_probability[at]) == pytest.approx(mixed[best], abs=1e-3)
            assert float(ours.base_log_probability[at]) == pytest.approx(base[best], abs=1e-4)
            assert float(ours.masked_log_probability[at]) == pytest.approx(masked[best], abs=1e-4)
            assert float(ours.changed[at]) == (best != base.argmax())
            tokens = [*tokens, best]
    assert float(ours.changed.max()) == 1  # the contrast did something


def test_a_masked_branch_that_says_the_same_leaves_the_base(fresh_model: ToyModel) -> None:
    model = fresh_model("gpt2")
    with torch.no_grad():  # what L1H2 writes is nothing
        model.hf.transformer.h[1].attn.c_proj.weight[2 * toys.D_HEAD : 3 * toys.D_HEAD] = 0
    plain = generate(model, TEXTS[:2], max_new_tokens=4)
    ours = generate(model, TEXTS[:2], max_new_tokens=4, decode=DeCoRe(["L1H2"], phase="all"))
    assert_array_equal(ours.token_id, plain.token_id)
    assert_allclose(ours.log_probability, plain.log_probability, atol=1e-5)
    assert_allclose(ours.masked_log_probability, plain.base_log_probability, atol=1e-5)
    assert float(ours.alpha.min()) > 0.1


def test_masking_the_prompt_too_is_no_difference_in_one_layer_and_one_in_several(
    toy_model: ToyModel, fresh_model: ToyModel
) -> None:
    # Keys and values of a first layer do not depend on any head.
    one = fresh_model("llama", n_layers=1)
    for model, heads, same in ((one, ["L0H1", "L0H2"], True), (toy_model("llama"), HEADS, False)):
        decode, whole = (
            generate(model, TEXTS[0], max_new_tokens=4, decode=DeCoRe(heads, phase=phase))
            for phase in ("decode", "all")
        )
        gap = float(np.abs(decode.masked_log_probability - whole.masked_log_probability).max())
        assert (gap < 1e-5) == same
        assert (decode.attrs["phase"], whole.attrs["phase"]) == ("decode", "all")


@pytest.mark.parametrize(
    ("decode", "sampling"),
    [(None, None), (DeCoRe(HEADS), Sampling(temperature=1.5, seed=3))],
    ids=["base", "decore, sampled"],
)
def test_a_batch_writes_what_each_prompt_writes_alone(
    decode: DeCoRe | None, sampling: Sampling | None, attention_family: str, toy_model: ToyModel
) -> None:
    model, options = toy_model(attention_family), {"decode": decode, "sampling": sampling}
    whole = generate(model, TEXTS, max_new_tokens=4, **options)
    for max_batch, order in ((1, [0, 1, 2]), (3, [2, 0, 1])):
        ours = generate(
            model, [TEXTS[i] for i in order], max_new_tokens=4, max_batch=max_batch, **options
        )
        for row, i in enumerate(order):
            assert ids(ours, row) == ids(whole, i)
        assert_allclose(ours.log_probability, whole.log_probability[order], atol=1e-4)


def test_the_same_seed_draws_the_same_tokens_and_another_seed_others(toy_model: ToyModel) -> None:
    model = toy_model("gpt2")
    draws = [
        generate(model, TEXTS, max_new_tokens=8, sampling=Sampling(temperature=2.0, seed=seed))
        for seed in (0, 0, 1)
    ]
    assert_array_equal(draws[0].token_id, draws[1].token_id)
    assert (draws[0].token_id.values != draws[2].token_id.values).any()
    assert float(draws[0].changed.max()) == 0  # drawn from the base, with the same draw
    only = generate(model, TEXTS, max_new_tokens=8, sampling=Sampling(top_k=1, seed=5))
    assert_array_equal(only.token_id, generate(model, TEXTS, max_new_tokens=8).token_id)


def test_a_text_ends_before_a_stop_character_at_the_end_of_text_or_when_the_context_is_full(
    toy_model: ToyModel, fresh_model: ToyModel
) -> None:
    model = toy_model("gpt2")
    free = generate(model, TEXTS[1], max_new_tokens=8)
    words = [model.token_string(token) for token in ids(free)]
    third = next(w for w in words[2:] if set(w) - set("".join(words[:2])))
    mark = sorted(set(third) - set("".join(words[:2])))[0]
    cut = generate(model, TEXTS[1], max_new_tokens=8, stop=mark)
    assert ids(cut) == ids(free)[: words.index(third)] and bool(cut.stopped[0])
    assert not bool(free.stopped[0])
    assert_array_equal(np.isnan(cut.entropy[0]), cut.token_id[0] < 0)

    contrast = generate(model, TEXTS[1], max_new_tokens=8, stop=mark, decode=DeCoRe(["L0H0"]))
    assert not any(mark in str(token) for token in contrast.token.values.ravel())

    ending = fresh_model("gpt2", seed=1)
    first = ids(generate(ending, TEXTS[1], max_new_tokens=3))
    ending.tokenizer.eos_token = ending.tokenizer.convert_ids_to_tokens(first[1])
    ended = generate(ending, TEXTS[1], max_new_tokens=3)
    assert ids(ended) == first[: first.index(first[1])] and bool(ended.stopped[0])

    long = " ".join(f"w{i}" for i in range(125))  # with <bos> 126 of 128
    full = generate(model, long, max_new_tokens=9)
    assert int(full.n_tokens[0]) == 2 and not bool(full.stopped[0])


def test_the_text_continues_its_prompt(toy_model: ToyModel) -> None:
    for kind in ("words", "bpe"):
        model = toy_model("gpt2", kind)
        ours = generate(model, "The capital of France is", max_new_tokens=5)
        written = [*read(model, "The capital of France is"), *ids(ours)]
        whole = model.tokenizer.decode(written, skip_special_tokens=True)
        assert whole == "The capital of France is" + str(ours.text[0].item())


def test_masked_heads_without_a_contrast_write_as_in_a_plain_run(toy_model: ToyModel) -> None:
    model, heads = toy_model("neox"), [Head(0, 1), Head(1, 2)]
    ours = generate(model, TEXTS[0], max_new_tokens=4, ablate=heads, mask="zero", phase="all")
    tokens = read(model, TEXTS[0])
    for step, token in enumerate(ids(ours)):
        logits = plain_logits(model, tokens, heads)[-1]
        assert token == int(logits.argmax())
        expected = logits.double().log_softmax(-1)[token]
        assert float(ours.base_log_probability[0, step]) == pytest.approx(float(expected), abs=1e-4)
        tokens = [*tokens, token]
    assert np.isnan(ours.masked_log_probability).all() and ours.attrs["phase"] == "all"


def test_facts_pairs_and_texts_are_continued_alike(toy_model: ToyModel) -> None:
    model = toy_model("gpt2")
    text = generate(model, TEXTS[0], max_new_tokens=3)
    fact = generate(model, Fact(TEXTS[0], "France", "Paris"), max_new_tokens=3)
    pair = generate(
        model, PromptPair(TEXTS[0], "The capital of Italy is", "Paris", "Rome"), max_new_tokens=3
    )
    for other in (fact, pair):
        assert_array_equal(other.token_id, text.token_id)
    assert (str(fact.answer[0].item()), str(pair.wrong_answer[0].item())) == ("Paris", "Rome")


def test_a_run_that_was_stopped_continues_what_is_left(tmp_path: Path, toy_model: ToyModel) -> None:
    model = toy_model("gpt2")
    facts = PromptSet([Fact(text, text.split()[0]) for text in TEXTS])
    options = {"max_new_tokens": 4, "decode": DeCoRe(HEADS), "sampling": Sampling(seed=2)}
    options |= {"max_batch": 1, "stop": "w"}
    store, reports = Store(tmp_path), []

    def stop_after_two(report: Progress) -> None:
        reports.append(report.done)
        if len(reports) == 2:
            raise Cancelled("enough")

    with pytest.raises(Cancelled):
        store.run(generate, model, facts, progress=stop_after_two, **options)
    resumed = store.run(generate, model, facts, progress=stop_after_two, **options)
    assert reports[:3] == [1, 2, 3]  # the third alone was left
    direct = generate(model, facts, **options)
    for name in direct.data_vars:
        assert_array_equal(resumed[name], direct[name])
