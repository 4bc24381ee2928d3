"""Imports point strictly down, and the code outside the package uses only its front door."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import mechlab

FLOORS = [
    {"errors"},  # under everything: the words on the ground floor raise errors too
    {"axes", "canonical", "checks", "lazy", "progress"},
    {"prompts", "results"},
    {"organisms", "metrics", "statistics", "store", "plots"},
    {"models", "claims"},
    {"hooks"},
    {"engine", "jobs"},
    {"methods"},
    {"workflows"},
    {"cli"},
]
HEIGHT = {unit: height for height, floor in enumerate(FLOORS) for unit in floor}
DOORS = {"__init__", "__main__"}  # the front door names every floor, and `python -m` the command
STRANGERS = {"methods"}  # files in these folders never import each other

REPOSITORY = Path(__file__).parents[1]
PACKAGE = REPOSITORY / "mechlab"
OUTSIDE = [REPOSITORY / "apps", REPOSITORY / "studies"]


def imports(path: Path) -> Iterator[str]:
    """Every name that a file imports, dotted, wherever in the file the statement stands."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        match node:
            case ast.Import():
                yield from (alias.name for alias in node.names)
            case ast.ImportFrom():
                start = "." * node.level + (node.module or "")
                yield from (f"{start}.{alias.name}" for alias in node.names)


def complaint(place: tuple[str, ...], name: str) -> str | None:
    """What is wrong with importing `name` in the file at `place`, if anything."""
    if name.startswith("."):
        return f"{name} is a relative import"
    top, _, rest = name.partition(".")
    if top != "mechlab":
        return None
    unit, target = place[0], rest.split(".")
    if target[0] not in HEIGHT:
        return f"{name} goes through the front door, which is for code outside the package"
    if target[0] == unit:
        stranger = unit in STRANGERS and place[1] not in {"__init__", *target[1:2]}
        return f"{name}: files in {unit}/ never import each other" if stranger else None
    return None if HEIGHT[target[0]] < HEIGHT[unit] else f"{name} is not on a lower floor"


def complaints(package: Path) -> list[str]:
    found = []
    for path in sorted(package.rglob("*.py")):
        place = path.relative_to(package).with_suffix("").parts
        if place[0] not in DOORS:
            bad = filter(None, (complaint(place, name) for name in imports(path)))
            found += [f"{path.relative_to(package)}: {text}" for text in bad]
    return found


def fresh_python(code: str) -> None:
    """Run `code` in a new interpreter; what it raises fails the test."""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_imports_point_strictly_down():
    assert not (found := complaints(PACKAGE)), "\n".join(found)


def test_every_unit_has_a_floor():
    files = {path.stem for path in PACKAGE.glob("*.py")}
    folders = {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    assert files | folders <= HEIGHT.keys() | DOORS


@pytest.mark.parametrize(
    ("file", "text", "reason"),
    [
        ("engine.py", "import mechlab.methods.tracing", "not on a lower floor"),
        ("engine.py", "from mechlab import jobs", "not on a lower floor"),
        ("store.py", "def f():\n    from mechlab.models import Model", "not on a lower floor"),
        ("store.py", "import mechlab", "front door"),
        ("store.py", "from mechlab import Head", "front door"),
        ("store.py", "from .axes import Head", "relative import"),
        ("methods/tracing.py", "from mechlab.methods.patching import f", "never import each other"),
    ],
)
def test_a_wrong_import_is_found(tmp_path, file, text, reason):
    path = tmp_path / file
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    assert [reason in found for found in complaints(tmp_path)] == [True]


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("engine.py", "from mechlab import errors\nfrom mechlab.hooks.sites import Site"),
        ("methods/__init__.py", "from mechlab.methods.tracing import causal_trace"),
        ("plots/grid.py", "from mechlab.plots.colour import scale"),
    ],
)
def test_a_right_import_is_left_alone(tmp_path, file, text):
    path = tmp_path / file
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    assert complaints(tmp_path) == []


def test_looking_at_results_needs_no_torch():
    fresh_python(
        "import mechlab as ml, sys\n"
        "for name in ('Store', 'plots', 'prompts', 'statistics', 'jobs', 'Progress', 'Fact'):\n"
        "    getattr(ml, name, None)\n"
        "import mechlab.cli\n"
        "heavy = {'torch', 'transformers', 'transformer_lens', 'streamlit'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )


def outside_files() -> list[Path]:
    return sorted(path for folder in OUTSIDE for path in folder.rglob("*.py"))


def front_door_breaches(text: str) -> list[str]:
    """Uses of mechlab in outside code that are not `import mechlab as ml` and `ml.<public>`."""
    tree, found = ast.parse(text), []
    for node in ast.walk(tree):
        match node:
            case ast.Import():
                found += [
                    f"import {alias.name} as {alias.asname}"
                    for alias in node.names
                    if alias.name.split(".")[0] == "mechlab"
                    and (alias.name, alias.asname) != ("mechlab", "ml")
                ]
            case ast.ImportFrom(module=str(module)) if module.split(".")[0] == "mechlab":
                found.append(f"from {module} import …")
            case ast.Attribute(value=ast.Name(id="ml"), attr=name) if name not in mechlab.__all__:
                found += [f"ml.{name}"] if name != "__version__" else []
    return found


def test_apps_and_studies_use_only_the_front_door():
    found = {
        path: front_door_breaches(path.read_text(encoding="utf-8")) for path in outside_files()
    }
    assert not any(found.values()), {str(path): bad for path, bad in found.items() if bad}


def test_a_way_round_the_front_door_is_found():
    text = (
        "import mechlab.store\nfrom mechlab.store import Store\nimport mechlab as ml\nml.nowhere\n"
    )
    assert len(front_door_breaches(text)) == 3
    assert front_door_breaches("import mechlab as ml\nml.MechlabError\n") == []
