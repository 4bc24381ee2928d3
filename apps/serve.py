"""Streamlit's server, with what the first page needs imported while the browser loads its own part.

Started by `mechlab app` with the arguments of `streamlit`; `streamlit run apps/main.py` does the
same, but its first page waits for the imports.
"""

import sys
import threading
import time
from collections.abc import Callable
from importlib import import_module


def warm_up() -> None:
    """Wait until the server is there, then import what the first page needs."""
    from streamlit import runtime

    while not runtime.exists():
        time.sleep(0.02)
    import_module("warm")


def main() -> None:
    """Serve; returns when the server ends."""
    streamlit = streamlit_command()
    threading.Thread(target=warm_up, name="warm-up", daemon=True).start()
    streamlit(sys.argv[1:], prog_name="streamlit")


def streamlit_command() -> Callable[..., None]:
    """Import Streamlit's command without the theme that it makes for plotly.

    Making it takes a third of the import, and would change plotly's own default, which figures to
    take away would follow; all pages draw with `theme=None`.
    """
    sys.modules["plotly"] = None  # type: ignore[assignment]
    try:
        from streamlit.web.cli import main as command
    finally:
        del sys.modules["plotly"]
    return command


if __name__ == "__main__":
    main()
