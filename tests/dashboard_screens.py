"""Pictures of every page, to be looked at before a release: light and dark, 1280 and 1920 wide.

python tests/dashboard_screens.py FOLDER [--sizes 1280 1920] [--themes light dark] [--pages …]

Small results of the shipped model are computed first, into FOLDER/cache.
"""

import argparse
import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from dashboard_browser import APPS, ARGUMENTS, CHROMIUM, Watched, served

sys.path.insert(0, str(APPS))


def main() -> None:
    """Compute what is missing and write one picture per page, theme and width."""
    made = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    made.add_argument("folder", type=Path)
    made.add_argument("--sizes", type=int, nargs="+", default=[1280, 1920])
    made.add_argument("--themes", nargs="+", default=["light", "dark"])
    made.add_argument("--pages", nargs="+")
    options = made.parse_args()
    folder = options.folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    os.environ["MECHLAB_CACHE"] = str(folder / "cache")
    paths = addresses()
    if options.pages:
        paths = {name: path for name, path in paths.items() if name in options.pages}
    from playwright.sync_api import sync_playwright

    with served(folder / "cache", folder / "server.log") as address, sync_playwright() as play:
        browser = play.chromium.launch(executable_path=str(CHROMIUM), args=ARGUMENTS)
        for theme in options.themes:
            for width in options.sizes:
                for name, path in paths.items():
                    take(browser, address + path, theme, width, folder / f"{name}-{theme}-{width}")


def take(browser: Any, url: str, theme: str, width: int, out: Path) -> None:
    """Open a page and write what is on it, the whole height."""
    watched = Watched(browser, url, viewport={"width": width, "height": 1400}, color_scheme=theme)
    watched.page.goto(url)
    watched.page.locator("[data-testid=stSidebarNav]").wait_for()
    watched.page.wait_for_timeout(1500)
    watched.settle()
    skeletons = "document.querySelectorAll('[data-testid=stSkeleton]').length === 0"
    watched.page.wait_for_function(skeletons)
    watched.page.screenshot(path=out.with_suffix(".png"))
    assert watched.complaints == []
    watched.context.close()


def addresses() -> dict[str, str]:
    """Return the path of every page with a result on it, computed if need be."""
    import loaded
    from edit_request import example_of as edit_of
    from heads_request import HeadsRequest
    from induction_request import InductionRequest
    from paths_request import PathsRequest
    from retrieval_request import RetrievalRequest
    from trace_request import example_of

    trace = example_of("atlas")
    shown = {
        "trace": (trace, "site=mlp_out&layer=2&pos=5"),
        "heads": (HeadsRequest(), "layer=5&head=4"),
        "paths": (PathsRequest(), ""),
        "retrieval": (RetrievalRequest(lengths="128", depths=3), "layer=5&head=0"),
        "induction": (InductionRequest(length=20, count=4), "layer=4&head=4"),
        "edit": (replace(edit_of("atlas"), tokens=20_000), ""),
    }
    model = loaded.load(trace.load_arguments)
    found = {"start": "/paths", "setup": "/setup"}  # pages without a result
    keys = []
    for name, (request, cell) in shown.items():
        keys.append(request.compute(model, None, recompute=False)[:12])
        found[name] = f"/{'' if name == 'trace' else name}?run={keys[-1]}&{cell}"
    other = replace(trace, seed=1).compute(model, None, recompute=False)[:12]
    return {**found, "asking": "/edit", "runs": f"/runs?ticked={keys[0]},{other}"}


if __name__ == "__main__":
    main()
