"""The work of `mechlab edit-eval`: many edits evaluated, or taken from the store, and shown."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mechlab.cli.edit_choice import chosen_cases

if TYPE_CHECKING:
    from mechlab.cli.edit_plan import EditPlan
    from mechlab.prompts import PromptSet

__all__ = ["EvaluationWork", "perform_evaluation"]


@dataclass(frozen=True)
class EvaluationWork:
    """Which edits to evaluate on what, as plain data; nothing is loaded yet."""

    model: Mapping[str, Any]
    """Arguments of `load_model`."""
    cases: "PromptSet[Any] | None"
    """What is edited and looked at; `None` for the requests of `load`."""
    plan: "EditPlan"
    """How edits are made."""
    load: Path | None = None
    """A saved edit instead."""
    together: bool = False
    """Whether all edits are in force at once."""
    protocol: str | None = None
    """What counts as a success; `None`: by what the cases name."""
    generation_length: int = 0
    """Tokens of generated texts."""
    drift: int = 0
    """Held-out texts."""


def perform_evaluation(
    work: EvaluationWork,
    *,
    per_case: Path | None = None,
    estimate: bool = False,
    html: Path | None = None,
    as_json: bool = False,
    cache: str | None = None,
) -> None:
    """Evaluate edits, or take the evaluation from the store, and show it.

    Raises:
        MechlabError: when it cannot be carried out; whatever can be refused without running the
            model is refused before.
    """
    from mechlab.cli import edit_eval_report
    from mechlab.cli.bar import progress_bar
    from mechlab.cli.edit_evaluation import Evaluation
    from mechlab.cli.work import check_figure_path
    from mechlab.methods import Edit
    from mechlab.models import load_model
    from mechlab.store import Store

    if per_case is not None:
        edit_eval_report.check_table_path(per_case)
    if html is not None:
        check_figure_path(html)
    loaded = None if work.load is None else Edit.load(work.load)
    cases = work.cases if work.cases is not None or loaded is None else (
        chosen_cases(loaded.requests))  # fmt: skip
    assert cases is not None
    model = load_model(**work.model)
    plan = work.plan.completed(model)
    if loaded is None:
        plan.check(model, [case.request for case in cases])
    else:
        loaded._check(model, False)
    task = Evaluation(Store(cache), model, cases, plan, loaded, work)
    task.check()
    if estimate:
        edit_eval_report.print_estimate(task, as_json=as_json)
        return
    with progress_bar("edit-eval") as progress:
        done = task.run(progress)
    if per_case is not None:
        edit_eval_report.write_table(done, per_case)
    edit_eval_report.show(task, done, html, per_case, as_json=as_json)
