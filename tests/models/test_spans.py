"""Subjects are found from the characters of the whole prompt."""

import json
import os
import unicodedata
from dataclasses import dataclass
from pathlib import Path

import pytest
import toys
import transformers
from published import public_tokenizer
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers

from mechlab.errors import PromptError
from mechlab.models.encoding import make_encoder
from mechlab.models.spans import covering_tokens, subject_tokens
from mechlab.prompts import Fact

PROMPTS = [
    ("The Eiffel Tower is located in", "Eiffel Tower"),
    ("Zürich is a city in", "Zürich"),  # subject at the very start
    ("The café 東京 タワー is located in", "東京 タワー"),  # several bytes per character
    ("Near Tromsø, in Norway, Œuvre 🗼 was", "Œuvre 🗼"),
    ("They say e\u0301te\u0301 is warm", "e\u0301te\u0301"),  # combining accents
    ("Big Ben, not Benjamin", "Ben"),
]


@dataclass(frozen=True)
class Span:
    """A prompt with any span, also impossible ones."""

    prompt: str
    subject_span: tuple[int, int]


def _sentencepiece() -> transformers.PreTrainedTokenizerFast:
    """Unigram pieces on ▁-marked words, with bytes for what it has not seen, as Llama does."""
    raw = Tokenizer(models.Unigram())
    raw.normalizer = normalizers.NFKC()
    raw.pre_tokenizer = pre_tokenizers.Metaspace()
    texts = [prompt for prompt, _ in PROMPTS] * 3
    raw.train_from_iterator(
        texts,
        trainers.UnigramTrainer(vocab_size=150, special_tokens=["<unk>"], unk_token="<unk>"),
    )
    return transformers.PreTrainedTokenizerFast(tokenizer_object=raw, unk_token="<unk>")


def _encoder(kind: str):
    makers = {"bpe": lambda: toys.make_tokenizer("bpe"), "sentencepiece": _sentencepiece}
    tokenizer = makers[kind]() if kind in makers else public_tokenizer(kind)
    return make_encoder(tokenizer, prepend_bos=None, n_ctx=None, d_vocab=60_000)


@pytest.mark.parametrize("kind", ["bpe", "sentencepiece", "gpt2", "neox"])
@pytest.mark.parametrize(("prompt", "subject"), PROMPTS)
def test_the_tokens_of_a_subject_are_the_smallest_run_that_holds_it(
    kind: str, prompt: str, subject: str
) -> None:
    row = _encoder(kind).encode([prompt])[0]
    fact = Fact(prompt, subject, "x")
    first, last = subject_tokens(row, fact)
    start, end = fact.subject_span
    inside = [place for place, (a, b) in enumerate(row.offsets) if a < b and a < end and b > start]
    assert (first, last) == (inside[0], inside[-1])
    covered = prompt[row.offsets[first][0] : row.offsets[last][1]]
    # A composed letter counts as its first character in the offsets of some tokenizers.
    assert _without_marks(subject) in _without_marks(covered)
    assert len(covered.strip()) <= len(subject) + 3


def _without_marks(text: str) -> str:
    parts = unicodedata.normalize("NFD", text)
    return "".join(character for character in parts if not unicodedata.combining(character))


@pytest.mark.parametrize("kind", ["bpe", "gpt2", "neox"])
def test_the_bos_token_shifts_positions_by_one(kind: str) -> None:
    fact = Fact("The Eiffel Tower is in", "Eiffel Tower", "Paris")
    tokenizer = _encoder(kind).tokenizer
    if tokenizer.bos_token_id is None:
        tokenizer.bos_token = "<|endoftext|>"
    places = [
        subject_tokens(
            make_encoder(tokenizer, prepend_bos=put, n_ctx=None, d_vocab=60_000).encode(
                [fact.prompt]
            )[0],
            fact,
        )
        for put in (False, True)
    ]
    assert places[1] == (places[0][0] + 1, places[0][1] + 1)


def test_known_positions_on_gpt2() -> None:
    # The | Space | Need | le | is ...: the tokens of the causal-tracing paper's first figure.
    row = _encoder("gpt2").encode(["The Space Needle is in"])[0]
    assert subject_tokens(row, Fact("The Space Needle is in", "Space Needle", "x")) == (1, 3)
    row = _encoder("gpt2").encode(["Shaquille O'Neal plays"])[0]
    assert subject_tokens(row, Fact("Shaquille O'Neal plays", "Shaquille O'Neal", "x"))[0] == 0


def test_white_space_at_the_ends_of_a_span_does_not_count() -> None:
    row = _encoder("bpe").encode(["The  Rome is"])[0]
    bare = subject_tokens(row, Span("The  Rome is", (5, 9)))
    assert subject_tokens(row, Span("The  Rome is", (3, 10))) == bare


def test_the_right_one_of_two_occurrences_is_taken() -> None:
    prompt = "Rome is Rome"
    row = _encoder("bpe").encode([prompt])[0]
    early = subject_tokens(row, Fact(prompt, "Rome", "x"))
    late = subject_tokens(row, Fact(prompt, "Rome", "x", subject_start=8))
    assert early[1] < late[0] and late[1] == len(row.ids) - 1


@pytest.mark.parametrize("span", [(3, 3), (-1, 2), (2, 99)])
def test_a_span_outside_the_prompt_is_refused(span: tuple[int, int]) -> None:
    row = _encoder("bpe").encode(["Rome is"])[0]
    with pytest.raises(PromptError, match="does not lie in the prompt 'Rome is' of 7 characters"):
        subject_tokens(row, Span("Rome is", span))


def test_a_subject_without_visible_characters_is_refused() -> None:
    row = _encoder("bpe").encode(["Rome is"])[0]
    with pytest.raises(PromptError, match="no token of 'Rome is' covers the subject ' '"):
        subject_tokens(row, Span("Rome is", (4, 5)))


def test_touching_is_not_covering() -> None:
    offsets = [(0, 0), (0, 3), (3, 3), (3, 6), (6, 9)]
    assert covering_tokens(offsets, (3, 6)) == (3, 3)
    assert covering_tokens(offsets, (2, 7)) == (1, 4)
    assert covering_tokens(offsets, (9, 12)) is None


@pytest.mark.parametrize("name", ["gpt2", "neox"])
def test_the_subjects_of_all_known_facts_are_found(name: str) -> None:
    encoder = _encoder(name)
    file = Path(os.environ["MECHLAB_DATA"]) / "known_1000" / "known_1000.json"
    records = json.loads(file.read_text(encoding="utf-8"))
    facts = [Fact(record["prompt"], record["subject"]) for record in records]
    differing = 0
    for fact, row in zip(facts, encoder.encode([fact.prompt for fact in facts]), strict=True):
        first, last = subject_tokens(row, fact)
        spelled = encoder.tokenizer.decode(row.ids[first : last + 1])
        assert fact.subject.strip() in spelled
        differing += spelled.strip() != fact.subject.strip()
    assert len(facts) == 1209
    assert differing == 1  # one subject ends inside a token: ')' and a quotation mark are merged
