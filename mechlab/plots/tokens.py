"""How tokens are written: one function, so that no token reaches a page, figure or terminal raw.

Raw token strings do harm: `<s>` vanishes in HTML, `$a$` turns into a formula in Markdown, `[red]`
into a colour in the terminal, and a leading space cannot be seen at all.
"""

import html
import unicodedata
from typing import Literal

from mechlab.errors import OptionError

__all__ = ["Form", "escape", "show_text", "show_token"]

Form = Literal["plain", "html", "markdown", "terminal"]
"""Where text goes: a canvas or CSV, an HTML page or plotly figure, Streamlit Markdown, or rich."""

# The open box ␣, not the symbol for space U+2420: many common fonts lack the latter.
_MARKS = {" ": "␣", "\n": "↵", "\t": "⇥", "\r": "␍"}
_LONGEST = 24
_MARKDOWN = frozenset("\\`*_{}[]()<>#+-.!|~$:&")


def show_token(token: str, position: int | None = None, *, form: Form = "plain") -> str:
    """Write one token so that it can be read and cannot be mistaken for markup.

    Args:
        token: the token's text, with its own leading space if it has one.
        position: its position in the prompt; given, the result is `position·token`.
        form: where the text goes, which decides what is escaped.

    Returns:
        The token with spaces as ␣, line breaks as ↵, tabs as ⇥, other invisible characters as their
        code, cut to 24 characters, escaped for `form`.
    """
    visible = "".join(_visible(character) for character in token)
    if len(visible) > _LONGEST:
        visible = visible[: _LONGEST - 1] + "…"
    return escape(visible if position is None else f"{position}·{visible}", form)


def show_text(text: str, *, longest: int = 400, form: Form = "plain") -> str:
    """Write a whole prompt on one line: spaces stay, line breaks and invisible characters show.

    Args:
        text: any text from outside.
        longest: characters after which the middle is left out.
        form: where the text goes, which decides what is escaped.
    """
    visible = "".join(c if c == " " else _visible(c) for c in text)
    if len(visible) > longest:
        half = (longest - 3) // 2
        visible = f"{visible[:half]} … {visible[-half:]}"
    return escape(visible, form)


def escape(text: str, form: Form) -> str:
    """Escape `text` for one output, so that it appears there character by character.

    Raises:
        OptionError: when `form` is not one of the four outputs.
    """
    match form:
        case "plain":
            return text
        case "html":
            return html.escape(text).replace("$", "&#36;")
        case "markdown":
            return "".join(f"\\{c}" if c in _MARKDOWN else c for c in text)
        case "terminal":
            # A backslash just before a bracket would itself be read as an escape by rich.
            return text.replace("\\", "\\\\").replace("[", "\\[")
    raise OptionError(
        f"form={form!r} is not an output text can be escaped for. "
        "Choose 'plain', 'html', 'markdown' or 'terminal'."
    )


def _visible(character: str) -> str:
    if character in _MARKS:
        return _MARKS[character]
    # Control, format (zero-width, right-to-left marks), surrogate, private, separator.
    if unicodedata.category(character) in {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp", "Zs"}:
        return f"\\u{ord(character):04x}"
    return character
