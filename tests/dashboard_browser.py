"""The dashboard served as `mechlab app` serves it, and a page in chromium that is watched."""

import os
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from mechlab.cli.dashboard import dashboard_command

APPS = Path(__file__).parents[1] / "apps"
CHROMIUM = Path("/usr/bin/chromium")
ARGUMENTS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
]  # fmt: skip
SLOW = 120_000
"""Milliseconds; loading torch on a busy machine takes most of it."""


@contextmanager
def served(store: Path, log: Path, script: Path = APPS / "main.py") -> Iterator[str]:
    """Serve a script on a free port with a store of its own; yield its address."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = {**os.environ, "MECHLAB_CACHE": str(store), "PYTHONPATH": str(APPS.parent)}
    with log.open("w") as output:
        server = subprocess.Popen(
            dashboard_command(script, port=port, browser=False),
            env=environment, stdout=output, stderr=output, cwd=log.parent,
        )  # fmt: skip
        try:
            _wait_for(f"http://127.0.0.1:{port}/_stcore/health", server)
            yield f"http://127.0.0.1:{port}"
        finally:
            server.terminate()
            try:
                server.wait(20)
            except subprocess.TimeoutExpired:  # a busy machine; nothing of it is needed any more
                server.kill()
                server.wait(20)


def _wait_for(url: str, server: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        assert server.poll() is None, "the server ended by itself"
        try:
            urllib.request.urlopen(url, timeout=2).close()
        except (urllib.error.URLError, OSError):
            time.sleep(0.1)
        else:
            return
    raise AssertionError(f"nothing answers at {url}")


class Watched:
    """A page that remembers what went wrong on it and whom it spoke to."""

    def __init__(self, browser: Any, address: str = "", **context: Any) -> None:
        size = {"width": 1280, "height": 900}
        self.context = browser.new_context(**{"viewport": size, **context})
        self.address = address
        self.page = self.context.new_page()
        self.page.set_default_timeout(SLOW)
        self.complaints: list[str] = []
        self.hosts: set[str] = set()
        self.page.on("console", self._heard)
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("request", lambda request: self.hosts.add(urlsplit(request.url).netloc))

    def _heard(self, message: Any) -> None:
        # Opened at /runs, Streamlit first looks for its server below /runs/, which is not there.
        url = message.location.get("url", "")
        if message.type == "error" and "/_stcore/h" not in url:
            self.complaints.append(message.text)

    def open(self, path: str = "/") -> Any:
        """Open a page of the dashboard; return the browser's page."""
        self.page.goto(f"{self.address}{path}")
        return self.page

    def selection(self) -> dict[str, str]:
        """What the address names."""
        return {name: values[0] for name, values in parse_qs(urlsplit(self.page.url).query).items()}

    def button(self, key: str) -> Any:
        """The button with a Streamlit key."""
        return self.page.locator(f".st-key-{key.replace('.', '-')} button").first

    def settle(self) -> None:
        """Wait until the page's script has ended: a click during it may be lost."""
        self.page.locator("[data-testid=stApp][data-test-script-state=notRunning]").wait_for()

    def click_cell(self, key: str, share_x: float, share_y: float) -> None:
        """Click into a grid at a share of its width and height."""
        self.settle()
        canvas = self.page.locator(f".st-key-{key.replace('.', '-')} canvas")
        box = canvas.bounding_box()
        canvas.click(position={"x": share_x * box["width"], "y": share_y * box["height"]})

    def close(self) -> None:
        """Assert that nothing went wrong and nobody else was spoken to, and end."""
        assert self.complaints == []
        own = {urlsplit(self.address).netloc} if self.address else set()
        assert {host for host in self.hosts if host} == own
        assert self.page.locator("[data-testid=stException]").count() == 0
        self.context.close()
