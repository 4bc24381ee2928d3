"""The progress bar on stderr, with the time left."""

from collections.abc import Iterator
from contextlib import contextmanager

from mechlab.errors import Cancelled
from mechlab.progress import Progress, ProgressCallback

__all__ = ["progress_bar"]


@contextmanager
def progress_bar(label: str) -> Iterator[ProgressCallback]:
    """Show work under way, and on Ctrl-C say what was kept.

    Args:
        label: what is being done, in a word or two.

    Yields:
        A callback to hand to `Store.run`.

    Raises:
        Cancelled: in place of `KeyboardInterrupt`, with what had been finished by then.
    """
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )
    from rich.progress import Progress as Bar

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[unit]}"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    last = Progress(done=0, total=0)
    console = Console(stderr=True)
    hidden = not console.is_terminal  # in a log it would be nothing but an empty line
    with Bar(*columns, console=console, transient=True, disable=hidden) as bar:
        task = bar.add_task(label, total=None, unit="")

        def show(report: Progress) -> None:
            nonlocal last
            last = report
            bar.update(task, completed=report.done, total=report.total, unit=report.unit)

        try:
            yield show
        except KeyboardInterrupt as stopped:
            raise Cancelled(_kept(last)) from stopped


def _kept(last: Progress) -> str:
    so_far = f" after {last.done} of {last.total} {last.unit}" if last.done else ""
    return f"Stopped{so_far}. What was finished is kept; the same command goes on from there."
