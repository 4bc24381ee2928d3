"""`@analysis`: what a method says about itself, kept on the function as a frozen value.

The store reads the version from it without importing any method; menus read the rest.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

from mechlab.errors import OptionError

__all__ = ["Method", "analysis", "method_of"]

F = TypeVar("F", bound=Callable[..., Any])
PromptKind = Literal["fact", "pair", "needle", "edit", "tokens", "text", "any", "rows"]


@dataclass(frozen=True)
class Method:
    """A method's entry in the tables of the command line, the apps and the store."""

    name: str
    """The function's name; the folder of its results in the store."""
    function: Callable[..., Any]
    """The function itself, `(model, prompts, *, options) -> xarray.Dataset`."""
    version: int
    """Raised whenever the numbers change; results of other versions are recomputed."""
    prompt_kind: PromptKind
    """Which kind of prompt the function takes; `any` for facts or pairs, `rows` for token lists
    or texts, one kind in a set."""
    default_plot: str
    """Name of a function in `mechlab.plots`."""
    per_prompt: bool
    """Whether one prompt's numbers depend on no other prompt, so that prompts are stored singly."""
    check: Callable[..., object] | None = None
    """`(model, prompts, **options)`, called before the store takes a set apart; may raise."""
    lists: tuple[str, ...] = ()
    """Options that may hold one list per prompt; given so, a set is stored as a whole."""


def analysis(
    *,
    version: int = 1,
    prompt_kind: PromptKind = "fact",
    default_plot: str = "layer_by_token",
    per_prompt: bool = True,
    check: Callable[..., object] | None = None,
    lists: tuple[str, ...] = (),
) -> Callable[[F], F]:
    """Attach a `Method` to a function as `function.method`; the function itself is unchanged.

    Args:
        version: raised by whoever changes the numbers that the function returns.
        prompt_kind: which kind of prompt it takes.
        default_plot: name of the picture that shows its result.
        per_prompt: true when a prompt's numbers depend on no other prompt.
        check: called by the store as `check(model, prompts, **options)`, with the options that were
            given, before it hands over prompts one at a time; it raises for all offenders at once.
        lists: options that may hold one list per prompt, which fits no prompt alone.

    Raises:
        OptionError: when `version` is not a positive integer.
    """
    if isinstance(version, bool) or not isinstance(version, int) or version < 1:
        raise OptionError(f"version={version!r} of a method. Allowed: integers from 1. Count up.")

    def attach(function: F) -> F:
        described = Method(
            function.__name__,
            function,
            version,
            prompt_kind,
            default_plot,
            per_prompt,
            check,
            lists,
        )
        function.__dict__["method"] = described
        return function

    return attach


def method_of(function: Callable[..., Any]) -> Method:
    """Return the `Method` that `@analysis` attached.

    Raises:
        OptionError: when there is none.
    """
    described = getattr(function, "method", None)
    if not isinstance(described, Method):
        name = getattr(function, "__qualname__", repr(function))
        raise OptionError(
            f"{name} is not an analysis: it carries no method and version. "
            "Allowed: functions decorated with @analysis, such as causal_trace. "
            "Decorate it, or call it directly instead of through the store."
        )
    return described
