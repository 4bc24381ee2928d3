"""What pyproject.toml declares is what the package imports, and every pin lies in its range."""

import ast
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

REPOSITORY = Path(__file__).parents[1]
PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]
EXTRAS = PROJECT["optional-dependencies"]
DECLARED = {
    canonicalize_name(Requirement(line).name): Requirement(line) for line in PROJECT["dependencies"]
}
DISTRIBUTION = {"sklearn": "scikit-learn"}  # where the name to import is not the name to install


def statements(tree: ast.AST) -> Iterator[ast.AST]:
    """Every node of a file, except in blocks that only the type checker reads."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            continue
        yield node
        yield from statements(node)


def imported(folder: Path) -> set[str]:
    """Every distribution that the code in a folder imports, wherever the statement stands."""
    names = set()
    for path in folder.rglob("*.py"):
        for node in statements(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                names |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                names.add(node.module.split(".")[0])
    outside = names - sys.stdlib_module_names - {"mechlab"}
    return {canonicalize_name(DISTRIBUTION.get(name, name)) for name in outside}


def pins() -> dict[str, str]:
    lines = (REPOSITORY / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pairs = (line.split("==") for line in lines if line and not line.startswith("#"))
    return {canonicalize_name(name): version for name, version in pairs}


def test_the_package_imports_what_it_declares_and_nothing_else():
    assert imported(REPOSITORY / "mechlab") == set(DECLARED)


def test_the_dashboard_imports_only_what_its_extra_brings():
    extra = {canonicalize_name(Requirement(line).name) for line in EXTRAS["app"]}
    own = {canonicalize_name(path.stem) for path in (REPOSITORY / "apps").iterdir()}
    assert imported(REPOSITORY / "apps") - own <= set(DECLARED) | extra


@pytest.mark.parametrize("line", [*PROJECT["dependencies"], *EXTRAS["app"], *EXTRAS["test"]])
def test_every_requirement_is_pinned_within_its_range(line):
    requirement = Requirement(line)
    if requirement.name == "mechlab":  # the test extra includes the app extra
        return
    version = pins()[canonicalize_name(requirement.name)]
    assert requirement.specifier.contains(version), f"{version} is outside {line}"


def test_pins_name_no_build_of_torch():
    assert "+" not in pins()["torch"]
