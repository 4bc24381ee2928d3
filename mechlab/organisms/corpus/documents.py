"""What the generator makes: one document, its loss weights, and the true facts that it states."""

from dataclasses import dataclass

__all__ = ["Cell", "Document", "Text"]

Cell = tuple[int, int]
"""(rank of the country, index of the relation)."""


@dataclass(frozen=True)
class Document:
    """One training document, without the BOS token that every document starts with."""

    text: str
    """The text, or empty when the document is given as token ids."""
    spans: tuple[tuple[int, int, float], ...] = ()
    """(start, end, loss weight) over characters; what no span covers has weight `weight`."""
    weight: float = 1.0
    """Loss weight of everything outside the spans."""
    cells: tuple[Cell, ...] = ()
    """The true facts that the document states in English, for counting exposures."""
    ids: tuple[int, ...] = ()
    """Token ids, for documents that no text stands for."""
    unscored: int = 0
    """How many leading tokens of `ids` have weight 0."""


class Text:
    """A document under construction: text is appended, each piece with its loss weight."""

    def __init__(self, weight: float = 1.0) -> None:
        """Start an empty text whose pieces weigh `weight` unless told otherwise."""
        self.pieces: list[str] = []
        self.spans: list[tuple[int, int, float]] = []
        self.cells: list[Cell] = []
        self.weight = weight
        self.length = 0

    def add(self, piece: str, weight: float | None = None) -> "Text":
        """Append a piece of text."""
        if weight is not None:
            self.spans.append((self.length, self.length + len(piece), weight))
        self.pieces.append(piece)
        self.length += len(piece)
        return self

    def document(self) -> Document:
        """Return the finished document."""
        return Document("".join(self.pieces), tuple(self.spans), self.weight, tuple(self.cells))
