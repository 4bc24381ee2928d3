import pytest

from mechlab.errors import OptionError
from mechlab.plots import escape, show_text, show_token


def test_leading_spaces_and_breaks_become_visible() -> None:
    assert show_token(" Paris") == "␣Paris"
    assert show_token("a\n\tb") == "a↵⇥b"


def test_the_position_tells_equal_tokens_apart() -> None:
    assert show_token(" the", 1) == "1·␣the"
    assert show_token(" the", 1) != show_token(" the", 3)


def test_invisible_characters_are_written_as_codes() -> None:
    assert show_token("a\u200bb") == "a\\u200bb"
    assert show_token("\x1b[31m") == "\\u001b[31m"
    assert show_token("\u202egnp") == "\\u202egnp"


def test_long_tokens_are_cut() -> None:
    assert show_token("x" * 100) == "x" * 23 + "…"


@pytest.mark.parametrize("token", ["<s>", "</s>", "<b>x", "<|endoftext|>", "&amp;", "$a$", '"'])
def test_html_form_holds_no_markup(token: str) -> None:
    shown = show_token(token, form="html")
    assert not set('<>"$') & set(shown)
    assert show_token(token) == token  # the plain form keeps every character


@pytest.mark.parametrize("token", ["$a$", ":red[x]", "**b**", "`c`", "[link](url)", "<b>", "# h"])
def test_markdown_form_escapes_every_special_character(token: str) -> None:
    shown = escape(token, "markdown")
    assert shown.replace("\\", "") == token
    assert all(shown[i - 1] == "\\" for i, c in enumerate(shown) if c in "$:*`[]()<>#")


@pytest.mark.parametrize("token", ["[red]x[/red]", "\\[bold]", "[/]", "[link=http://x]y"])
def test_terminal_form_prints_as_it_is(token: str) -> None:
    from rich.text import Text

    assert Text.from_markup(escape(token, "terminal")).plain == token


def test_a_long_prompt_loses_its_middle_and_stays_on_one_line() -> None:
    shown = show_text("first\n" + "x " * 500 + "last", longest=60)
    assert len(shown) <= 62
    assert shown.startswith("first↵")
    assert shown.endswith("last")


def test_an_unknown_form_is_refused() -> None:
    with pytest.raises(OptionError, match="form='latex'.*'plain', 'html', 'markdown'"):
        escape("x", "latex")  # type: ignore[arg-type]
