"""Prompts of the pages that compare two answers: a pair, a fact, a built-in set, or rows of a file.

Nothing here touches Streamlit.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, ClassVar, Self

import mechlab as ml
from request import MODEL_FIELDS, Request, plain
from versions import version_of

__all__ = [
    "EXAMPLE", "PAIR_FIELDS", "SETS", "PairRequest", "file_rows", "model_fields_of",
    "prompt_fields_of", "records_of", "stored_options",
]  # fmt: skip

SETS = {
    "conflicts": "conflicts of context and memory",
    "ioi": "indirect objects",
}
"""Built-in sets of pairs, with their words."""

EXAMPLE = {
    "clean": "The capital of Poland is",
    "corrupted": "The capital of France is",
    "answer": "Warsaw",
    "wrong_answer": "Paris",
}
"""A pair that the shipped model answers both ways."""

PAIR_FIELDS = (
    "source", "clean", "corrupted", "answer", "wrong_answer", "count", "form", "prompt_seed",
    "rows",
)  # fmt: skip
"""Fields that decide which pairs are asked for."""

_KINDS = {"fact": ml.prompts.Fact, "pair": ml.prompts.PromptPair}
_made: dict[tuple[Any, ...], Any] = {}
"""Built-in sets made so far in this process, by model and settings: they need the tokenizer."""
_MOST_MADE = 32


@dataclass(frozen=True, kw_only=True)
class PairRequest(Request):
    """A run on one pair, one fact, a built-in set, or the rows of a file."""

    SOURCES: ClassVar[tuple[str, ...]] = ("pair", "conflicts", "ioi", "rows")
    """Where the prompts of this page may come from."""

    source: str = "pair"
    clean: str = EXAMPLE["clean"]
    corrupted: str = EXAMPLE["corrupted"]
    answer: str = EXAMPLE["answer"]
    wrong_answer: str = EXAMPLE["wrong_answer"]
    prompt: str = ""
    subject: str = ""
    target: str = ""
    count: int = 8
    form: str = "repeat"
    prompt_seed: int = 0
    rows: str = ""
    """JSON of prompts that came from a file or a stored result."""

    # Prompts -------------------------------------------------------------------------------------

    @property
    def label(self) -> str:
        """The prompts in a few words."""
        if self.source in SETS:
            return f"{self.count} {SETS[self.source]}"
        if self.source == "rows":
            found = self._rows()
            first = (found[0].get("clean") or found[0].get("prompt", "")) if found else "no file"
            return f"{first} and {len(found) - 1} more" if len(found) > 1 else str(first)
        return self.prompt if self.source == "fact" else self.clean

    def prompts(self) -> Any:
        """Return the prompts.

        Raises:
            PromptError: when they cannot be used.
            NotImplementedError: for a built-in set that was not made for this model yet.
        """
        if self.source in SETS:
            if (made := _made.get(self._set_key())) is None:
                raise NotImplementedError
            return made
        if self.source == "rows":
            return [_prompt(row) for row in self._rows()]
        if self.source == "fact":
            return ml.prompts.Fact(self.prompt, self.subject, self.target)
        return ml.prompts.PromptPair(self.clean, self.corrupted, self.answer, self.wrong_answer)

    def prompts_for(self, model: Any) -> Any:
        """Return the prompts; a built-in set is made to align on the model's own tokens."""
        if self.source not in SETS:
            return self.prompts()
        settings = {"count": self.count, "seed": self.prompt_seed, "model": model}
        if self.source == "conflicts":
            settings["form"] = self.form
        made = getattr(ml.prompts, self.source)(**settings)
        while len(_made) >= _MOST_MADE:
            _made.pop(next(iter(_made)))
        _made[self._set_key()] = made
        return made

    def prompts_code(self) -> str:
        """Return Python that makes the prompts."""
        if self.source not in SETS:
            return super().prompts_code()
        form = f", form={self.form!r}" if self.source == "conflicts" else ""
        made = f"count={self.count}, seed={self.prompt_seed}{form}, model=model"
        return f"ml.prompts.{self.source}({made})"

    @property
    def kind(self) -> str:
        """`fact` or `pair`."""
        if self.source == "rows":
            found = self._rows()
            return "pair" if not found or "clean" in found[0] else "fact"
        return "fact" if self.source == "fact" else "pair"

    @property
    def size(self) -> int:
        """How many prompts there are."""
        return self.count if self.source in SETS else len(self._rows()) or 1

    def problem(self) -> str:
        """Return why this cannot be run, in a sentence; empty when it can."""
        if self.source == "rows" and not self._rows():
            return (
                "Choose a file of prompts: CSV or JSON with clean, corrupted, answer, wrong_answer."
            )
        try:
            return super().problem()
        except NotImplementedError:
            return ""

    # Identity ------------------------------------------------------------------------------------

    @property
    def id(self) -> str:
        """Twelve hex digits that two equal requests share; fields out of use do not count."""
        text = json.dumps([self._about(), self._asked()], sort_keys=True, ensure_ascii=False)
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    def differences(self, other: Request) -> list[str]:
        """Say what differs from another request, one line each."""
        mine, theirs = self._about(), getattr(other, "_about", dict)()
        told = [
            f"{name}: {theirs.get(name)!r} → {mine.get(name)!r}"
            for name in {**mine, **theirs}
            if mine.get(name) != theirs.get(name)
        ]
        if isinstance(other, PairRequest) and not self._same_prompts(other):
            told.insert(0, f"prompts: {other.label!r} → {self.label!r}")
        return told

    def _more(self) -> dict[str, Any]:
        return dict(json.loads(self.more))

    def _about(self) -> dict[str, Any]:
        """Return everything but the prompts that makes a difference."""
        model = {name: getattr(self, name) for name in MODEL_FIELDS if name != "device"}
        options = {name: plain(value) for name, value in self.options.items()}
        return {"method": self.method, "model": self.model_name, **model, **options}

    def _asked(self) -> list[Any]:
        """Return what decides the prompts."""
        if self.source in SETS:
            form = self.form if self.source == "conflicts" else ""
            return [self.source, self.count, form, self.prompt_seed]
        if self.source == "rows":
            return ["rows", self.rows]
        names = ("prompt", "subject", "target")
        if self.source == "pair":
            names = ("clean", "corrupted", "answer", "wrong_answer")
        return [self.source, *(getattr(self, name) for name in names)]

    def _same_prompts(self, other: "PairRequest") -> bool:
        if self._asked() == other._asked():
            return True
        mine = self.digest()
        return mine is not None and mine == other.digest()

    def _set_key(self) -> tuple[Any, ...]:
        return (*(v for n, v in self.load_arguments.items() if n != "device"), *self._asked())

    def _rows(self) -> list[dict[str, Any]]:
        found = json.loads(self.rows) if self.rows else []
        return list(found)

    def spec(self) -> dict[str, Any]:
        """Return what `mechlab run` takes."""
        model = {name: value for name, value in self.load_arguments.items() if value is not None}
        options = {name: plain(value) for name, value in self.options.items()}
        if self.source in SETS:
            asked: Any = {"set": self.source, "count": self.count, "seed": self.prompt_seed}
            asked |= {"form": self.form} if self.source == "conflicts" else {}
        else:
            given = ml.prompts.as_prompt_set(self.prompts(), kind="any")
            asked = [{n: v for n, v in asdict(one).items() if v not in (None, ())} for one in given]
        return {"method": self.method, "model": model, "prompts": asked, "options": options}

    @classmethod
    def from_fields(cls, values: Mapping[str, Any]) -> Self:
        """Return the request that the fields make."""
        tidy = dict(values)
        for name in ("clean", "corrupted", "prompt"):
            tidy[name] = str(tidy[name]).rstrip()  # a trailing space would be a token of its own
        for name in ("answer", "wrong_answer", "subject", "target"):
            tidy[name] = str(tidy[name]).strip()
        return cls(**tidy)


def prompt_fields_of(result: Any) -> dict[str, Any]:
    """Return the prompt fields that ask for exactly the prompts of a stored result."""
    for key, made in _made.items():  # a built-in set stays one, as long as this process knows it
        if made.digest == result.attrs.get("prompts_digest"):
            source, count, form, seed = key[-4:]
            kept = {"form": form} if form else {}
            return {"source": source, "count": count, "prompt_seed": seed, **kept}
    records = records_of(result)
    plainly = len(records) == 1 and set(records[0]) - {"kind"} <= {
        *EXAMPLE, "label", "prompt", "subject", "target", "subject_start",
    }  # fmt: skip
    if plainly and all(records[0].get(name) is None for name in ("label", "subject_start")):
        kept = {
            n: v for n, v in records[0].items() if n in (*EXAMPLE, "prompt", "subject", "target")
        }
        return {"source": str(records[0]["kind"]), **kept}
    return {"source": "rows", "rows": json.dumps(records, ensure_ascii=False)}


def records_of(result: Any) -> list[dict[str, Any]]:
    """Return the prompts of a result as JSON objects; none for one of an older mechlab."""
    if "prompt_record" in result.coords:
        return [json.loads(str(text)) for text in result["prompt_record"].values]
    return []


def stored_options(result: Any) -> dict[str, Any]:
    """Return the options that a stored result was computed with."""
    found = json.loads(result.attrs.get("options", "{}"))
    return dict(found) if isinstance(found, dict) else {}


def model_fields_of(result: Any) -> dict[str, Any]:
    """Return the fields of the model of a stored result, all but its name."""
    attrs = result.attrs
    return {
        "dtype": str(attrs.get("model_dtype", "float32")),
        "weights": str(attrs.get("model_weights", "raw")),
        **version_of(attrs),
    }


def file_rows(name: str, content: bytes) -> str:
    """Return the prompts of an uploaded file as JSON.

    Raises:
        PromptError: when it is no CSV, JSON or JSONL of pairs or facts.
    """
    from tempfile import TemporaryDirectory

    ending = Path(name).suffix.lower()
    if ending not in (".csv", ".json", ".jsonl"):
        raise ml.PromptError(f"{name!r} is not a file of prompts. Allowed: .csv, .json, .jsonl.")
    with TemporaryDirectory() as folder:
        path = Path(folder) / f"prompts{ending}"
        path.write_bytes(content)
        try:
            found: Any = ml.prompts.read_pairs(path)
        except ml.PromptError as error:
            try:
                found = ml.prompts.read_facts(path)
            except ml.PromptError:
                raise error from None
    return json.dumps([prompt.to_json() for prompt in found], ensure_ascii=False)


def _prompt(row: Mapping[str, Any]) -> Any:
    kind = _KINDS["pair" if "clean" in row else "fact"]
    known = {field.name for field in fields(kind)}
    given = {name: value for name, value in row.items() if name in known}
    for name in ("places", "corrupted_places", "about"):
        if name in given:
            given[name] = tuple(tuple(part) for part in given[name])
    return kind(**given)
