"""Requests about edits that are written down as JSON; see `mechlab run`.

    {"method": "rank_one_edit", "model": "atlas",
     "prompts": [{"prompt": "The capital of {} is", "subject": "Poland", "target": "London"}],
     "options": {"layer": 0, "key_statistics": {"tokens": 100000}, "save": "poland.safetensors"}}

Also `memit` and `fine_tune_edit`; `evaluate_each_edit`, whose option `edit` holds the method and
its options; and `key_statistics`, which needs no prompts.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mechlab.cli.editing.choice import chosen_cases, drawn_cases, read_cases, typed_request
from mechlab.cli.editing.plan import METHODS, STATISTICS, EditPlan, check_method
from mechlab.errors import OptionError

if TYPE_CHECKING:
    from mechlab.prompts import PromptSet

__all__ = ["EDITING", "NEEDS_NO_PROMPTS", "ON_CASES", "cases_of", "perform_spec"]

NEEDS_NO_PROMPTS = ("key_statistics",)
EDITING = (*METHODS.values(), "evaluate_each_edit", *NEEDS_NO_PROMPTS)
"""Methods that `perform_spec` carries out."""
ON_CASES = ("evaluate_edit", "edit_sweep", "localize_edit_verify", "sequential_edits",
            "batch_edits")  # fmt: skip
"""Other methods whose prompts are edit cases."""

_EDIT = ("drift", "generate", "save", "export", "top")
_EVALUATION = ("edit", "together", "protocol", "generation_length", "drift", "per_case")
_ROW = {"prompt", "template", "subject", "target", "target_true"}


def cases_of(path: Path, rows: object) -> "PromptSet[Any]":
    """Return the edit cases that a spec names: a list, a file beside it, or drawn ones.

    Raises:
        OptionError: when they cannot be read as requests.
        PromptError: when a file or a request cannot be used.
    """
    if isinstance(rows, str):
        return read_cases(path.parent / rows)
    if isinstance(rows, dict) and rows.get("set") == "edit_cases":
        known = {"set", "count", "seed", "relations", "neighbours"}
        if wrong := sorted(rows.keys() - known):
            raise OptionError(
                f"{path}: the set 'edit_cases' has no {', '.join(wrong)}. Allowed: "
                f"{', '.join(sorted(known - {'set'}))}. Leave these out."
            )
        chosen = {name: value for name, value in rows.items() if name != "set"}
        return drawn_cases(**{"count": 10, "seed": 0, "relations": None, **chosen})
    if not isinstance(rows, list) or not rows or not all(_is_request(row) for row in rows):
        raise OptionError(
            f"{path} has prompts that are not edits. Allowed: a list of objects with prompt, "
            "subject, target and perhaps target_true; the path of a file of them; or "
            '{"set": "edit_cases", "count": 10}. Correct them.'
        )
    return chosen_cases(
        [
            typed_request(
                row.get("prompt", row.get("template")),
                row["subject"],
                row["target"],
                row.get("target_true"),
            )
            for row in rows
        ]
    )


def _is_request(row: object) -> bool:
    return (
        isinstance(row, dict)
        and all(isinstance(value, str) for value in row.values())
        and row.keys() <= _ROW
        and {"subject", "target"} <= row.keys()
        and bool({"prompt", "template"} & row.keys())
    )


def perform_spec(
    path: Path,
    method: str,
    model: Mapping[str, Any],
    rows: object,
    options: Mapping[str, Any],
    *,
    html: Path | None,
    as_json: bool,
    estimate: bool,
    cache: str | None,
) -> None:
    """Carry out a request about edits.

    Args:
        path: the spec; files it names lie beside it.
        method: one of `EDITING`.
        model: arguments of `load_model`.
        rows: its prompts.
        options: its options.
        html: where the figure is written.
        as_json: print one JSON object.
        estimate: say what it would cost, and stop.
        cache: where results are kept.

    Raises:
        MechlabError: when the request cannot be carried out.
    """
    from mechlab.cli.editing.evaluation_request import EvaluationWork
    from mechlab.cli.editing.evaluation_work import perform_evaluation
    from mechlab.cli.editing.work import EditWork, perform_edit
    from mechlab.cli.stats import perform_stats

    shown: dict[str, Any] = {"as_json": as_json, "estimate": estimate, "cache": cache}
    if method in NEEDS_NO_PROMPTS:
        perform_stats(model, _statistics(path, options, {"layer", "site"}), **shown)
        return
    cases = cases_of(path, rows)
    if method == "evaluate_each_edit":
        rest = {name: options[name] for name in _EVALUATION if name in options}
        _check_names(path, options, _EVALUATION)
        plan = _plan(path, rest.pop("edit", {}))
        table = _beside(path, rest.pop("per_case", None))
        work = EvaluationWork(model=model, cases=cases, plan=plan, **rest)
        perform_evaluation(work, per_case=table, html=html, **shown)
        return
    looks = {name: options[name] for name in _EDIT if name in options}
    plan = _plan(path, {"method": method, **{n: v for n, v in options.items() if n not in looks}})
    top = int(looks.pop("top", 10))
    for name in ("save", "export"):
        looks[name] = _beside(path, looks.get(name))
    perform_edit(
        EditWork(model=model, cases=cases, plan=plan, **looks), top=top, html=html, **shown
    )


def _plan(path: Path, edit: object) -> EditPlan:
    """Return the plan of a method's name, its options, and those of its key statistics."""
    words = {name: word for word, name in METHODS.items()}
    if not isinstance(edit, dict) or edit.get("method", "rank_one_edit") not in words:
        raise OptionError(
            f"{path} has the edit {edit!r:.80}. Allowed: an object with method "
            f"({', '.join(words)}) and its options. Correct it."
        )
    options = {n: v for n, v in edit.items() if n not in ("method", "key_statistics")}
    word = words[str(edit.get("method", "rank_one_edit"))]
    check_method(word, options)
    return EditPlan(word, options, _statistics(path, edit.get("key_statistics", {}), set()))


def _statistics(path: Path, given: object, more: set[str]) -> dict[str, Any]:
    allowed = {*STATISTICS, "seed", "dtype", "max_length", *more}
    if not isinstance(given, Mapping):
        raise OptionError(
            f"{path} has the key_statistics {given!r:.60}. Allowed: an object with "
            f"{', '.join(sorted(allowed))}. Correct it, or leave it out."
        )
    _check_names(path, given, sorted(allowed))
    found = dict(given)
    corpus = found.get("corpus", "atlas")
    if isinstance(corpus, str) and (path.parent / corpus).is_file():
        found["corpus"] = str(path.parent / corpus)
    return found


def _check_names(path: Path, given: Mapping[str, Any], allowed: Any) -> None:
    if wrong := [name for name in given if name not in allowed]:
        raise OptionError(
            f"{path} has the options {', '.join(wrong)}, which there are not. Allowed: "
            f"{', '.join(allowed)}. Correct or remove these."
        )


def _beside(path: Path, name: object) -> Path | None:
    return None if name is None else path.parent / str(name)
