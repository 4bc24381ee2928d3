"""One flow through the page in a real browser: start, run, click a cell, follow its link.

What only a browser can show is tested here: that a click reaches Python, that the address names the
cell, that nothing is asked of any other host, and that the console stays silent.
"""

import os
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from mechlab.cli.dashboard import dashboard_command
from mechlab.organisms import names

APPS = Path(__file__).parents[2] / "apps"
CHROMIUM = Path("/usr/bin/chromium")
ARGUMENTS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
]  # fmt: skip
SLOW = 120_000  # milliseconds; loading torch on a busy machine takes most of it

pytestmark = pytest.mark.skipif(not CHROMIUM.exists(), reason=f"there is no browser at {CHROMIUM}")

# Starts the page on a folder instead of the shipped model; everything else is the page's own.
ON_A_FOLDER = """
import runpy, sys
sys.path.insert(0, {apps!r})
import streamlit as st
from components.picker import adopt
from trace_request import TraceRequest
if "in.model" not in st.session_state:
    adopt(TraceRequest(model={model!r}, prompt="The capital of France is", subject="France",
                  samples=3, known_only=False))
runpy.run_path({main!r})
"""


@pytest.fixture(params=["atlas", "toy"])
def script(
    request: pytest.FixtureRequest, tmp_path: Path, model_folder: Callable[..., Path]
) -> Path:
    """The page as shipped, on `atlas`; and on the folder of a random model, whatever is shipped."""
    if request.param == "atlas":
        if "atlas" not in names():
            pytest.skip("the shipped model atlas is not in this checkout")
        return APPS / "main.py"
    text = ON_A_FOLDER.format(
        apps=str(APPS), model=str(model_folder("llama", "bpe")), main=str(APPS / "main.py")
    )
    (tmp_path / "views").symlink_to(APPS / "views")
    (tmp_path / ".streamlit").symlink_to(APPS / ".streamlit")
    (tmp_path / "main.py").write_text(text)
    return tmp_path / "main.py"


@pytest.fixture
def address(script: Path, own_store: Path, tmp_path: Path) -> Iterator[str]:
    """Serve the page as `mechlab app` does, on a free port."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = {**os.environ, "MECHLAB_CACHE": str(own_store), "PYTHONPATH": str(APPS.parent)}
    with (tmp_path / "server.log").open("w") as log:
        server = subprocess.Popen(
            dashboard_command(script, port=port, browser=False),
            env=environment, stdout=log, stderr=log, cwd=tmp_path,
        )  # fmt: skip
        try:
            wait_for(f"http://127.0.0.1:{port}/_stcore/health", server)
            yield f"http://127.0.0.1:{port}"
        finally:
            server.terminate()
            server.wait(20)


def wait_for(url: str, server: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        assert server.poll() is None, "the server ended by itself"
        try:
            urllib.request.urlopen(url, timeout=2).close()
        except (urllib.error.URLError, OSError):
            time.sleep(0.2)
        else:
            return
    raise AssertionError(f"nothing answers at {url}")


@pytest.fixture
def browser() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as play:
        chromium = play.chromium.launch(executable_path=str(CHROMIUM), args=ARGUMENTS)
        yield chromium
        chromium.close()


class Watched:
    """A page that remembers what went wrong on it and whom it spoke to."""

    def __init__(self, browser: Any) -> None:
        self.context = browser.new_context(viewport={"width": 1280, "height": 900})
        self.page = self.context.new_page()
        self.page.set_default_timeout(SLOW)
        self.complaints: list[str] = []
        self.hosts: set[str] = set()
        self.page.on("console", self._heard)
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("request", lambda request: self.hosts.add(urlsplit(request.url).netloc))

    def _heard(self, message: Any) -> None:
        if message.type == "error":
            self.complaints.append(message.text)

    def selection(self) -> dict[str, str]:
        return {name: values[0] for name, values in parse_qs(urlsplit(self.page.url).query).items()}

    def assert_clean(self, address: str) -> None:
        assert self.complaints == []
        assert {host for host in self.hosts if host} == {urlsplit(address).netloc}
        assert self.page.locator("[data-testid=stException]").count() == 0


def click_cell(page: Any, site: str, share_x: float, share_y: float) -> None:
    canvas = page.locator(f".st-key-grid-{site} canvas")
    box = canvas.bounding_box()
    page.mouse.click(box["x"] + share_x * box["width"], box["y"] + share_y * box["height"])


def test_from_the_first_start_to_a_linked_cell(address: str, browser: Any, tmp_path: Path) -> None:
    first = Watched(browser)
    page = first.page
    page.goto(address)
    page.get_by_text("Where does the model keep this fact?").wait_for()

    page.locator(".st-key-run_now button").click()
    grid, error = ".st-key-grid-attn_out canvas", "[data-testid=stAlertContentError]"
    page.locator(f"{grid}, {error}").first.wait_for()
    assert page.locator(error).all_inner_texts() == []
    assert len(first.selection()["run"]) == 12
    page.get_by_text("Click a cell to see").wait_for()

    click_cell(page, "mlp_out", 0.6, 0.3)
    page.get_by_text("Probability of").wait_for()
    chosen = first.selection()
    assert chosen["site"] == "mlp_out"
    assert {"layer", "pos"} <= chosen.keys()
    page.get_by_text(f"Layer {chosen['layer']} · {chosen['pos']}·").wait_for()
    page.locator(".st-key-bars .plot-container").wait_for()

    click_cell(page, "mlp_out", 0.6, 0.3)  # the same cell again does not let it go
    page.locator(".st-key-grid-mlp_out canvas").focus()
    page.keyboard.press("ArrowLeft")
    live = page.locator(".st-key-grid-mlp_out .live")
    left = int(chosen["pos"]) - 1
    assert f"layer {chosen['layer']}, {left}·" in live.text_content()
    page.keyboard.press("Enter")
    page.get_by_text(f"Layer {chosen['layer']} · {left}·").wait_for()
    assert first.selection()["pos"] == str(left)

    page.get_by_role("button", name="Export").click()
    with page.expect_download(timeout=SLOW) as download:
        page.get_by_role("button", name="Figure").click()
    download.value.save_as(tmp_path / "figure.html")
    first.assert_clean(address)

    other = Watched(browser)  # a fresh browser, the same address
    other.page.goto(page.url)
    other.page.get_by_text(f"Layer {chosen['layer']} · {left}·").wait_for()
    assert other.selection() == first.selection()
    other.assert_clean(address)

    offline = Watched(browser)
    offline.context.set_offline(True)
    offline.page.goto((tmp_path / "figure.html").as_uri())
    offline.page.locator(".heatmaplayer image").first.wait_for(state="attached")
    assert offline.complaints == []
    assert {host for host in offline.hosts if host} == set()


def test_it_listens_on_this_machine_only(address: str) -> None:
    port = urlsplit(address).port
    assert port is not None
    own = {info[4][0] for info in socket.getaddrinfo(socket.gethostname(), port)}
    for outside in own - {"127.0.0.1", "127.0.1.1", "::1"}:
        with socket.socket(socket.AF_INET6 if ":" in str(outside) else socket.AF_INET) as probe:
            probe.settimeout(2)
            assert probe.connect_ex((str(outside), port)) != 0
