"""Token ids as readable text."""

import json
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from mechlab.models.encoding import Encoded

__all__ = ["byte_spelling", "show_table", "token_string", "visible"]


def token_string(tokenizer: Any, token: int) -> str:
    """Return one token as text, its leading space kept.

    Decoding token by token would drop the leading space with some tokenizers; the vocabulary
    entry itself keeps it. A token that is only part of a character is written as its bytes,
    `<0xE6><0x9D>`.
    """
    piece = tokenizer.convert_ids_to_tokens(int(token))
    if piece is None:
        return f"<{token}>"
    if int(token) in tokenizer.all_special_ids:
        return str(piece)
    if _is_byte_level(tokenizer):
        return _from_bytes(str(piece))
    return str(piece).replace("▁", " ")


def byte_spelling(tokenizer: Any, text: str) -> str:
    """Return a text as it is spelled within entries of the vocabulary; merging tokens aside."""
    if not _is_byte_level(tokenizer):
        return text.replace(" ", "▁")
    character = {byte: spelled for spelled, byte in _byte_of_character().items()}
    return "".join(character[byte] for byte in text.encode("utf-8"))


def visible(text: str) -> str:
    """Return text with its white space made visible: ␠ space, ↵ line feed, ⇥ tab."""
    shown = text.replace(" ", "␠").replace("\n", "↵").replace("\t", "⇥")
    return "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in shown)


def show_table(tokenizer: Any, text: str, row: Encoded) -> str:
    """Return a plain table with one line per token: position, id, token, characters."""
    lines = [("pos", "id", "token", "characters")]
    for place, (token, (start, end)) in enumerate(zip(row.ids, row.offsets, strict=True)):
        span = f"{start}:{end} {visible(text[start:end])}" if end > start else "-"
        lines.append((str(place), str(token), visible(token_string(tokenizer, token)), span))
    return _columns(lines)


def _columns(lines: Sequence[tuple[str, str, str, str]]) -> str:
    widths = [max(len(line[column]) for line in lines) for column in range(3)]
    return "\n".join(
        f"{pos:>{widths[0]}}  {token:>{widths[1]}}  {piece:<{widths[2]}}  {span}".rstrip()
        for pos, token, piece, span in lines
    )


def _is_byte_level(tokenizer: Any) -> bool:
    decoder = tokenizer.backend_tokenizer.decoder
    return decoder is not None and '"ByteLevel"' in json.dumps(
        json.loads(decoder.__getstate__()), separators=(",", ":")
    )


def _from_bytes(piece: str) -> str:
    """Undo the byte-level alphabet, in which every byte is written as one printable character."""
    table = _byte_of_character()
    if any(character not in table for character in piece):
        return piece  # an added token, stored as it is
    raw = bytes(table[character] for character in piece)
    shown = raw.decode("utf-8", errors="surrogateescape")
    return "".join(f"<0x{ord(c) - 0xDC00:02X}>" if 0xDC80 <= ord(c) <= 0xDCFF else c for c in shown)


@lru_cache(maxsize=1)
def _byte_of_character() -> dict[str, int]:
    """Return the byte-level alphabet of GPT-2 (Radford et al. 2019): character -> byte."""
    kept = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    moved = [byte for byte in range(0x100) if byte not in kept]
    table = {chr(byte): byte for byte in kept}
    return table | {chr(0x100 + place): byte for place, byte in enumerate(moved)}
