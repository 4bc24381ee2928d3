"""The public surface: what `import mechlab as ml` offers, and nothing else."""

import ast
import inspect
from importlib import import_module
from pathlib import Path

import pytest

import mechlab as ml

FRONTS = (
    "mechlab", "mechlab.hooks", "mechlab.methods", "mechlab.methods.retrieval", "mechlab.plots"
)  # fmt: skip
"""Packages that import some of their names when these are first used."""


def seen_by_the_type_checker(package: str) -> dict[str, str]:
    """Return the names that a package shows to the type checker alone, with their homes."""
    source = Path(import_module(package).__file__ or "").read_text(encoding="utf-8")
    (block,) = (
        node
        for node in ast.parse(source).body
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
    )
    return {
        alias.asname or alias.name: f"{node.module}.{alias.name}"
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }


def test_the_list_of_public_names_is_sorted_and_has_no_doubles():
    assert ml.__all__ == sorted(set(ml.__all__))


@pytest.mark.parametrize("name", ml.__all__)
def test_every_public_name_resolves_and_has_a_docstring(name):
    value = getattr(ml, name)
    assert inspect.getdoc(value), f"ml.{name} has no docstring"


@pytest.mark.parametrize(("name", "home"), sorted(ml._HOME.items()))
def test_every_public_name_is_public_where_it_lives(name, home):
    module = import_module(home)
    assert name in getattr(module, "__all__", [name])
    assert getattr(module, name) is getattr(ml, name)


def test_the_type_checker_sees_the_same_names():
    modules = {name: f"mechlab.{name}" for name in ml._MODULES}
    names = {name: f"{home}.{name}" for name, home in ml._HOME.items()}
    assert seen_by_the_type_checker("mechlab") == names | modules


@pytest.mark.parametrize("package", FRONTS)
def test_what_is_imported_late_is_what_the_type_checker_sees(package):
    front = import_module(package)
    import_module("mechlab.plots.lines")  # of a module and a function of that name, the function
    for name, home in seen_by_the_type_checker(package).items():
        module, _, original = home.rpartition(".")
        assert getattr(front, name) is getattr(import_module(module), original)
        assert name in front.__all__
    with pytest.raises(AttributeError, match="has no attribute 'nowhere'"):
        _ = front.nowhere


def test_nothing_else_is_public():
    helpers = {"TYPE_CHECKING", "lazily"}
    units = {path.stem for path in Path(ml.__file__).parent.iterdir()}  # bound once imported
    names = {name for name in vars(ml) if not name.startswith("_")}
    assert names - helpers - units <= set(ml.__all__)


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="'mechlab' has no attribute 'casual_trace'"):
        _ = ml.casual_trace


def test_tab_completion_lists_the_public_names():
    assert set(dir(ml)) == {*ml.__all__, "__version__"}
