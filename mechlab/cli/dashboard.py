"""`mechlab app`: the dashboard in a browser, served on this machine only."""

import os
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import typer

from mechlab.errors import OptionError

__all__ = ["dashboard"]

ADDRESS = "127.0.0.1"  # Streamlit's own default is every network interface


def dashboard(
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port on 127.0.0.1.")] = 8501,
    browser: Annotated[bool, typer.Option(help="Open a browser window.")] = True,
    cache: Annotated[
        str | None, typer.Option(metavar="FOLDER", help="Where results are kept.")
    ] = None,
) -> None:
    """Open the dashboard: trace a fact, look at stored results.

    It listens on 127.0.0.1 only. Needs the extra `app` (`pip install 'mechlab[app]'`).
    """
    if find_spec("streamlit") is None:
        raise OptionError(
            "the dashboard needs Streamlit, which is not installed in this environment.\n"
            "  Install it with: pip install 'mechlab[app]'"
        )
    command = dashboard_command(main_script(), port=port, browser=browser)
    become(command, {**os.environ, **({"MECHLAB_CACHE": cache} if cache else {})})


def become(command: list[str], environment: dict[str, str]) -> None:
    """Go on as another program, so that Ctrl-C and signals reach the server itself."""
    os.execve(command[0], command, environment)


def dashboard_command(script: Path, *, port: int, browser: bool) -> list[str]:
    """Return the command that serves `script`; flags win over any configuration file."""
    server = main_script().with_name("serve.py")
    return [
        *(sys.executable, str(server), "run", str(script)),
        f"--server.address={ADDRESS}",
        f"--server.port={port}",
        f"--server.headless={str(not browser).lower()}",
        "--server.showEmailPrompt=false",
        "--browser.gatherUsageStats=false",
    ]


def main_script() -> Path:
    """Return the dashboard's main script: of the checkout, else as packed into the wheel.

    Raises:
        OptionError: when neither is there.
    """
    package = Path(__file__).parents[1]
    for script in (package.parent / "apps" / "main.py", package / "_apps" / "main.py"):
        if script.is_file():
            return script
    raise OptionError(
        f"the dashboard's files are missing: no apps/main.py beside {package} nor inside it.\n"
        "  Install mechlab again; wheels and checkouts both carry the folder."
    )
