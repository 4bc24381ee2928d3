"""Memory heads over training checkpoints: each step stored by itself, shown together."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mechlab.cli.memory_tables import score_rows, table, told

if TYPE_CHECKING:
    import xarray as xr

    from mechlab.prompts import PromptSet
    from mechlab.store import Store

__all__ = ["perform_checkpoints"]

_COLUMNS = {
    "step": "step", "head": "best head", "prefix_matching": "prefix matching",
    "previous_token": "previous", "copying": "copying", "peak_lag": "peak lag",
    "distance": "CMR distance", "below": "heads < .1",
}  # fmt: skip


def perform_checkpoints(
    about: Mapping[str, Any],
    prompts: "PromptSet[Any]",
    steps: Sequence[int] | None,
    seed: int,
    *,
    estimate: bool,
    cache: str | None,
    html: Path | None,
    as_json: bool,
    top: int,
) -> None:
    """Score the heads of every checkpoint, and say how they came to be.

    Args:
        about: arguments of `load_model`.
        prompts: the lists.
        steps: training steps; all that the model has when `None`.
        seed: of nulls and intervals.
        estimate: say how much would be computed, and stop.
        cache: where results are kept.
        html: where the figure is written.
        as_json: print one JSON object.
        top: how many heads are drawn in colour.

    Raises:
        MechlabError: when a checkpoint is not there or cannot be scored.
    """
    from mechlab.cli.bar import progress_bar
    from mechlab.cli.work import check_figure_path, default_figure
    from mechlab.methods.checkpoints import over_checkpoints
    from mechlab.organisms import checkpoints
    from mechlab.plots import emergence, write_html
    from mechlab.store import Store

    name, store = str(about["name"]), Store(cache)
    wanted = sorted(steps) if steps else list(checkpoints(name))
    if estimate:
        told_ = {"checkpoints": len(wanted), "runs": 2 * len(wanted) * len(prompts)}
        print(json.dumps(told_) if as_json else f"{told_['runs']:,} runs at most, over "
              f"{len(wanted)} checkpoints; those that are stored cost nothing")  # fmt: skip
        return
    if html is not None:
        check_figure_path(html)
    rest = {n: v for n, v in about.items() if n != "name"}
    with progress_bar("memory heads") as progress:
        found = over_checkpoints(
            _stored(store), name, prompts, checkpoints=wanted, progress=progress, seed=seed, **rest
        )
    key = str(found.attrs["model_fingerprint"])
    figure = write_html(emergence(found, top=max(1, top)), html or default_figure(store, key))
    rows = [_row(found, index) for index in range(found.sizes["checkpoint"])]
    if as_json:
        print(json.dumps({"model": name, "checkpoints": rows, "figure": str(figure)}))
    else:
        _print(name, rows, figure)


def _stored(store: "Store") -> Any:
    """Return `memory_heads` through the store, as a method."""
    from mechlab.results import method_of
    from mechlab.workflows import memory_heads

    def run(model: Any, prompts: Any, **options: Any) -> "xr.Dataset":
        return store.run(memory_heads, model, prompts, **options)

    run.__dict__["method"] = method_of(memory_heads)
    return run


def _row(found: "xr.Dataset", index: int) -> dict[str, Any]:
    """Return the best head of one step, and how many heads the context model fits."""
    one = found.isel(checkpoint=index)
    share = float((one.distance < 0.1).mean())
    best = score_rows(one, 1)[0]
    return {"step": int(one.checkpoint), **best, "below": told(share)}


def _print(name: str, rows: list[dict[str, Any]], figure: Path) -> None:
    from rich.console import Console

    console = Console()
    console.print(f"{name}: the head with the most prefix matching at each step", highlight=False)
    console.print(table(rows, _COLUMNS))
    console.print(f"figure  {figure}", markup=False, highlight=False, soft_wrap=True)
