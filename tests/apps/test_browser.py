"""What only a browser can show, on one server and one chromium: clicks, links, reloads, cancel.

Every test ends by asserting a silent console, no foreign host and no exception on the page.
"""

import socket
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from dashboard_browser import Watched


@pytest.fixture(scope="module")
def traced(chromium: Any, server: str) -> str:
    """The path of the example's trace, run from an empty store as on the first start."""
    first = Watched(chromium, server)
    page = first.open()
    page.get_by_text("Where does the model keep this fact?").wait_for()
    first.button("run_now").click()
    page.locator(".st-key-grid-attn_out canvas, [data-testid=stAlertContentError]").first.wait_for()
    assert page.locator("[data-testid=stAlertContentError]").all_inner_texts() == []
    page.get_by_text("Click a cell to see what restoring").wait_for()
    run = first.selection()["run"]
    assert len(run) == 12
    first.close()
    return f"/?run={run}"


def test_a_cell_leads_to_its_lens_and_a_link_leads_back_to_it(
    watched: Watched, traced: str, chromium: Any, server: str, tmp_path: Path
) -> None:
    page = watched.open(traced)
    page.get_by_text("Click a cell to see what restoring").wait_for()
    watched.click_cell("grid.mlp_out", 0.6, 0.3)
    page.get_by_text("Probability of").wait_for()
    page.locator(".st-key-bars .plot-container").wait_for()
    chosen = watched.selection()
    assert chosen["site"] == "mlp_out"
    page.get_by_text(f"Layer {chosen['layer']} · {chosen['pos']}·").wait_for()
    table = page.locator(".st-key-lens canvas").first  # of next tokens
    table.wait_for()
    table.scroll_into_view_if_needed()
    for row in range(5):  # only words can be answers
        box = table.bounding_box()
        page.mouse.click(box["x"] + box["width"] - 70, box["y"] + 35 * (row + 1.5))
        page.wait_for_timeout(500)
        if "target" in watched.selection():
            break
    target = watched.selection()["target"]
    page.get_by_role("button", name=f"Trace {target} instead").wait_for()
    assert page.get_by_role("textbox", name="Answer").input_value() != target  # only looked at

    watched.click_cell("grid.mlp_out", 0.6, 0.3)  # the same cell again does not let it go
    page.locator(".st-key-grid-mlp_out canvas").focus()
    page.keyboard.press("ArrowLeft")
    left = int(chosen["pos"]) - 1
    live = page.locator(".st-key-grid-mlp_out .live")
    assert f"layer {chosen['layer']}, {left}·" in live.text_content()
    page.keyboard.press("Enter")
    page.get_by_text(f"Layer {chosen['layer']} · {left}·").wait_for()
    assert watched.selection()["pos"] == str(left)

    other = Watched(chromium, server)  # a fresh browser, the same address
    other.page.goto(page.url)
    other.page.get_by_text(f"Layer {chosen['layer']} · {left}·").wait_for()
    assert other.selection() == watched.selection()
    other.close()

    watched.button("to_heads").click()
    page.get_by_role("button", name=f"Layer {chosen['layer']} alone").or_(
        page.get_by_role("textbox", name="Subject")
    ).first.wait_for()
    assert watched.selection()["layer"] == chosen["layer"]
    assert page.get_by_role("textbox", name="Prompt").input_value() == "The capital of France is"
    page.go_back()
    watched.button("to_edit").click()
    page.get_by_text("does not prove that it is the best layer").wait_for()
    layer = page.get_by_role("spinbutton", name="Layer")
    assert layer.input_value() == chosen["layer"]


def test_the_exported_page_opens_offline(
    watched: Watched, traced: str, chromium: Any, tmp_path: Path
) -> None:
    page = watched.open(traced)
    page.locator(".st-key-export button").first.click()
    with page.expect_download() as download:
        page.get_by_role("button", name="Figure").click()
    download.value.save_as(tmp_path / "figure.html")
    offline = Watched(chromium)
    offline.context.set_offline(True)
    offline.page.goto((tmp_path / "figure.html").as_uri())
    offline.page.locator(".heatmaplayer image").first.wait_for(state="attached")
    offline.close()


def _run_with_samples(watched: Watched, was: int, count: int, click_on: str = "") -> None:
    """Change the number of noise samples and press Run; then click into a grid at once."""
    from playwright.sync_api import expect

    page = watched.page
    page.get_by_role("button", name="Options").click()
    samples = page.get_by_role("spinbutton", name="Noise samples")
    expect(samples).to_have_value(str(was))  # a field shows its minimum until it is told its value
    samples.fill(str(count))
    samples.press("Enter")
    page.get_by_text(f"samples: {was} → {count}").wait_for()
    page.keyboard.press("Escape")
    watched.settle()
    if click_on:
        _click_just_after(watched.button("run_now"), page.locator(click_on))
    else:
        watched.button("run_now").click()


def _click_just_after(button: Any, canvas: Any) -> None:
    """Press a button, and click into the middle of a grid while the page's script runs."""
    canvas.evaluate(
        """(canvas, button) => {
          button.click();
          const box = canvas.getBoundingClientRect();
          const [clientX, clientY] = [box.left + box.width / 2, box.top + box.height / 2];
          setTimeout(() => canvas.dispatchEvent(new MouseEvent("click", {clientX, clientY})), 40);
        }""",
        button.element_handle(),
    )


def test_a_run_survives_a_reload_is_seen_from_another_tab_and_can_be_cancelled(
    watched: Watched, traced: str, chromium: Any, server: str
) -> None:
    page = watched.open(traced)
    page.get_by_text("Click a cell to see what restoring").wait_for()
    _run_with_samples(watched, 10, 2000)
    page.locator(".st-key-cancel button").wait_for()
    page.get_by_text("What is there so far").wait_for()

    second = Watched(chromium, server)  # another tab sees the job and may stop it
    second.open()
    second.page.get_by_role("button", name="1 running").click()
    opened = second.page.locator("[data-testid=stPopoverBody]")
    opened.get_by_text("per second").wait_for()
    page.reload()
    page.get_by_role("button", name="1 running").wait_for()
    opened.get_by_role("button", name="Cancel").click()
    opened.get_by_text("cancelled").first.wait_for()
    page.get_by_role("button", name="Jobs").wait_for()  # the first tab hears of it
    second.close()


def test_two_runs_are_ticked_and_laid_side_by_side(watched: Watched, traced: str) -> None:
    page = watched.open(traced)
    page.get_by_text("Click a cell to see what restoring").wait_for()
    _run_with_samples(watched, 10, 2, click_on=".st-key-grid-mlp_out canvas")
    page.get_by_text("n = 2 noise samples").first.wait_for()
    page.wait_for_function("location.search.includes('layer=')")  # the click was not lost
    assert watched.selection()["site"] == "mlp_out"
    watched.open("/runs")  # a deep link, as people share it
    table = page.locator("[data-testid=stDataFrame] canvas").first
    table.wait_for()
    table.scroll_into_view_if_needed()
    watched.settle()
    box = table.bounding_box()
    for row in (1, 2):
        page.mouse.click(box["x"] + 16, box["y"] + 35 * row + 17)
        page.wait_for_function(f"location.search.split('%2C').length >= {row}")
    assert len(watched.selection()["ticked"].split(",")) == 2
    page.get_by_text("What differs").wait_for()


def test_it_listens_on_this_machine_only(server: str) -> None:
    port = urlsplit(server).port
    assert port is not None
    own = {info[4][0] for info in socket.getaddrinfo(socket.gethostname(), port)}
    for outside in own - {"127.0.0.1", "127.0.1.1", "::1"}:
        with socket.socket(socket.AF_INET6 if ":" in str(outside) else socket.AF_INET) as probe:
            probe.settimeout(2)
            assert probe.connect_ex((str(outside), port)) != 0


def test_a_head_leads_to_its_pattern_and_on_to_the_paths_into_it(watched: Watched) -> None:
    page = watched.open()
    page.get_by_role("link", name="Heads").click()
    page.get_by_text("Which heads write the answer?").wait_for()
    watched.button("run_now").click()
    page.get_by_text("Click a head to see where it looks").wait_for()
    page.locator(".st-key-top button", has_text="L").first.click()  # the strongest head
    page.locator(".st-key-head-pattern canvas").wait_for()
    page.locator(".st-key-head-sources .plot-container").wait_for()
    chosen = watched.selection()
    name = f"L{chosen['layer']}H{chosen['head']}"
    page.get_by_text(f"Head {name}").wait_for()

    watched.settle()
    page.get_by_role("button", name="Paths into V").click()
    page.get_by_text("Through which paths does the answer come about?").wait_for()
    watched.button("run_now").click()
    page.get_by_text(f"Senders to {name}.v").wait_for()
    watched.click_cell("grid.senders", 0.5, 0.7)
    page.locator(".st-key-edge-sender canvas").wait_for()
    page.locator(".st-key-edge-receiver canvas").wait_for()
    edge = watched.selection()["edge"]
    assert edge.endswith(f"→ {name}.v")
    sender = edge.partition(" ")[0]
    watched.settle()
    page.get_by_role("button", name="values").click()
    page.get_by_text("The inputs changed").wait_for()  # nothing runs by itself
    assert watched.selection()["trail"] == f"{name}.v~{sender}.v"
