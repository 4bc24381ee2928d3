"""What a page asks for: a method on a model and prompts, as one frozen value that writes its code.

Every page has a subclass with its own fields. Nothing here touches Streamlit, the store or a model.
"""

import hashlib
import json
import textwrap
from collections.abc import Mapping
from dataclasses import MISSING, asdict, dataclass, fields
from typing import Any, ClassVar, Protocol, Self

import mechlab as ml
from model_path import path_of
from versions import last_step

__all__ = [
    "MODEL_FIELDS", "SHARED_FIELDS", "Request", "Scripted", "notebook_of", "plain",
    "prompt_code",
]  # fmt: skip

MODEL_FIELDS = ("device", "dtype", "weights", "revision", "checkpoint")
"""Arguments of `load_model` besides the name."""

SHARED_FIELDS = (
    "model", *MODEL_FIELDS, "prompt", "subject", "target", "clean", "corrupted", "answer",
    "wrong_answer",
)  # fmt: skip
"""Fields whose values all pages share; the others belong to one page each."""


class Scripted(Protocol):
    """What can be taken away as a script: a request, or several that belong together."""

    PAGE: ClassVar[str]

    def code(self, run: str = "") -> str:
        """Return a script that computes the result."""

    def notebook(self, run: str = "") -> str:
        """Return the same as a Jupyter notebook."""


@dataclass(frozen=True, kw_only=True)
class Request:
    """A run of one method; subclasses add prompts and options as fields with defaults."""

    PAGE: ClassVar[str] = ""
    """Address of the page that shows its result, e.g. `trace`."""
    METHODS: ClassVar[tuple[str, ...]] = ()
    """Names in `ml` of the methods whose results that page shows; the first one is the usual."""
    OPTIONS: ClassVar[tuple[str, ...]] = ()
    """Fields that are options of the method under the same name."""
    OTHER_DEFAULTS: ClassVar[Mapping[str, Any]] = {}
    """The method's other options with their defaults; reading them from it would import torch."""
    UNORDERED: ClassVar[tuple[str, ...]] = ()
    """Fields that hold a list whose order means nothing."""
    PLOT: ClassVar[str] = ""
    """Last line of the code, with `result` as the Dataset."""

    model: str = "atlas"
    device: str = "auto"
    dtype: str = "float32"
    weights: str = "raw"
    revision: str | None = None
    checkpoint: int | None = None
    more: str = "{}"
    """JSON of other options that differ from their defaults, kept from a result that had them."""

    # What a subclass says --------------------------------------------------------------------

    @property
    def method(self) -> str:
        """Name in `ml` of the method; a page with several methods chooses by one of its fields."""
        return self.METHODS[0]

    @property
    def label(self) -> str:
        """The prompts in a few words, for the bar and the list of jobs."""
        raise NotImplementedError

    def prompts(self) -> Any:
        """Return the prompts: one, a list, or a PromptSet.

        Raises:
            MechlabError: when they cannot be used.
        """
        raise NotImplementedError

    def prompts_for(self, model: Any) -> Any:
        """Return the prompts once the model is loaded; only some need to know it."""
        return self.prompts()

    def prompts_code(self) -> str:
        """Return Python that makes the prompts, for prompts that are written out."""
        return prompt_code(self.prompts())

    def option_code(self, value: Any) -> str:
        """Return Python that makes the value of an option; override where `repr` is none."""
        return repr(value)

    @classmethod
    def from_fields(cls, values: Mapping[str, Any]) -> Self:
        """Return the request that the page's fields make; tidies what people type."""
        return cls(**values)

    # What follows from it --------------------------------------------------------------------

    @classmethod
    def names(cls) -> tuple[str, ...]:
        """Return the names of all fields."""
        return tuple(field.name for field in fields(cls))

    @property
    def id(self) -> str:
        """Twelve hex digits that two equal requests share; the device changes no numbers."""
        content = {name: value for name, value in asdict(self).items() if name != "device"}
        content |= {name: sorted(content[name]) for name in self.UNORDERED}
        text = json.dumps({"method": self.method, **content}, sort_keys=True, ensure_ascii=False)
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    @property
    def model_name(self) -> str:
        """The name that results carry: for a folder, the last part of its path."""
        path = path_of(self.model)
        return self.model if path is None else path.name

    @property
    def load_arguments(self) -> dict[str, Any]:
        """Arguments of `load_model`, all of them: a cached model is keyed by nothing less."""
        return {"name": self.model, **{name: getattr(self, name) for name in MODEL_FIELDS}}

    @property
    def options(self) -> dict[str, Any]:
        """Options of the method, as plain values."""
        return {**{name: getattr(self, name) for name in self.OPTIONS}, **json.loads(self.more)}

    def call_options(self) -> dict[str, Any]:
        """Return the options as the method takes them; override where they are not plain."""
        return self.options

    def problem(self) -> str:
        """Return why this cannot be run, in a sentence; empty when it can."""
        try:
            self.prompts()
            self.call_options()
        except ml.MechlabError as error:
            return str(error).splitlines()[0]
        return ""

    def digest(self) -> str | None:
        """Return the digest of the prompts; None when they need the model or cannot be used."""
        try:
            return str(ml.prompts.as_prompt_set(self.prompts(), kind="any").digest)
        except (ml.MechlabError, NotImplementedError):
            return None

    def answered_by(self, entry: Any) -> bool:
        """Return whether a stored result of the same prompts is the result of this request."""
        about = entry.provenance
        version = self.revision if self.checkpoint is None else str(self.checkpoint)
        told = about.get("model_revision", "none")
        same_version = told == version or (
            version is None and told in ("none", last_step(self.model))
        )
        same_model = (
            entry.model_name == self.model_name
            and about.get("model_dtype", self.dtype) == self.dtype
            and about.get("model_weights", self.weights) == self.weights
            and same_version
        )
        return entry.method == self.method and same_model and self.has_options(entry.options)

    def has_options(self, options: Mapping[str, Any]) -> bool:
        """Return whether bound options, as the store records them, are those of this request."""
        return all(
            plain(options.get(name, self.OTHER_DEFAULTS.get(name))) == plain(value)
            for name, value in {**self.OTHER_DEFAULTS, **self.options}.items()
        )

    def computed_by(self, other: Any) -> bool:
        """Return whether a run under way, as the store tells of it, computes this request."""
        return (
            (other.method, other.model_name) == (self.method, self.model_name)
            and other.prompts == self.digest()
            and self.has_options(other.options)
        )

    def compute(self, model: Any, progress: Any, *, recompute: bool) -> str:
        """Run the request, or take it from the store, and return the result's key."""
        store, function = ml.Store(), getattr(ml, self.method)
        prompts, options = self.prompts_for(model), self.call_options()
        store.run(function, model, prompts, progress=progress, recompute=recompute, **options)
        return str(store.key(function, model, prompts, **options))

    def differences(self, other: "Request") -> list[str]:
        """Say what differs from another request, one line each.

        The device does not count, nor the folder that a model lies in, nor the order of lists
        where it means nothing, nor white space around texts.
        """
        mine, theirs = self._essence(), other._essence()
        both = [*mine, *(name for name in theirs if name not in mine)]
        return [
            f"{name}: {theirs.get(name)!r} → {mine.get(name)!r}"
            for name in both
            if mine.get(name) != theirs.get(name)
        ]

    def _essence(self) -> dict[str, Any]:
        content = {"method": self.method, **asdict(self), "model": self.model_name}
        if str(self.checkpoint) == last_step(self.model):
            content["checkpoint"] = None
        content |= {name: sorted(content[name]) for name in self.UNORDERED}
        del content["device"]
        return {n: v.strip() if isinstance(v, str) else v for n, v in content.items()}

    def spec(self) -> dict[str, Any]:
        """Return what `mechlab run` takes: method, model, prompts and options as JSON values."""
        given = ml.prompts.as_prompt_set(self.prompts(), kind="any")
        rows = [{n: v for n, v in asdict(prompt).items() if v is not None} for prompt in given]
        model = {name: value for name, value in self.load_arguments.items() if value is not None}
        options = {name: plain(value) for name, value in self.options.items()}
        return {"method": self.method, "model": model, "prompts": rows, "options": options}

    def code(self, run: str = "") -> str:
        """Return a script that computes this very result, or takes it from the store."""
        lines = [
            *([f"# run {run}"] if run else []),
            *self.opening_code(),
            *self.call_code("result = "),
            *([self.PLOT] if self.PLOT else []),
        ]
        return "\n".join(lines) + "\n"

    def opening_code(self) -> list[str]:
        """Return the lines that import mechlab, load the model and make the prompts."""
        given = {n: v for n, v in self.load_arguments.items() if n != "name" and v is not None}
        arguments = "".join(f", {name}={value!r}" for name, value in given.items())
        return [
            "import mechlab as ml",
            "",
            f"model = ml.load_model({self.model!r}{arguments})",
            f"prompts = {self.prompts_code()}",
        ]

    def call_code(self, begin: str = "", end: str = "") -> list[str]:
        """Return the lines that run the method, or take its result, between two texts."""
        options = self.call_options().items()
        return [
            f"{begin}ml.Store().run(",
            f"    ml.{self.method},",
            "    model,",
            "    prompts,",
            *(f"    {name}={self.option_code(value)}," for name, value in options),
            f"){end}",
        ]

    def notebook(self, run: str = "") -> str:
        """Return the same as a Jupyter notebook."""
        return notebook_of(self.code(run), self.PAGE or "run")


def notebook_of(code: str, name: str) -> str:
    """Return a Jupyter notebook of one cell."""
    cell = {
        "cell_type": "code",
        "execution_count": None,
        "id": name,
        "metadata": {},
        "outputs": [],
        "source": code,
    }
    return json.dumps(
        {"cells": [cell], "metadata": {}, "nbformat": 4, "nbformat_minor": 5}, indent=1
    )


def plain(value: Any) -> Any:
    """Return a value as the store's records hold it: lists instead of tuples."""
    if isinstance(value, tuple | list):
        return [plain(part) for part in value]
    return value


def prompt_code(prompts: Any) -> str:
    """Return Python that makes a prompt or a list of prompts: only what differs from defaults."""
    if isinstance(prompts, list | tuple | ml.prompts.PromptSet):
        rows = "".join(textwrap.indent(prompt_code(prompt), "    ") + ",\n" for prompt in prompts)
        return f"[\n{rows}]"
    given = [
        (field.name, value)
        for field in fields(prompts)
        if (value := getattr(prompts, field.name)) != field.default or field.default is MISSING
    ]
    rows = "".join(f"    {name}={value!r},\n" for name, value in given)
    return f"ml.prompts.{type(prompts).__name__}(\n{rows})"
