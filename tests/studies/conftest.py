"""Studies are scripts: load their files by path, each under its own name, once per session."""

import importlib.util
import sys
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from types import ModuleType

import pytest

STUDIES = Path(__file__).parents[2] / "studies"


@pytest.fixture(scope="session")
def study_file() -> Iterator[Callable[[str, str], ModuleType]]:
    """`study_file("speed", "study")`: a file of a study as a module, its neighbours importable."""
    with pytest.MonkeyPatch.context() as patch:

        @cache
        def load(study: str, file: str) -> ModuleType:
            folder = STUDIES / study
            patch.syspath_prepend(str(folder))
            if file != "study":  # names of neighbours are unique; both scripts are called study
                return importlib.import_module(file)
            spec = importlib.util.spec_from_file_location(f"{study}_study", folder / "study.py")
            assert spec is not None and spec.loader is not None
            module = importlib.util.module_from_spec(spec)
            patch.setitem(sys.modules, spec.name, module)  # dataclasses look their module up
            spec.loader.exec_module(module)
            return module

        yield load


@pytest.fixture(autouse=True)
def models_are_shared(loaded_once: None) -> None:
    """Studies load the same few folders again and again; see `loaded_once`."""
