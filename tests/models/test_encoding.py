"""Text to ids: the BOS rule, and every unusable text named at once."""

import copy

import pytest
import toys
from published import public_tokenizer
from tokenizers.processors import TemplateProcessing

from mechlab.errors import ModelError, OptionError, PromptError
from mechlab.models.encoding import make_encoder


def _tokenizer(kind: str = "words", template: str | None = "<bos> $A"):
    """A toy tokenizer that surrounds texts as `template` says."""
    tokenizer = toys.make_tokenizer(kind)
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single=template or "$A", special_tokens=[("<bos>", 0), ("<eos>", 1), ("<pad>", 2)]
    )
    return tokenizer


def _encoder(tokenizer, prepend_bos=None, n_ctx=8, d_vocab=toys.N_VOCAB):
    return make_encoder(tokenizer, prepend_bos=prepend_bos, n_ctx=n_ctx, d_vocab=d_vocab)


@pytest.mark.parametrize("kind", ["words", "bpe"])
@pytest.mark.parametrize(
    ("template", "asked", "put"),
    [
        ("<bos> $A", None, True),
        ("$A", None, False),
        ("$A <eos>", None, False),
        ("<bos> $A <eos>", None, True),
        ("<bos> $A", False, False),
        ("$A", True, True),
    ],
)
def test_bos_is_put_where_the_tokenizer_puts_it_unless_asked_otherwise(
    kind: str, template: str, asked: bool | None, put: bool
) -> None:
    tokenizer = _tokenizer(kind, template)
    row = _encoder(tokenizer, asked, n_ctx=None).encode(["The city of Paris"])[0]
    plain = tokenizer.encode("The city of Paris", add_special_tokens=False)
    assert list(row.ids) == [0, *plain] if put else plain  # and no end-of-sequence token
    assert len(row.offsets) == len(row.ids)


def test_a_bos_other_than_the_named_one_is_followed() -> None:
    row = _encoder(_tokenizer(template="<pad> $A")).encode(["Rome"])[0]
    assert row.ids[0] == 2


def test_two_tokens_in_front_are_refused_unless_the_text_alone_is_asked_for() -> None:
    tokenizer = _tokenizer(template="<pad> <bos> $A")
    with pytest.raises(ModelError, match="puts 2 special tokens in front"):
        _encoder(tokenizer)
    assert len(_encoder(tokenizer, prepend_bos=False).encode(["Rome"])[0].ids) == 1


def test_a_bos_that_does_not_exist_cannot_be_asked_for() -> None:
    tokenizer = _tokenizer(template="$A")
    tokenizer.bos_token = None
    with pytest.raises(OptionError, match="no beginning-of-sequence token"):
        _encoder(tokenizer, prepend_bos=True)


def test_a_text_that_brings_its_own_bos_is_refused_only_where_one_is_put() -> None:
    with pytest.raises(PromptError, match="begins with '<bos>', which is put there anyway"):
        _encoder(_tokenizer()).encode(["<bos> Rome"])
    row = _encoder(_tokenizer(), prepend_bos=False).encode(["<bos> Rome"])[0]
    assert row.ids[0] == 0 and len(row.ids) == 2


def test_every_unusable_text_is_named_at_once() -> None:
    texts = ["Paris", "the " * 8, "Rome", "a quokka in Lima", "<bos> Rome"]
    with pytest.raises(PromptError) as caught:
        _encoder(_tokenizer()).encode(texts)
    message = str(caught.value)
    assert "3 of 5 texts" in message
    assert "#1 'the the" in message and "has 9 tokens, the model's context is 8" in message
    assert "#3 'a quokka in Lima' has no token for 'quokka'" in message
    assert "#4" in message and "#0" not in message and "#2" not in message
    assert "1 to 8 tokens" in message and "show_tokens" in message


def test_what_is_not_text_is_named_before_the_tokenizer_sees_it() -> None:
    with pytest.raises(PromptError) as caught:
        _encoder(_tokenizer()).encode(["", None, "half \ud800", "Rome"])  # type: ignore[list-item]
    message = str(caught.value)
    assert "3 of 4" in message and "#0 '' is empty" in message
    assert "#1 'None' is NoneType, not text" in message and "#2" in message
    with pytest.raises(PromptError, match="no text was given"):
        _encoder(_tokenizer()).encode([])


def test_the_longest_text_that_fits_is_allowed() -> None:
    encoder = _encoder(_tokenizer())
    assert len(encoder.encode(["the " * 7])[0].ids) == 8
    assert len(encoder.unlimited().encode(["the " * 70])[0].ids) == 71


def test_characters_that_a_tokenizer_drops_are_named() -> None:
    tokenizer = toys.make_tokenizer("words")
    from tokenizers import normalizers

    tokenizer.backend_tokenizer.normalizer = normalizers.Replace("#", "")
    with pytest.raises(PromptError, match="has no token for '#'"):
        _encoder(tokenizer).encode(["Rome #"])
    assert _encoder(tokenizer).encode(["Rome  Lima "])  # white space may go


def test_ids_beyond_the_embedding_are_unknown() -> None:
    tokenizer = copy.deepcopy(toys.make_tokenizer("words"))
    tokenizer.add_tokens(["quokka"])
    with pytest.raises(PromptError, match="has no token for 'quokka'"):
        _encoder(tokenizer).encode(["a quokka"])
    assert _encoder(tokenizer, d_vocab=toys.N_VOCAB + 1).encode(["the quokka"])


def test_a_tokenizer_of_another_model_is_refused() -> None:
    with pytest.raises(ModelError, match="320 entries, the model embeds only 100"):
        _encoder(_tokenizer(), d_vocab=100)


def test_a_tokenizer_without_offsets_is_refused() -> None:
    with pytest.raises(ModelError, match="does not report character offsets"):
        _encoder(object())


def test_encoding_does_not_change_the_tokenizer() -> None:
    tokenizer = _tokenizer()
    before = tokenizer.backend_tokenizer.to_str()
    _encoder(tokenizer).encode(["Rome", "Lima Peru"])
    assert tokenizer.backend_tokenizer.to_str() == before


@pytest.mark.parametrize("name", ["gpt2", "neox"])
def test_the_published_tokenizers_put_no_bos_and_pad_with_what_they_have(name: str) -> None:
    tokenizer = public_tokenizer(name)
    encoder = _encoder(tokenizer, n_ctx=None, d_vocab=60_000)
    assert encoder.bos_id is None and 0 <= encoder.filler < 60_000
    text = "The café 東京 🗼\n is in"
    assert list(encoder.encode([text])[0].ids) == tokenizer.encode(text)
    # GPT-2 calls its end of text the unknown token as well; that must not make it unknown.
    assert encoder.encode(["a <|endoftext|> b"])
