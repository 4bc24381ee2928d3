"""`mechlab run SPEC.json`: a request written down in a file."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mechlab.cli.editing.spec import EDITING, NEEDS_NO_PROMPTS, ON_CASES, cases_of, perform_spec
from mechlab.cli.options import nodes
from mechlab.cli.prompt_choice import built_in, read_either
from mechlab.cli.work import Request, perform
from mechlab.errors import OptionError

if TYPE_CHECKING:
    from mechlab.models import Model
    from mechlab.prompts import PromptSet

__all__ = ["read_request", "run_spec"]

_KEYS = {"method", "model", "prompts", "options"}
_OURS = {"function", "journal", "model", "progress", "prompts", "self"}
"""Names that the command passes on itself; as options they would collide."""
_MODEL_KEYS = {"name", "device", "dtype", "weights", "revision", "checkpoint"}


def run_spec(
    spec: Annotated[
        Path, typer.Argument(help="JSON with method, model, prompts and options.", metavar="SPEC")
    ],
    html: Annotated[
        Path | None, typer.Option(help="Where to write the figure; in the store if left out.")
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object and nothing else.")
    ] = False,
    estimate: Annotated[
        bool, typer.Option("--estimate", help="Say what it would cost, and stop.")
    ] = False,
    cache: Annotated[
        str | None, typer.Option(metavar="FOLDER", help="Where results are kept.")
    ] = None,
) -> None:
    """Carry out a request that is written down as JSON; for long runs and for repeating them.

    Example: {"method": "causal_trace", "model": "atlas", "prompts": [{"prompt": "The capital of
    France is", "subject": "France", "target": "Paris"}], "options": {"samples": 10}}

    Prompts are facts (prompt, subject, target), pairs (clean, corrupted, answer, wrong_answer), the
    path of a file of either, or a built-in set such as {"set": "conflicts", "count": 16} or
    {"set": "repeated_tokens", "length": 50}; methods on texts take a list of them. Edits
    (rank_one_edit, memit, fine_tune_edit, evaluate_each_edit, edit_sweep, …) take objects with
    prompt, subject, target, a file of them, or {"set": "edit_cases", "count": 10}.
    """
    about = _read_spec(spec)
    if about["method"] in EDITING:
        perform_spec(
            spec, str(about["method"]), _model(spec, about["model"]), about.get("prompts"),
            about.get("options", {}), html=html, as_json=as_json, estimate=estimate, cache=cache,
        )  # fmt: skip
        return
    perform(read_request(spec), cache=cache, html=html, as_json=as_json, estimate=estimate)


def read_request(path: Path) -> Request:
    """Read a request from a JSON file.

    Raises:
        OptionError: when the file cannot be read, or has unknown or missing keys.
        PromptError: when its prompts cannot be used.
    """
    spec = _read_spec(path)
    options = spec.get("options", {})
    method = str(spec["method"])
    prompts = (cases_of if method in ON_CASES else _prompts)(path, spec["prompts"])
    if method == "path_patch":
        options = _with_nodes(options)
    if method == "memory_ablation" and "texts" in options:
        options = {**options, "texts": _texts(path, options["texts"])}
    return Request(
        method=method, model=_model(path, spec["model"]), prompts=prompts, options=options
    )


def _texts(path: Path, given: object) -> "PromptSet[Any]":
    from mechlab.prompts import texts

    if not isinstance(given, list) or not all(isinstance(one, str) for one in given):
        raise OptionError(
            f"{path} has the texts {given!r:.60}. Allowed: a list of texts. Correct it."
        )
    return texts(given)


def _read_spec(path: Path) -> dict[str, Any]:
    """Return a spec whose keys and options are checked by name."""
    spec = _read_object(path)
    needed = {"method", "model", "prompts"}
    if spec.get("method") in NEEDS_NO_PROMPTS:
        needed.remove("prompts")
    unknown, missing = spec.keys() - _KEYS, needed - spec.keys()
    if unknown or missing:
        raise OptionError(
            f"{path} has {_keys('unknown keys', unknown)}{_keys('no', missing)}. Allowed keys: "
            f"{', '.join(sorted(_KEYS))}; options may be left out. See `mechlab run --help`."
        )
    options = spec.get("options", {})
    if not isinstance(options, dict):
        raise OptionError(
            f"{path} has the options {options!r}. Allowed: an object with the method's options by "
            "name. Correct it, or leave them out."
        )
    if ours := options.keys() & _OURS:
        raise OptionError(
            f"{path} has the options {', '.join(sorted(ours))}, which the command sets itself. "
            "Allowed: the method's own options. Remove these."
        )
    return spec


def _with_nodes(options: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the options with senders and receivers read, such as `L5H3.q`."""
    ends = [name for name in ("senders", "receivers") if name in options]
    return {**options, **{name: nodes(options[name], name) for name in ends}}


def _read_object(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise OptionError(
            f"{path} cannot be read as a request: {error}. Allowed: one JSON object. "
            "See `mechlab run --help` for an example."
        ) from error
    if not isinstance(value, dict):
        raise OptionError(
            f"{path} holds a JSON {type(value).__name__}. Allowed: one JSON object. "
            "See `mechlab run --help` for an example."
        )
    return value


def _model(path: Path, model: object) -> Mapping[str, Any]:
    if isinstance(model, str):
        return {"name": model}
    if (
        isinstance(model, dict)
        and isinstance(model.get("name"), str)
        and model.keys() <= _MODEL_KEYS
    ):
        return model
    raise OptionError(
        f"{path} has the model {model!r}. Allowed: a name, or an object with name and any of "
        f"{', '.join(sorted(_MODEL_KEYS - {'name'}))}. Correct it."
    )


def _prompts(path: Path, rows: object) -> "PromptSet[Any] | Callable[[Model], PromptSet[Any]]":
    """Return prompts: a list of them, a file whose path is relative to `path`, a built-in set."""
    from mechlab import prompts

    if isinstance(rows, str):
        return read_either(path.parent / rows, facts_first=True)
    if isinstance(rows, dict) and isinstance(rows.get("set"), str):
        return built_in(rows["set"], {k: v for k, v in rows.items() if k != "set"})
    if isinstance(rows, list) and rows and all(isinstance(row, str) for row in rows):
        return _texts(path, rows)
    try:
        pairs = all("clean" in row for row in rows)  # type: ignore[attr-defined]
        kind = prompts.PromptPair if pairs else prompts.Fact
        found = [kind(**row) for row in rows]  # type: ignore[attr-defined]
    except TypeError as error:
        raise OptionError(
            f"{path} has prompts that are not facts: {error}. Allowed: a list of objects with "
            "prompt, subject, target, or with clean, corrupted, answer, wrong_answer; the path of "
            'a file of either; or {"set": name} with its settings. Correct them.'
        ) from error
    return prompts.as_prompt_set(found, kind="any")


def _keys(label: str, names: set[str]) -> str:
    return f"{label} {', '.join(sorted(names))} " if names else ""
