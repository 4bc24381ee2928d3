"""How a command ends: exit code 0 done, 1 a check failed, 2 bad input, 130 stopped by Ctrl-C."""

import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import typer
from typer.core import TyperGroup

from mechlab.errors import Cancelled, MechlabError

__all__ = ["BAD_INPUT", "CHECK_FAILED", "STOPPED", "Commands", "complain"]

CHECK_FAILED = 1
BAD_INPUT = 2
STOPPED = 130  # the shell's own number for a program ended by Ctrl-C (128 + signal 2)


class Commands(TyperGroup):
    """The root command; turns mechlab's errors and Ctrl-C into a message and an exit code."""

    def invoke(self, ctx: Any) -> Any:
        """Run the chosen command.

        Raises:
            typer.Exit: with code 2 after a `MechlabError`, 130 after Ctrl-C.
        """
        try:
            with _plain_warnings():
                return super().invoke(ctx)
        except Cancelled as stopped:
            complain(str(stopped) or "Stopped.")
            raise typer.Exit(STOPPED) from stopped
        except MechlabError as error:
            complain(f"{type(error).__name__}: {error}")
            raise typer.Exit(BAD_INPUT) from error
        except KeyboardInterrupt as stopped:
            complain("Stopped.")
            raise typer.Exit(STOPPED) from stopped


@contextmanager
def _plain_warnings() -> Iterator[None]:
    """Show warnings as one sentence on stderr, without the line of code that raised them."""
    with warnings.catch_warnings():
        warnings.simplefilter("default", UserWarning)
        warnings.showwarning = lambda message, *_, **__: complain(f"Note: {message}")
        yield


def complain(message: str) -> None:
    """Write one message to stderr, where it never mixes with results."""
    print(message, file=sys.stderr)
