"""`induction_scores`: which heads attend as induction, previous-token and duplicate-token heads."""

import time
from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import xarray as xr

from mechlab import engine
from mechlab.engine.options import HINTS
from mechlab.errors import PromptError
from mechlab.methods.induction.ablating import Ablation, Average, Names, prepared
from mechlab.methods.induction.cells import Cells, Moments, read_cells
from mechlab.methods.induction.rows import Laid, lay_out
from mechlab.progress import ProgressCallback
from mechlab.prompts import PromptSet, TokenList, as_prompt_set
from mechlab.results import analysis, new_result

if TYPE_CHECKING:
    from mechlab.models import Model

__all__ = ["Edge", "induction_scores"]

Edge = Literal["include", "exclude"]
MEASURES = ("prefix_matching", "previous_token", "duplicate_token")


@analysis(version=1, prompt_kind="tokens", default_plot="head_grid", per_prompt=False)
def induction_scores(
    model: "Model",
    prompts: PromptSet[Any] | Sequence[TokenList] | TokenList,
    *,
    edge: Edge = "include",
    ablate: Names | None = None,
    ablation: Ablation = "zero",
    reference: PromptSet[Any] | None = None,
    average: Average = "over_positions",
    max_batch: int | None = None,
    progress: ProgressCallback | None = None,
) -> xr.Dataset:
    """Score every query head by how it attends on repeated random tokens.

    Prefix matching (Olsson et al. 2022, arXiv 2209.11895, "In-context Learning and Induction
    Heads", appendix on head measures): the attention from each token that stood before to the
    tokens that followed it there, summed over its earlier occurrences. With two copies this is the
    matching score of Ji-An et al. 2024 (arXiv 2405.14992).

    Args:
        model: a decoder with attention.
        prompts: lists of `ml.prompts.repeated_tokens`, of two copies or more.
        edge: whether the last token of a copy counts, whose earlier occurrence is followed by the
            first token of the next copy. Leaving it out changes scores by at most 1 / length.
        ablate: heads that are ablated together while the others are scored.
        ablation: `zero` sets their outputs to 0; `mean` to their mean over `reference`;
            `pattern_preserving` to 0 while all attention patterns stay as they were.
        reference: token lists or texts to average over, for `mean`.
        average: a mean `over_positions` of the reference, or one `by_position`.
        max_batch: upper bound on rows per batch; changes no number beyond rounding.
        progress: called after each batch; may raise `Cancelled`.

    Returns:
        Dataset with `prefix_matching`, `previous_token` (attention to the position before, mean
        over all positions) and `duplicate_token` (attention to the token's own earlier
        occurrences), each `[prompt, layer, head]` in attention weight, between 0 and 1. Each comes
        with `<name>_sem_prompts` and `<name>_sem_tokens` `[layer, head]`, the standard errors over
        prompts and over all tokens of all prompts (NaN for a single prompt). `head` counts query
        heads, also under grouped queries. Attribute `edge`.

    Raises:
        OptionError: an option outside its choices, a list with BOS on a model without one.
        SiteError: a model without attention, heads that it does not have.
        PromptError: lists without a repeat, longer than the context, or beyond the pool.
        Cancelled: when `progress` asked to stop.

    Differs from the paper: any number of copies and any length; the published numbers are of 25
    tokens in 4 copies (`repeated_tokens(100, 25, copies=4, model=model, pool="tokens",
    draw="new", pool_size="all", trim=0.04)`).
    """
    started = time.time()
    options = {name: value for name, value in locals().items() if name not in HINTS}
    engine.require_heads(model, "models with attention")
    engine.check_choice("edge", edge, ("include", "exclude"))
    engine.check_whole("max_batch", max_batch, at_least=1, optional=True)
    lists = as_prompt_set(prompts, kind="tokens")
    laid = lay_out(model, lists)
    refuse_unrepeated(lists)
    runner, sets = prepared(model, ablate, ablation, reference, average, ["pattern"])
    runner = runner.of(sets[-1].heads)
    runner.check_width(laid)
    found = read_cells(
        runner,
        laid,
        lambda one: _cells(_shape(one), one.front, one.length, edge),
        len(MEASURES),
        site="pattern",
        layers=range(model.n_layers),
        max_batch=max_batch,
        report=progress,
    )
    return new_result(
        _variables(found),
        {
            "prompt": list(lists.labels),
            "layer": np.arange(model.n_layers),
            "head": np.arange(model.n_heads or 0),
        },
        method="induction_scores",
        version=1,
        model=model,
        prompts=lists,
        options=options,
        seed=None,
        started=started,
    ).assign_attrs(edge=edge, ablated="+".join(map(str, runner.heads)))


def refuse_unrepeated(lists: PromptSet[TokenList]) -> None:
    """Refuse lists in which no probe is in its source.

    Raises:
        PromptError: naming all of them.
    """
    without = [
        f"#{index} {lists.labels[index]!r:.60}"
        for index, one in enumerate(lists)
        if max(one.matches) < 0
    ]
    if without:
        raise PromptError(
            f"{len(without)} of {len(lists)} lists repeat none of their tokens: "
            f"{', '.join(without[:10])}.\n  Allowed: lists whose probes are in their source, as "
            "ml.prompts.repeated_tokens makes them.\n  Leave the others out."
        )


def _variables(found: Moments) -> dict[str, Any]:
    units = {"units": "attention weight"}
    prompt_sem = found.over_groups([str(i) for i in range(len(found.mean))])[1]
    token_sem = found.over_tokens()[1]
    made: dict[str, Any] = {}
    for index, name in enumerate(MEASURES):
        made[name] = (("prompt", "layer", "head"), found.mean[:, index], units)
        made[f"{name}_sem_prompts"] = (("layer", "head"), prompt_sem[index], units)
        made[f"{name}_sem_tokens"] = (("layer", "head"), token_sem[index], units)
    return made


def _shape(one: Laid) -> tuple[int, ...]:
    """Return the tokens behind the BOS, renumbered by their first occurrence."""
    names: dict[int, int] = {}
    return tuple(names.setdefault(token, len(names)) for token in one.tokens[one.front :])


@lru_cache(maxsize=256)
def _cells(shape: tuple[int, ...], front: int, length: int, edge: Edge) -> Cells:
    """Return the cells of one list; lists of the same shape share them."""
    numbers = np.array(shape)
    same = np.tril(numbers[:, None] == numbers[None, :], -1)
    query, earlier = np.nonzero(same)
    inside = np.ones(len(query), dtype=bool)
    if edge == "exclude":
        inside = earlier % length != length - 1
    last = front + len(shape)
    queries = [query[inside] + front, np.arange(1, last), query + front]
    keys = [earlier[inside] + 1 + front, np.arange(last - 1), earlier + front]
    measure = np.repeat(np.arange(len(MEASURES)), [len(part) for part in queries])
    return Cells(np.concatenate(queries), np.concatenate(keys), measure)
