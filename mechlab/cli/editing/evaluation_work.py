"""The work of `mechlab edit-eval`: many edits evaluated, or taken from the store, and shown."""

from pathlib import Path

from mechlab.cli.editing.choice import chosen_cases
from mechlab.cli.editing.evaluation_request import EvaluationWork

__all__ = ["perform_evaluation"]


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
    from mechlab.cli.bar import progress_bar
    from mechlab.cli.editing import evaluation_report
    from mechlab.cli.editing.evaluation import Evaluation
    from mechlab.cli.work import check_figure_path
    from mechlab.methods import Edit
    from mechlab.models import load_model
    from mechlab.store import Store

    if per_case is not None:
        evaluation_report.check_table_path(per_case)
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
        evaluation_report.print_estimate(task, as_json=as_json)
        return
    with progress_bar("edit-eval") as progress:
        done = task.run(progress)
    if per_case is not None:
        evaluation_report.write_table(done, per_case)
    evaluation_report.show(task, done, html, per_case, as_json=as_json)
