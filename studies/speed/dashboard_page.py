"""The dashboard as it is started by people, a browser to look at it, and a large stored trace."""

import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

import mechlab as ml

__all__ = ["browser_page", "served", "stored_trace", "wait_for"]

LAYERS, TOKENS, SAMPLES = 48, 100, 10
SITES = ("resid_post", "mlp_out", "attn_out")

_CHANGED = """
before => new Promise(done => {
  const shown = () => document.querySelector("h5")?.textContent ?? "";
  const started = performance.now();
  const watch = new MutationObserver(() => {
    if (shown() && shown() !== before) { watch.disconnect(); done(performance.now() - started); }
  });
  watch.observe(document.body, { childList: true, subtree: true, characterData: true });
  setTimeout(() => { watch.disconnect(); done(1e9); }, 30000);
})
"""


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """Start `mechlab app` with the store in `folder`; yield its address once it answers."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "mechlab", "app", "--no-browser", "--port", str(port)]
    environment = {**os.environ, "MECHLAB_CACHE": str(folder / "cache")}
    with (folder / "log").open("w") as log:
        server = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
        try:
            _until_it_answers(f"http://127.0.0.1:{port}/_stcore/health")
            yield f"http://127.0.0.1:{port}"
        finally:
            server.terminate()
            server.wait(20)


def _until_it_answers(url: str) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        try:
            urllib.request.urlopen(url, timeout=2).close()
        except (urllib.error.URLError, OSError):
            time.sleep(0.02)
        else:
            return
    raise OSError(f"nothing answers at {url}")


@contextmanager
def browser_page() -> Iterator[Any]:
    """Open a page of a headless chromium: the system's, else playwright's own."""
    from playwright.sync_api import sync_playwright

    arguments = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
    with sync_playwright() as play:
        browser = play.chromium.launch(
            executable_path=shutil.which("chromium"), args=arguments, headless=True
        )
        page = browser.new_context(viewport={"width": 1280, "height": 900}).new_page()
        page.set_default_timeout(120_000)
        yield page
        browser.close()


def wait_for(page: Any, x: float, y: float, before: str) -> float:
    """Click at a place and return the seconds until the heading of the details has changed."""
    page.evaluate(f"before => {{ window.mechlabDone = ({_CHANGED})(before); }}", before)
    page.mouse.click(x, y)
    return float(page.evaluate("window.mechlabDone")) / 1e3


def stored_trace(root: Path) -> str:
    """Store a causal trace of 48 layers and 100 tokens with drawn numbers; return its run id.

    Only its size matters here: the page is timed, no number is claimed.
    """
    words = " ".join(f"word{number}" for number in range(TOKENS - 1))
    fact = ml.prompts.Fact(words, subject="word3", target="word9")
    store = ml.Store(root)
    store.run(causal_trace, _Model(), fact, sites=SITES)
    return store.key(causal_trace, _Model(), fact, sites=SITES)[:12]


class _Model:
    """What a record tells of a model."""

    name = "drawn-48-layers"
    fingerprint = "0" * 64
    provenance = {"name": name, "dtype": "float32", "weights": "raw", "revision": None}


@ml.analysis(version=1)
def causal_trace(model: _Model, facts: Any, *, sites: Sequence[str] = SITES) -> Any:
    """Return a trace in form, with drawn numbers in it."""
    started, rng = time.time(), np.random.default_rng(0)
    restored = rng.uniform(0, 0.6, (1, len(sites), LAYERS, TOKENS, SAMPLES)).astype(np.float32)
    corrupted = rng.uniform(0, 0.1, (1, SAMPLES)).astype(np.float32)
    effect = restored.mean(-1) - corrupted.mean()
    tokens = ["<bos>", *(f" word{number}" for number in range(TOKENS - 1))]
    cells = ("prompt", "site", "layer", "pos")
    layers = np.broadcast_to(np.arange(LAYERS), (len(sites), LAYERS))
    fact = facts[0]
    return ml.new_result(
        {
            "clean_probability": ("prompt", [0.8], {"units": "probability"}),
            "corrupted_probability": (("prompt", "sample"), corrupted, {"units": "probability"}),
            "restored_probability": ((*cells, "sample"), restored, {"units": "probability"}),
            "total_effect": ("prompt", [0.7], {"units": "probability"}),
            "indirect_effect": (cells, effect, {"units": "probability"}),
        },
        {
            "prompt": [fact.prompt],
            "site": list(sites),
            "layer": np.arange(LAYERS),
            "pos": np.arange(TOKENS),
            "token": (("prompt", "pos"), [tokens]),
            "token_role": (("prompt", "pos"), [["further"] * TOKENS]),
            "prompt_text": ("prompt", [fact.prompt]),
            "subject": ("prompt", [fact.subject]),
            "target": ("prompt", [fact.target]),
            "scored_token": ("prompt", [f" {fact.target}"]),
            "status": ("prompt", ["ok"]),
            "window_start": (("site", "layer"), layers),
            "window_stop": (("site", "layer"), layers + 1),
        },
        method="causal_trace",
        version=1,
        model=model,
        prompts=facts,
        options={"sites": list(sites)},
        seed=0,
        started=started,
    )
