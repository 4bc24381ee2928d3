"""The pages of retrieval and induction in a browser: small runs, clicks on heads, their curves.

On the dashboard and the chromium that all browser tests share.
"""

from typing import Any

import pytest
from dashboard_browser import Watched


def _fill(page: Any, role: str, name: str, value: str, was: str) -> None:
    """Type into a field once it holds what it starts with: before, it shows its minimum."""
    from playwright.sync_api import expect

    field = page.get_by_role(role, name=name)
    expect(field).to_have_value(was)
    field.fill(value)
    field.press("Enter")


def _chosen(watched: Watched) -> str:
    return "L{layer}H{head}".format(**watched.selection())


@pytest.mark.slow
def test_heads_of_a_needle_and_of_a_list_lead_to_what_they_read(watched: Watched) -> None:
    page = watched.open("/retrieval")
    page.get_by_text("Which heads fetch the answer from a long text?").wait_for()
    _fill(page, "textbox", "Lengths", "128", was="128, 256, 480")
    _fill(page, "spinbutton", "Depths", "2", was="5")
    page.get_by_text("2 answers written").wait_for()
    watched.settle()
    watched.button("run_now").click()
    page.locator(".st-key-grid-retrieval canvas").wait_for()
    watched.click_cell("grid.retrieval", 0.3, 0.4)
    page.locator(".st-key-chart-trace .plot-container").first.wait_for()
    page.locator(".st-key-needle_head-pattern canvas").first.wait_for()
    head = _chosen(watched)
    page.get_by_text(f"{head} on the haystack").wait_for()
    page.get_by_text("of the needle ·").wait_for()

    page.locator(".st-key-grid-retrieval canvas").focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Enter")
    page.get_by_text(f"{head} on the haystack").wait_for(state="detached")
    page.get_by_text(f"{_chosen(watched)} on the haystack").wait_for()
    watched.settle()
    page.locator(".st-key-chart").get_by_text("Length × depth").click()
    page.locator(".st-key-grid-found-0 canvas").first.wait_for()

    watched.settle()
    page.get_by_role("link", name="Induction & CMR").click()
    page.get_by_text("Which heads continue what was read before?").wait_for()
    _fill(page, "spinbutton", "Tokens of a copy", "12", was="50")
    _fill(page, "spinbutton", "Lists", "4", was="10")
    page.get_by_text("12 lists read").wait_for()
    watched.settle()
    watched.button("run_now").click()
    page.locator(".st-key-chart-loss .plot-container").first.wait_for()
    watched.click_cell("grid.induction", 0.7, 0.5)
    page.locator(".st-key-chart-lags .plot-container").first.wait_for()
    page.locator(".st-key-induction_head-pattern canvas").first.wait_for()
    page.get_by_text(f"{_chosen(watched)}: attention by lag").wait_for()
    watched.settle()
    page.locator(".st-key-score").get_by_text("CMR distance").click()
    page.get_by_text("0 = the shape of the context model").first.wait_for()
