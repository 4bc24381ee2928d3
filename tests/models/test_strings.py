"""Tokens as text that can be read and told apart."""

import transformers
from tokenizers import Tokenizer, models, pre_tokenizers

from mechlab.models.strings import token_string, visible


def test_byte_level_tokens_keep_their_space_and_spell_the_text(toy_model) -> None:
    model = toy_model("llama", "bpe")
    text = "The capital of\n\tFrance, is?"
    assert "".join(model.token_strings(text)[1:]) == text
    assert model.token_strings(text)[0] == "<bos>"
    assert " capital" in model.token_strings(text)


def test_parts_of_a_character_are_written_as_bytes(toy_model) -> None:
    model = toy_model("llama", "bpe")
    shown = "".join(model.token_strings("東"))
    assert shown == "<bos><0xE6><0x9D><0xB1>"


def test_sentencepiece_tokens_keep_their_space() -> None:
    raw = Tokenizer(models.WordLevel({"▁Rome": 0, "s": 1, "<unk>": 2}, unk_token="<unk>"))
    raw.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=raw, unk_token="<unk>")
    assert [token_string(tokenizer, i) for i in (0, 1, 2)] == [" Rome", "s", "<unk>"]


def test_an_id_without_an_entry_is_shown_as_a_number(toy_model) -> None:
    assert toy_model("llama").token_string(5000) == "<5000>"


def test_added_tokens_are_shown_as_they_are() -> None:
    import toys

    tokenizer = toys.make_tokenizer("bpe")
    tokenizer.add_tokens(["→Zürich"])
    assert token_string(tokenizer, len(tokenizer) - 1) == "→Zürich"


def test_white_space_is_made_visible() -> None:
    assert visible(" a\n\tb\x07") == "␠a↵⇥b\\x07"


def test_the_table_shows_position_id_token_and_characters(toy_model) -> None:
    model = toy_model("gpt2", "bpe")
    lines = model.show_tokens("The capital").splitlines()
    ids = model.tokenize("The capital").tokens[0].tolist()
    assert lines[0].split() == ["pos", "id", "token", "characters"]
    assert lines[1].split() == ["0", "0", "<bos>", "-"]
    assert lines[-1].split() == [str(len(ids) - 1), str(ids[-1]), "␠capital", "3:11", "␠capital"]
    assert len(lines) == len(ids) + 1


def test_the_table_also_shows_texts_that_are_refused(toy_model) -> None:
    assert "<unk>" in toy_model("gpt2").show_tokens("a quokka")
