"""Needle prompts in tokens: exact length, the right place, the exact span, and what is refused."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import needle_model
import pytest
import toys
import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from mechlab.errors import OptionError, PromptError
from mechlab.methods.retrieval.layout import Laid, lay_out
from mechlab.models import Model, load_model, wrap_model
from mechlab.prompts import NeedlePrompt, PromptSet, needles

MakeModel = Callable[..., Model]
TEXT = " ".join(f"The river of city {i} is near the tower. Bob gave it a name!" for i in range(40))
NEEDLE = NeedlePrompt(
    TEXT, "Ann was born in Cairo near the store.", "\nWhere was Ann born?", "Cairo near the store",
    110, 50.0, stop="\n",
)  # fmt: skip


def crossing_tokenizer() -> transformers.PreTrainedTokenizerFast:
    """Pieces that cross words and sentences: `e. B`, `n Ca` and the like are single tokens."""
    raw = Tokenizer(models.BPE(unk_token="<unk>"))
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    raw.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=toys.N_VOCAB, special_tokens=["<bos>", "<eos>", "<pad>", "<unk>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False,
    )  # fmt: skip
    sample = [f"{TEXT[:59]} {NEEDLE.needle} Bob gave it{NEEDLE.question}"] * 20
    raw.train_from_iterator(sample, trainer)
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=raw, bos_token="<bos>", eos_token="<eos>", pad_token="<pad>",
        unk_token="<unk>", name_or_path="local",
    )  # fmt: skip


@pytest.fixture(scope="module")
def crossing() -> Model:
    return wrap_model(toys.make_hf("gpt2"), crossing_tokenizer(), name="crossing")


def one(model: Model, prompt: NeedlePrompt, **options: Any) -> Laid:
    (laid,) = lay_out(model, PromptSet((prompt,)), **options)
    return laid


def smallest_window(model: Model, tokens: tuple[int, ...], text: str) -> list[tuple[int, int]]:
    """Every shortest stretch of tokens that spells some words, found by trying them all."""
    pieces = [model.token_string(token) for token in tokens]
    found = [
        (start, end)
        for start in range(len(tokens))
        for end in range(start + 1, min(len(tokens), start + 40) + 1)
        if text in "".join(pieces[start:end])
    ]
    length = min(end - start for start, end in found)
    return [(start, end) for start, end in found if end - start == length]


@pytest.mark.parametrize("length", [62, 75, 98])
@pytest.mark.parametrize("depth", [0.0, 30.0, 77.7, 100.0])
def test_a_prompt_has_the_length_asked_for_and_the_needle_behind_a_sentence(
    toy_model: MakeModel, length: int, depth: float
) -> None:
    model = toy_model("llama", "bpe")
    laid = one(model, replace(NEEDLE, length=length, depth=depth))
    assert len(laid.tokens) == length == model.tokenize(laid.text).lengths[0]
    front, _, rest = laid.text.partition(NEEDLE.needle)
    kept = f"{front.rstrip()}{rest.removesuffix(NEEDLE.question)}"
    assert TEXT.startswith(kept.lstrip()) and laid.text.endswith(NEEDLE.question)
    if depth in (0, 100):
        assert (front, rest)[depth == 100].strip() in ("", NEEDLE.question.strip())
    else:
        assert front == "" or front.rstrip()[-1] in ".!"
        haystack = length - len(model.tokenize(f"{NEEDLE.needle} {NEEDLE.question}").row(0))
        before = len(model.tokenize(front).row(0)) - 1 if front else 0
        assert before <= depth / 100 * haystack + 1  # at most the depth asked for, in tokens


def test_the_needle_goes_to_the_last_sentence_end_before_the_depth(toy_model: MakeModel) -> None:
    """Moving the depth point token by token, the needle jumps only from sentence to sentence."""
    model = toy_model("llama", "bpe")
    fronts = [
        one(model, replace(NEEDLE, depth=float(depth))).text.partition(NEEDLE.needle)[0].rstrip()
        for depth in range(5, 100, 5)
    ]
    ends = ["", *(TEXT[: i + 1] for i, mark in enumerate(TEXT) if mark in ".!")]
    assert fronts == sorted(fronts, key=len) and set(fronts) <= set(ends)
    assert set(fronts) == set(ends[: len(set(fronts))])  # none is left out


@pytest.mark.parametrize("answer", ["Cairo near the store", "Ann", "in Cairo", "store."])
@pytest.mark.parametrize("depth", [0.0, 50.0, 100.0])
def test_the_answer_is_located_exactly_where_tokens_cross_its_borders(
    crossing: Model, toy_model: MakeModel, answer: str, depth: float
) -> None:
    for model in (crossing, toy_model("llama", "bpe")):
        laid = one(model, replace(NEEDLE, answer=answer, depth=depth))
        first, last = laid.needle or (0, 0)
        assert (laid.answer[0], laid.answer[-1] + 1) in smallest_window(model, laid.tokens, answer)
        assert first <= laid.answer[0] and laid.answer[-1] < last
        assert (first, last) in smallest_window(model, laid.tokens, NEEDLE.needle)


def test_tokens_do_cross_the_borders_of_the_needle_in_that_test(crossing: Model) -> None:
    laid = one(crossing, replace(NEEDLE, answer="Ann", depth=50.0))
    pieces = [crossing.token_string(laid.tokens[place]) for place in laid.answer]
    assert "".join(pieces) != "Ann" and "Ann" in "".join(pieces)
    alone = crossing.tokenize(NEEDLE.needle).row(0).tolist()
    first, last = laid.needle or (0, 0)
    assert list(laid.tokens[first:last]) != alone


def test_whole_sentences_are_never_cut_nor_the_length_exceeded() -> None:
    atlas = load_model("atlas")
    for form in ("atlas", "key-value"):
        prompts = needles([60, 90], 3, form=form, count=1)  # type: ignore[arg-type]
        for prompt, laid in zip(prompts, lay_out(atlas, prompts), strict=True):
            body = laid.text.removesuffix(prompt.question).rstrip()
            assert body.endswith(prompt.ends)
            assert (prompt.length or 0) - 20 <= len(laid.tokens) <= (prompt.length or 0)
            words = [atlas.token_string(laid.tokens[place]) for place in laid.answer]
            assert words == [f" {prompt.answer}"]


def test_a_control_without_a_needle_is_laid_out_and_not_found(toy_model: MakeModel) -> None:
    laid = one(toy_model("llama", "bpe"), replace(NEEDLE, needle="", answer="Cairo"))
    assert not laid.found and laid.answer == () and len(laid.tokens) == 110
    assert laid.text == f"{TEXT[: len(laid.text) - len(NEEDLE.question)]}{NEEDLE.question}"


def test_a_chat_template_is_put_around_and_the_span_moves_with_it() -> None:
    tokenizer = toys.make_tokenizer("bpe")
    model = wrap_model(toys.make_hf("llama"), tokenizer, name="chatty")
    with pytest.raises(OptionError, match="no chat template"):
        one(model, NEEDLE, chat=True)
    tokenizer.chat_template = (
        "{{ bos_token }}{% for m in messages %}[{{ m.role }}]{{ m.content | trim }}{% endfor %}"
        "{% if add_generation_prompt %}[bot]{% endif %}"
    )
    laid = one(model, replace(NEEDLE, length=112, opening="\nRead: "), chat=True)
    assert laid.text.startswith("[user]Read: The river") and laid.text.endswith("born?[bot]")
    assert len(laid.tokens) == 112 and laid.tokens.count(0) == 1  # one BOS
    window = (laid.answer[0], laid.answer[-1] + 1)
    assert window in smallest_window(model, laid.tokens, NEEDLE.answer)


def test_all_prompts_that_cannot_be_laid_out_are_named_at_once() -> None:
    model = needle_model.model()
    good = needle_model.prompts()[0]
    bad = (
        good,
        replace(good, length=5),
        replace(good, length=500, haystack=good.haystack * 5),
        replace(good, length=300),
        replace(good, needle="k0 zebra .", answer="zebra"),
        replace(good, length=None, haystack="so it . " * 40),
    )
    with pytest.raises(PromptError) as caught:
        lay_out(model, PromptSet(bad))
    lines = str(caught.value).splitlines()
    assert lines[0].startswith("5 of 6 needle prompts") and "#0" not in str(caught.value)
    for line, text in zip(
        lines[1:6],
        ("take 7 tokens of the 5", "500 tokens", "gives 187", "no token for 'zebra'", "127 tokens"),
        strict=True,
    ):
        assert text in line, line
