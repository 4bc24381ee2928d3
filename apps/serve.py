"""Streamlit's server, with what the first page needs imported while the browser loads its own part.

Started by `mechlab app` with the arguments of `streamlit`; `streamlit run apps/main.py` does the
same, but its first page waits for the imports.
"""

import sys
import threading
import time


def warm_up() -> None:
    """Wait until the server is there, then import what is slow to import and torch is not in."""
    from streamlit import runtime

    while not runtime.exists():
        time.sleep(0.02)
    import mechlab as ml

    for name in ("prompts", "plots", "Store", "jobs", "organisms"):
        getattr(ml, name)


def main() -> None:
    """Serve; returns when the server ends."""
    from streamlit.web.cli import main as streamlit

    threading.Thread(target=warm_up, name="warm-up", daemon=True).start()
    streamlit(sys.argv[1:], prog_name="streamlit")


if __name__ == "__main__":
    main()
