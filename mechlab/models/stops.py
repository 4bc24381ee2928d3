"""Which tokens end a continuation."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from mechlab.errors import OptionError
from mechlab.models.strings import byte_spelling

if TYPE_CHECKING:
    from mechlab.models.model import Model

__all__ = ["stop_tokens"]


def stop_tokens(model: "Model", marks: str = "") -> tuple[int, ...]:
    """Return the tokens that end a text, and every token that holds one of some characters.

    Args:
        model: the model; what ends a text is said by its tokenizer and generation settings.
        marks: characters, such as a line feed. One that takes several tokens ends nothing.

    Returns:
        Token ids in rising order.

    Raises:
        OptionError: when `marks` is no text.
    """
    if not isinstance(marks, str):
        raise OptionError(
            f"stop={marks!r}. Allowed: the characters that end a text, such as '\\n' or '.\\n', or "
            "'' for none. Write them as one text."
        )
    return tuple(sorted({*_ends_of_text(model), *_holding(model, marks)}))


def _ends_of_text(model: "Model") -> Iterator[int]:
    settings = getattr(model.hf, "generation_config", None)
    for source in (model.tokenizer, settings, model.hf.config):
        found = getattr(source, "eos_token_id", None)
        for token in found if isinstance(found, list | tuple) else (found,):
            if token is not None and 0 <= int(token) < model.d_vocab:
                yield int(token)


def _holding(model: "Model", marks: str) -> Iterator[int]:
    if not marks:
        return
    tokenizer: Any = model.tokenizer
    special, added = set(tokenizer.all_special_ids), set(tokenizer.get_added_vocab().values())
    spelled = [byte_spelling(tokenizer, mark) for mark in marks]
    bytes_of = [f"<0x{ord(mark):02X}>" for mark in marks if ord(mark) < 0x80]
    pieces = tokenizer.convert_ids_to_tokens(list(range(min(len(tokenizer), model.d_vocab))))
    for token, piece in enumerate(pieces):
        if piece is None or token in special:
            continue
        wanted = marks if token in added else spelled
        if any(mark in piece for mark in wanted) or piece in bytes_of:
            yield token
