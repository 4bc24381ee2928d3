"""Where texts come from: a file, a list, a dataset by name, or what `atlas` was trained on."""

import hashlib
import json
from collections.abc import Iterator, Sequence
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from mechlab.canonical import digest
from mechlab.errors import OptionError, PromptError
from mechlab.results import library_versions

__all__ = ["Corpus", "check_corpus", "corpus_name", "corpus_source", "texts_of"]

Corpus = str | Path | Sequence[str]
"""`"atlas"`: the documents that the shipped model is trained on, endless and seeded. A path: each
line of a `.jsonl` file (its field `text`), else the parts of a text file between blank lines.
`"datasets:NAME"`, `"datasets:NAME:CONFIG"` or `"datasets:NAME:CONFIG:SPLIT"`: the field `text` of a
dataset, streamed by the optional package `datasets`. A list of texts."""

_PREFIX = "datasets:"


def corpus_name(corpus: Corpus) -> str:
    """Return what the corpus is called in results, without its place on this machine."""
    if isinstance(corpus, str) and (corpus == "atlas" or corpus.startswith(_PREFIX)):
        return corpus
    return Path(corpus).name if isinstance(corpus, str | Path) else f"{len(corpus)} texts"


def corpus_source(corpus: Corpus, seed: int) -> dict[str, object]:
    """Return what decides the texts, with a canonical form: contents, or name and seed."""
    if not isinstance(corpus, str | Path):
        return {"texts": digest(list(corpus))}
    if corpus == "atlas":
        return {"generator": "atlas", "seed": seed, "mechlab": library_versions()["mechlab"]}
    if str(corpus).startswith(_PREFIX):
        return {"datasets": str(corpus)}
    found = hashlib.sha256()
    with Path(corpus).open("rb") as file:
        while part := file.read(2**20):
            found.update(part)
    return {"file": found.hexdigest(), "lines": str(corpus).endswith(".jsonl")}


def check_corpus(corpus: object) -> None:
    """Refuse what is no corpus, before anything is run.

    Raises:
        OptionError: for another type, a file that is not there, or a missing package.
    """
    if isinstance(corpus, str) and corpus == "atlas":
        return
    if isinstance(corpus, str) and corpus.startswith(_PREFIX):
        if find_spec("datasets") is None:
            raise OptionError(
                f"corpus={corpus!r} needs the package `datasets`, which is not installed. "
                "Allowed without it: 'atlas', a text or .jsonl file, a list of texts. Install it "
                "(pip install datasets), or use one of these."
            )
        return
    if isinstance(corpus, str | Path):
        if not Path(corpus).is_file():
            raise OptionError(
                f"corpus={str(corpus)!r} is no file. Allowed: 'atlas', a text or .jsonl file, "
                "'datasets:NAME', a list of texts. Correct the path."
            )
        return
    if not isinstance(corpus, Sequence) or not corpus or not all(map(_is_text, corpus)):
        raise OptionError(
            f"corpus is {type(corpus).__name__} {corpus!r:.60}. Allowed: 'atlas', a file, "
            "'datasets:NAME', or a list of texts that are not empty. Give one of these."
        )


def texts_of(corpus: Corpus, *, seed: int, vocabulary: int) -> Iterator[str]:
    """Yield the texts of a checked corpus, always in the same order.

    Args:
        corpus: see `Corpus`.
        seed: of the generator of `"atlas"`; other corpora have an order of their own.
        vocabulary: number of tokens, for the generator.

    Raises:
        PromptError: when a file cannot be read, or a line of it has no text.
    """
    if not isinstance(corpus, str | Path):
        yield from corpus
    elif corpus == "atlas":
        yield from _generated(seed, vocabulary)
    elif str(corpus).startswith(_PREFIX):
        yield from _from_datasets(str(corpus).removeprefix(_PREFIX))
    elif str(corpus).endswith(".jsonl"):
        yield from _from_lines(Path(corpus))
    else:
        yield from _from_text(Path(corpus))


def _is_text(value: object) -> bool:
    return isinstance(value, str) and bool(value.strip())


def _generated(seed: int, vocabulary: int) -> Iterator[str]:
    from mechlab.organisms.corpus.batches import documents

    step = 0
    while True:  # the caller stops when it has enough tokens
        yield from (
            document.text for document in documents(seed, step, vocabulary) if document.text
        )
        step += 1


def _from_datasets(name: str) -> Iterator[str]:
    parts = [part or None for part in name.split(":")] + [None, None]
    load: Any = import_module("datasets").load_dataset
    for entry in load(parts[0], parts[1], split=parts[2] or "train", streaming=True):
        if "text" not in entry:
            raise PromptError(
                f"the dataset {name} has the fields {', '.join(entry)} and no 'text'.\n"
                "  Allowed: datasets with a field 'text'.\n  Write its texts to a .jsonl file."
            )
        if _is_text(entry["text"]):
            yield entry["text"]


def _from_lines(path: Path) -> Iterator[str]:
    with path.open(encoding="utf-8") as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            try:
                entry = json.loads(line)
            except ValueError as err:
                raise _bad_line(path, number, str(err)) from err
            text = entry.get("text") if isinstance(entry, dict) else entry
            if not isinstance(text, str):
                raise _bad_line(path, number, "it has no field 'text'")
            if text.strip():
                yield text


def _bad_line(path: Path, number: int, reason: str) -> PromptError:
    return PromptError(
        f"line {number} of {path.name} is no text: {reason}.\n"
        '  Allowed: one JSON object with a field "text", or one JSON string, per line.\n'
        "  Correct the line."
    )


def _from_text(path: Path) -> Iterator[str]:
    part: list[str] = []
    try:
        with path.open(encoding="utf-8") as file:
            for line in file:
                if line.strip():
                    part.append(line)
                elif part:
                    yield "".join(part)
                    part = []
    except UnicodeDecodeError as err:
        raise PromptError(
            f"{path.name} is not text in UTF-8: {err}.\n  Allowed: UTF-8.\n  Convert it."
        ) from err
    if part:
        yield "".join(part)
