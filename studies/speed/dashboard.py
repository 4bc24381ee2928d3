"""How fast is the dashboard? First page, a click at 48 layers × 100 tokens, and what is sent.

python studies/speed/dashboard.py [--clicks 40] [--run] [--json FILE]

Needs the extra `app`, playwright and a chromium. Exit code: 0 when every target is met, 1 when not,
2 when it could not be run.
"""

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dashboard_page import browser_page, served, stored_trace, wait_for

TARGETS = {
    "first page (s)": 3.0,
    "stored 48 x 100 trace on screen (s)": 2.0,
    "click to update, p95 (s)": 0.5,
    "sent for the view (MB)": 2.0,
    "result of the shipped model, model loaded (s)": 2.0,
    "first partial picture (s)": 2.0,
    "reload shows the running job (s)": 1.0,
    "cancel acknowledged (s)": 1.0,
    "click while a run is under way, p95 (s)": 0.5,
}
"""What is wanted, at most."""

_DETAIL = "Layer {} · "


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the study and return the exit code."""
    options = parser().parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        try:
            found = measured(Path(folder), options)
        except ImportError as error:
            print(f"{error}. Install mechlab[test].", file=sys.stderr)
            return 2
    late = {name for name, value in found.items() if value > TARGETS[name]}
    for name, value in found.items():
        print(f"{name:<48} {value:6.2f}  at most {TARGETS[name]:.1f}{'  LATE' * (name in late)}")
    if options.json is not None:
        options.json.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    return 1 if late else 0


def parser() -> argparse.ArgumentParser:
    """Return the command line."""
    made = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    made.add_argument("--clicks", type=int, default=40, help="clicks measured")
    made.add_argument("--run", action="store_true", help="also run the shipped model")
    made.add_argument("--json", type=Path, help="write the figures here")
    return made


def measured(folder: Path, options: argparse.Namespace) -> dict[str, float]:
    """Return seconds and megabytes by name."""
    run = stored_trace(folder / "cache")
    with browser_page() as page:
        started = time.perf_counter()  # when the command is given; the browser is open already
        with served(folder) as address:
            found = _first_page(page, address, started)
            found |= _big_trace(page, f"{address}/?run={run}", options.clicks)
            if options.run:
                found |= _under_way(page, address, f"{address}/?run={run}", options.clicks)
    return found


def _first_page(page: Any, address: str, started: float) -> dict[str, float]:
    page.goto(address)
    page.locator(".st-key-run_now").wait_for()
    return {"first page (s)": time.perf_counter() - started}


def _big_trace(page: Any, address: str, clicks: int) -> dict[str, float]:
    sent: list[int] = []
    page.on("websocket", lambda ws: ws.on("framereceived", lambda data: sent.append(len(data))))
    started = time.perf_counter()
    page.goto(address)
    page.locator(".st-key-grid-attn_out canvas").wait_for()
    shown = time.perf_counter() - started
    page.get_by_text("Click a cell to see what restoring").wait_for()
    bytes_sent = sum(sent)
    return {
        "stored 48 x 100 trace on screen (s)": shown,
        "click to update, p95 (s)": _p95(_clicks(page, clicks)),
        "sent for the view (MB)": bytes_sent / 1e6,
    }


def _clicks(page: Any, count: int) -> list[float]:
    """Return seconds from a click on a cell to its details on the page, for different cells."""
    canvas = page.locator(".st-key-grid-mlp_out canvas")
    canvas.scroll_into_view_if_needed()
    seconds = []
    for number in range(count + 2):
        box = canvas.bounding_box()
        place = (0.2 + 0.7 * ((number * 37) % 97) / 97, 0.1 + 0.6 * ((number * 53) % 89) / 89)
        before = page.locator("h5").first.text_content() if number else ""
        x, y = box["x"] + place[0] * box["width"], box["y"] + place[1] * box["height"]
        seconds.append(wait_for(page, x, y, before))
    return seconds[2:]  # the first ones load what later ones have


def _under_way(page: Any, address: str, big: str, clicks: int) -> dict[str, float]:
    """Measure a real run of the shipped model: its pictures, and the page while it runs."""
    page.goto(address)
    page.locator(".st-key-run_now button").click()
    page.locator(".st-key-grid-attn_out canvas").wait_for()  # loads torch and the model
    found = {}
    _samples(page, "11")
    started = time.perf_counter()
    page.locator(".st-key-run_now button").click()
    page.get_by_text("n = 11 noise samples").first.wait_for()
    found["result of the shipped model, model loaded (s)"] = time.perf_counter() - started
    _samples(page, "2000")
    started = time.perf_counter()
    page.locator(".st-key-run_now button").click()
    page.get_by_text("What is there so far").wait_for()
    found["first partial picture (s)"] = time.perf_counter() - started
    page.goto(big)
    page.get_by_text("Click a cell to see what restoring").wait_for()
    found["click while a run is under way, p95 (s)"] = _p95(_clicks(page, clicks))
    started = time.perf_counter()
    page.reload()
    page.get_by_role("button", name="1 running").wait_for()
    found["reload shows the running job (s)"] = time.perf_counter() - started
    page.get_by_role("button", name="1 running").click()
    cancel = page.get_by_role("button", name="Cancel")
    cancel.wait_for()
    started = time.perf_counter()
    cancel.click()
    cancel.wait_for(state="detached")
    found["cancel acknowledged (s)"] = time.perf_counter() - started
    return found


def _samples(page: Any, count: str) -> None:
    page.get_by_role("button", name="Options").click()
    field = page.get_by_role("spinbutton", name="Noise samples")
    field.fill(count)
    field.press("Enter")
    page.get_by_text("The inputs changed").wait_for()
    page.keyboard.press("Escape")


def _p95(values: list[float]) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(0.95 * len(ordered)))]


if __name__ == "__main__":
    raise SystemExit(main())
