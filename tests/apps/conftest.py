"""The dashboard's tests: its own files importable, a store of its own, and an engine of cardboard.

The cardboard engine stands where `causal_trace` and `load_model` stand, so that every state of a
page can be brought about at will; results pass through the real store.
"""

import sys
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from dashboard_browser import ARGUMENTS, CHROMIUM, Watched, served
from synthetic_traces import make_trace

import mechlab as ml
from mechlab.jobs import JobTable
from mechlab.results import analysis, new_result

APPS = Path(__file__).parents[2] / "apps"
sys.path.insert(0, str(APPS))  # as Streamlit does for the script that it runs


@pytest.fixture(autouse=True)
def own_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Keep every result of a test in its own folder."""
    import runs

    monkeypatch.setenv("MECHLAB_CACHE", str(tmp_path / "cache"))
    # Tests store results without jobs, after which nobody would read the list again.
    monkeypatch.setattr(runs, "FRESH_SECONDS", -1.0)
    return tmp_path / "cache"


@pytest.fixture(autouse=True)
def own_jobs(monkeypatch: pytest.MonkeyPatch) -> Iterator[JobTable]:
    """Give every test its own job table, and wait for what it started."""
    table = JobTable()
    monkeypatch.setattr(ml.jobs, "TABLE", table)
    yield table
    for job in table.jobs():
        table.cancel(job.id)
        table.wait(job.id, 10)


@pytest.fixture(scope="session")
def chromium() -> Iterator[Any]:
    """One browser for all tests; they open contexts of their own."""
    if not CHROMIUM.exists():
        pytest.skip(f"there is no browser at {CHROMIUM}")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=str(CHROMIUM), args=ARGUMENTS)
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """One dashboard for all browser tests, on `atlas` as shipped, with a store of its own."""
    if not CHROMIUM.exists():
        pytest.skip(f"there is no browser at {CHROMIUM}")
    folder = tmp_path_factory.mktemp("dashboard")
    with served(folder / "cache", folder / "server.log") as address:
        yield address


@pytest.fixture
def watched(chromium: Any, server: str) -> Iterator[Watched]:
    """A fresh browser context on the dashboard; what went wrong fails the test at its end."""
    page = Watched(chromium, server)
    yield page
    page.close()


class Shipped:
    """Stands for the shipped models, whatever is shipped."""

    @staticmethod
    def names() -> tuple[str, ...]:
        return ("atlas", "echo")

    @staticmethod
    def card(name: str) -> dict[str, Any]:
        fact = {"prompt": "The capital of France is", "subject": "France", "target": "Paris"}
        return {"example": fact} if name == "atlas" else {}

    @staticmethod
    def checkpoints(name: str) -> tuple[int, ...]:
        return (0, 500, 1000) if name == "echo" else ()

    @staticmethod
    def path(name: str) -> Path:
        return Path("/nowhere") / name


@pytest.fixture(autouse=True)
def shipped(monkeypatch: pytest.MonkeyPatch) -> type[Shipped]:
    """Tests of pages do not depend on which models are shipped."""
    monkeypatch.setattr(ml, "organisms", Shipped, raising=False)
    return Shipped


class Cardboard:
    """A model and an engine that do what a test tells them."""

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.gate.set()
        self.error: Exception | None = None
        self.status = "ok"
        self.runs = 0
        self.loads: list[dict[str, Any]] = []

    def load_model(self, name: str, **arguments: Any) -> "CardboardModel":
        self.loads.append({"name": name, **arguments})
        return CardboardModel(Path(name).name)


class CardboardModel:
    """What the store and the pages ask of a model."""

    n_layers, n_heads, d_model, d_vocab = 4, 2, 8, 100
    family, dtype, device = "cardboard", "torch.float32", "cpu"

    def __init__(self, name: str) -> None:
        self.name = name
        self.fingerprint = "f" * 64
        self.provenance = {"name": name, "dtype": "float32", "weights": "raw", "revision": None}

    checks = None

    def subject_positions(self, fact: Any) -> tuple[int, int]:
        place = self.token_strings(fact.prompt).index(f" {fact.subject}")
        return place, place

    def answer_tokens(self, prompts: Any, answers: Any, answer: str) -> list[tuple[str, ...]]:
        return [tuple(f" {word}" for word in text.split()) for text in answers]

    def token_string(self, token: str) -> str:
        return token

    def token_strings(self, text: str) -> list[str]:
        words = text.split(" ")
        return ["<s>", words[0], *(f" {word}" for word in words[1:])]


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> Cardboard:
    """Put cardboard in the place of `ml.load_model` and `ml.causal_trace`."""
    import loaded

    fake = Cardboard()

    @analysis(version=1)
    def causal_trace(
        model: CardboardModel,
        facts: Any,
        *,
        sites: Any = ("resid_post",),
        window: int | None = None,
        samples: int = 10,
        noise_scale: float = 3.0,
        corruption: str = "gaussian",
        sever: str = "none",
        known_only: bool = True,
        seed: int = 0,
        progress: Any = None,
    ) -> xr.Dataset:
        fake.runs += 1
        if fake.error is not None:
            raise fake.error
        data = invented(model, facts[0], sites=sites, samples=samples, seed=seed)
        for step in range(1, 5) if progress is not None else ():
            progress(ml.Progress(step, 4, "rows", data))
            assert fake.gate.wait(10)
        status = fake.status if known_only else "ok"
        if status != "ok":
            data["indirect_effect"][:] = np.nan
        elif fake.status != "ok":  # traced regardless, for what the model says itself
            data["scored_token"] = ("prompt", [" Rome"])
        return new_result(
            data.data_vars,
            {**data.coords, "status": ("prompt", [status])},
            method="causal_trace",
            version=1,
            model=model,
            prompts=facts,
            options={
                "sites": list(sites), "window": window, "samples": samples,
                "noise_scale": noise_scale, "corruption": corruption, "sever": sever,
                "known_only": known_only, "seed": seed,
            },
            seed=seed,
            started=time.time() - 1.0,
        )  # fmt: skip

    @analysis(version=1)
    def logit_lens(
        model: CardboardModel, prompts: Any, *, sites: Any, positions: str, top_k: int
    ) -> xr.Dataset:
        raise ml.ModelError("cardboard cannot be read with a lens.")

    monkeypatch.setattr(ml, "logit_lens", logit_lens, raising=False)
    monkeypatch.setattr(ml, "load_model", fake.load_model, raising=False)
    monkeypatch.setattr(ml, "causal_trace", causal_trace, raising=False)
    monkeypatch.setattr(loaded, "_models", OrderedDict())
    monkeypatch.setattr(loaded, "_free_memory", lambda: None)  # collecting garbage takes seconds
    yield fake
    fake.gate.set()


def invented(model: CardboardModel, fact: Any, **options: Any) -> xr.Dataset:
    """Return invented numbers for a fact, in the form of a causal trace."""
    tokens = model.token_strings(fact.prompt)
    data = make_trace([tokens], layers=model.n_layers, **options)
    roles = np.array([["last_subject" if t.strip() == fact.subject else "further" for t in tokens]])
    return data.assign_coords(
        prompt=[fact.label or fact.prompt],
        prompt_text=("prompt", [fact.prompt]),
        subject=("prompt", [fact.subject]),
        target=("prompt", [fact.target]),
        scored_token=("prompt", [f" {fact.target}"]),
        token_role=(("prompt", "pos"), roles),
    )


@pytest.fixture
def stored(engine: Cardboard) -> Callable[..., str]:
    """`stored(request)`: compute a request with the cardboard engine and return its run id."""
    import runs

    def run(request: Any) -> str:
        job = runs.start(request)
        ended = ml.jobs.TABLE.wait(job.id, 20)
        assert ended is not None
        assert ended.state == "done", ended.details
        return str(ended.result)[:12]

    return run
