"""What is slow to import, imported in the background before anybody waits for it. Never torch.

The first page needs little and waits for that; all that shows results comes once it is drawn.
"""

import threading
from functools import cache
from importlib import import_module

import mechlab as ml

__all__ = ["first_page", "results"]


def first_page() -> None:
    """Import what the first page needs."""
    for name in ("prompts", "Store", "jobs", "organisms"):
        getattr(ml, name)
    _ = ml.plots.show_text


@cache
def results() -> None:
    """Begin to import what shows a stored result; once in this process."""
    threading.Thread(target=_results, name="warm-up", daemon=True).start()


def _results() -> None:
    for name in ("xarray", "zarr", "plotly.graph_objects"):
        import_module(name)
    for name in ml.plots.__all__:
        getattr(ml.plots, name)
