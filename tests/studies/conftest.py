"""Studies are scripts: load their files by path, each under its own name."""

import importlib.util
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest

STUDIES = Path(__file__).parents[2] / "studies"


@pytest.fixture
def study_file(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str, str], ModuleType]]:
    """`study_file("speed", "study")`: a file of a study as a module, its neighbours importable."""

    def load(study: str, file: str) -> ModuleType:
        folder = STUDIES / study
        monkeypatch.syspath_prepend(str(folder))
        if file != "study":  # names of neighbours are unique; both scripts are called study
            return importlib.import_module(file)
        spec = importlib.util.spec_from_file_location(f"{study}_study", folder / "study.py")
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        monkeypatch.setitem(sys.modules, spec.name, module)  # dataclasses look their module up
        spec.loader.exec_module(module)
        return module

    yield load
