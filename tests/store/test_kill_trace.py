"""A real trace on a toy model, killed in the middle of a sweep and resumed."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import toys
import xarray as xr
from store_fakes import numbers

from mechlab.errors import PromptError
from mechlab.methods import causal_trace
from mechlab.models import Model, wrap_model
from mechlab.prompts import Fact
from mechlab.store import Store
from mechlab.store.journal import FileJournal

TESTS = Path(__file__).parents[1]
FACTS = [
    Fact("The tower of Eiffel is in the city of", "Eiffel"),
    Fact("The capital of France is", "France"),
]
OPTIONS = {"known_only": False, "samples": 4, "sites": ["resid_post", "mlp_out"], "max_batch": 8}
CODE = """
import sys
from store.test_kill_trace import FACTS, OPTIONS, toy
from mechlab.methods import causal_trace
from mechlab.store import Store
report = lambda progress: print(progress.done, flush=True)
Store(sys.argv[1]).run(causal_trace, toy(), FACTS, progress=report, **OPTIONS)
"""


def toy() -> Model:
    return wrap_model(toys.make_hf("llama"), toys.make_tokenizer("bpe"), name="toy")


def start(root: Path) -> subprocess.Popen[str]:
    path = os.pathsep.join([str(TESTS), str(TESTS.parent)])
    env = {**os.environ, "PYTHONPATH": path, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", CODE, str(root)]
    return subprocess.Popen(command, env=env, stdout=subprocess.PIPE, text=True)


def test_a_killed_trace_resumes_to_the_same_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    process = start(tmp_path / "killed")
    assert process.stdout is not None
    for _ in range(7):  # reports of the first prompt's batches
        assert process.stdout.readline()
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    process.stdout.close()
    kept = len([*(tmp_path / "killed").rglob("*.npy")])
    store = Store(tmp_path / "killed")
    assert kept >= 5 and store.find() == store.find(kind="prompt") == []

    written: list[str] = []
    put = FileJournal.put

    def counted(self: FileJournal, key: str, values: object) -> None:
        written.append(key)
        put(self, key, values)  # type: ignore[arg-type]

    monkeypatch.setattr(FileJournal, "put", counted)
    resumed = store.run(causal_trace, toy(), FACTS, **OPTIONS)  # type: ignore[arg-type]
    after_kill = len(written)
    written.clear()
    whole = Store(tmp_path / "whole").run(causal_trace, toy(), FACTS, **OPTIONS)  # type: ignore[arg-type]
    assert after_kill == len(written) - kept  # nothing that was finished is computed again
    xr.testing.assert_identical(numbers(resumed), numbers(whole))
    for name, variable in whole.variables.items():
        assert resumed[name].values.tobytes() == variable.values.tobytes()


def test_facts_that_cannot_be_traced_are_named_before_the_first_is(tmp_path: Path) -> None:
    too_long = Fact("Eiffel " * 200 + "is", "Eiffel")
    store = Store(tmp_path)
    with pytest.raises(PromptError, match="#2"):
        store.run(causal_trace, toy(), [*FACTS, too_long], **OPTIONS)  # type: ignore[arg-type]
    assert store.find(kind="prompt") == []
