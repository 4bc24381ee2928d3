"""Which report shows the results of which method."""

from mechlab.cli import effects, memory_reports, report, retrieval_reports
from mechlab.cli.editing import stored_reports
from mechlab.cli.report_kind import Report

__all__ = ["report_of"]


def report_of(method: str, *, top: int = 10) -> Report:
    """Return how results of a method are shown.

    Args:
        method: name of the method.
        top: how many of the strongest cells are listed, where there is such a list.
    """
    if method == "causal_trace":
        return Report(report.draw, report.print_text, report.print_json)
    if method in ("retrieval_score", "retrieval_curve", "needle_recall", "generate"):
        return retrieval_reports.retrieval_report(method, top)
    if method in stored_reports.REPORTED:
        return stored_reports.edit_result_report(method, top)
    if method in memory_reports.REPORTED:
        return memory_reports.memory_report(method, top)
    return effects.effects(top)
