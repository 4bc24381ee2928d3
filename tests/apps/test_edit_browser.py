"""The edit page in a browser: from a traced layer to an edit, its trace before and after, and back.

On the dashboard and the chromium that all browser tests share.
"""

from pathlib import Path
from typing import Any

from dashboard_browser import Watched
from safetensors import safe_open


def _edited(watched: Watched) -> str:
    """Edit the example in the layer that a trace named, with few tokens counted; the run's id."""
    from playwright.sync_api import expect

    page = watched.open(f"/edit?layer=2&trace={'0' * 12}")
    page.get_by_text("Can this fact be rewritten here").wait_for()
    page.get_by_text("does not prove that it is the best layer").wait_for()
    watched.settle()
    watched.button("example").click()
    expect(page.get_by_role("textbox", name="Subject")).to_have_value("Poland", timeout=20_000)
    tokens = page.get_by_role("spinbutton", name="Tokens counted")
    tokens.fill("1000")
    tokens.press("Enter")
    page.get_by_text("1,000 tokens · missing").wait_for()
    watched.settle()
    watched.button("run_now").click()
    done = page.locator("[data-testid=stMetric], [data-testid=stAlertContentError]").first
    done.wait_for(timeout=300_000)  # it loads torch, counts keys, edits, and traces twice
    assert page.locator("[data-testid=stAlertContentError]").all_inner_texts() == []
    _three_grids(page)
    page.get_by_text("1,000 tokens · stored").wait_for()
    return watched.selection()["run"]


def _three_grids(page: Any) -> None:
    for grid in range(3):  # before, after, after − before
        page.locator(f".st-key-compare-retrace-{grid} canvas").wait_for()


def test_a_fact_is_edited_traced_again_compared_saved_and_undone(
    watched: Watched, chromium: Any, server: str, tmp_path: Path
) -> None:
    run = _edited(watched)
    page = watched.page
    new = page.locator("[data-testid=stMetric]", has_text="p(London)")
    assert float(new.locator("[data-testid=stMetricValue]").inner_text()) > 0.5

    watched.settle()
    watched.button("force").click()
    page.get_by_text("EDITS ACTIVE: 1").wait_for()
    page.locator(".st-key-edits_compare label").click()
    watched.button("edits_try").click()
    page.get_by_text("nats per token, greedy").nth(1).wait_for()
    tried = page.locator(".st-key-edits_active")
    assert tried.get_by_text("Warsaw").count() == 1, "off"
    assert tried.get_by_text("London", exact=False).count() == 2, "its name, and on"
    with page.expect_download() as download:
        page.get_by_role("button", name="Save delta").click()
    download.value.save_as(tmp_path / "edit.safetensors")
    with safe_open(tmp_path / "edit.safetensors", framework="numpy") as saved:
        assert saved.get_tensor("left").shape[-1] == 1, "rank one"

    other = Watched(chromium, server)  # another session sees the result, and no edit in force
    other.open(f"/edit?run={run}")
    _three_grids(other.page)
    assert other.page.get_by_text("EDITS ACTIVE").count() == 0
    other.close()
    assert page.get_by_text("EDITS ACTIVE: 1").count() == 1
    page.get_by_role("button", name="Undo", exact=True).click()
    page.get_by_text("EDITS ACTIVE").wait_for(state="detached")
    _three_grids(page)
