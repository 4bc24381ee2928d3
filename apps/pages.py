"""The table of pages: whoever adds a page adds one line."""

from typing import NamedTuple

__all__ = ["PAGES", "Page", "page_at", "page_of_method"]


class Page(NamedTuple):
    """One page of the dashboard."""

    section: str
    """`Explore`, `Change` or `Store`."""
    file: str
    """Below `apps/`."""
    title: str
    """As the navigation shows it."""
    address: str
    """Last part of its URL."""
    icon: str
    """A Material symbol."""
    methods: tuple[str, ...] = ()
    """Methods whose stored results it opens."""


PAGES = (
    Page("Explore", "views/tracing.py", "Causal trace", "trace", "grid_on", ("causal_trace",)),
    Page(
        "Explore",
        "views/heads.py",
        "Heads",
        "heads",
        "view_module",
        ("direct_logit_attribution", "ablate", "activation_patch", "attribution_patch"),
    ),
    Page("Explore", "views/paths.py", "Paths", "paths", "account_tree", ("path_patch",)),
    Page(
        "Explore",
        "views/retrieval.py",
        "Retrieval",
        "retrieval",
        "search",
        ("retrieval_score", "retrieval_curve"),
    ),
    Page(
        "Explore",
        "views/induction.py",
        "Induction & CMR",
        "induction",
        "repeat",
        ("induction_scores", "attention_by_lag", "copy_loss"),
    ),
    Page("Change", "views/edit.py", "Edit", "edit", "edit", ("localize_edit_verify",)),
    Page("Store", "views/stored.py", "Runs & compare", "runs", "inventory_2"),
    Page("Store", "views/setup.py", "Setup", "setup", "tune"),
)
"""All pages in the order of the navigation; the first one opens at the start."""


def page_at(address: str) -> Page | None:
    """Return the page at an address, or None when there is none (yet)."""
    return next((page for page in PAGES if page.address == address), None)


def page_of_method(method: str) -> Page | None:
    """Return the page that shows results of a method, or None."""
    return next((page for page in PAGES if method in page.methods), None)
