"""What is slow to import, imported before anybody waits for it. Never torch.

Importing this module imports what the first page needs: whoever imports it next waits for that.
Two threads must not import parts of one package at once: they may find them half made.
"""

import threading
from importlib import import_module

import mechlab as ml

__all__ = ["results", "wait"]

FIRST_PAGE = (ml.prompts, ml.Store, ml.jobs, ml.organisms, ml.plots.show_text)

_importing = threading.Lock()
_wanted = ["xarray", "zarr", "plotly.graph_objects"]


def wait() -> None:
    """Wait while another session imports."""
    with _importing:
        return


def results() -> None:
    """Import what shows a stored result; called at the end of a script, when the page is drawn."""
    with _importing:
        while _wanted:
            import_module(_wanted.pop(0))
        for name in ml.plots.__all__:
            getattr(ml.plots, name)
