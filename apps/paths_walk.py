"""The graph of a whole walk: results of several receivers as one, and the code of just that."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from paths_request import PathsRequest
from request import notebook_of

__all__ = ["Walk", "joined"]


@dataclass(frozen=True)
class Walk:
    """The requests whose results a graph joins, the open one first."""

    PAGE: ClassVar[str] = "paths"

    requests: tuple[PathsRequest, ...]

    def code(self, run: str = "") -> str:
        """Return a script that computes every receiver's result and joins them."""
        first = self.requests[0]
        if len(self.requests) == 1:
            return first.code(run).replace(first.PLOT, "ml.plots.path_graph(result).show()")
        lines = [
            *([f"# run {run}, joined with those of the receivers before it"] if run else []),
            *first.opening_code(),
            "results = [",
            *("    " + line for one in self.requests for line in one.call_code(end=",")),
            "]",
            "",
            "import xarray as xr",
            "",
            'effects = [result[["effect"]] for result in results]',
            'result = xr.concat(effects, "receiver", combine_attrs="override")',
            "ml.plots.path_graph(result).show()",
        ]
        return "\n".join(lines) + "\n"

    def notebook(self, run: str = "") -> str:
        """Return the same as a Jupyter notebook."""
        return notebook_of(self.code(run), "walk")


def joined(results: Sequence[Any]) -> tuple[Any, list[int]]:
    """Return path patches of the same senders to several receivers as one, and which they are.

    What does not fit the first one, of other prompts or senders, is left out.
    """
    import xarray as xr

    first = results[0]
    kept, seen = [], set()
    for place, result in enumerate(results):
        receiver = str(result["receiver"].values[0])
        if receiver not in seen and _fits(result, first):
            kept.append(place)
            seen.add(receiver)
    if len(kept) == 1:
        return first, kept
    effects = [results[place][["effect"]] for place in kept]
    together = xr.concat(effects, "receiver", combine_attrs="override")
    return together.assign_attrs(first.attrs), kept


def _fits(result: Any, first: Any) -> bool:
    return all(
        result.sizes[axis] == first.sizes[axis]
        and (result[axis].values == first[axis].values).all()
        for axis in ("prompt", "sender")
    )
