"""Names that are imported on their first use, so that looking at results brings in no torch."""

import sys
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from types import ModuleType

__all__ = ["lazily"]


def lazily(
    package: str, names: Mapping[str, Sequence[str]], modules: Sequence[str] = ()
) -> Callable[[str], object]:
    """Return what a package takes as its `__getattr__`.

    A public name may be that of a module: importing the module does not bind it in the package.

    Args:
        package: its `__name__`.
        names: the public names, by the module that each lives in.
        modules: modules below it that are public as a whole.
    """
    homes = {name: module for module, listed in names.items() for name in listed}

    class Front(ModuleType):
        def __setattr__(self, name: str, value: object) -> None:
            if name not in homes or not isinstance(value, ModuleType):
                super().__setattr__(name, value)

    sys.modules[package].__class__ = Front

    def __getattr__(name: str) -> object:
        """Import a public name on its first use and keep it."""
        if name in homes:
            value = getattr(import_module(homes[name]), name)
        elif name in modules:
            value = import_module(f"{package}.{name}")
        else:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        setattr(sys.modules[package], name, value)
        return value

    return __getattr__
