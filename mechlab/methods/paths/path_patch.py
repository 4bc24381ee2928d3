"""`path_patch`: patch a sender, let receivers alone see it, read the metric."""

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import xarray as xr

from mechlab import engine
from mechlab.axes import Head
from mechlab.engine import Node
from mechlab.engine.options import HINTS
from mechlab.engine.positions import PositionOption
from mechlab.hooks import Site
from mechlab.methods.paths.nodes import kind_of, label_of, plain_nodes, require_heads
from mechlab.methods.paths.plan import check_paths, prepare, proven_edges
from mechlab.metrics import Metric, units_of
from mechlab.progress import Journal, Progress, ProgressCallback
from mechlab.prompts import PromptPair, PromptSet, as_prompt_set
from mechlab.results import analysis, new_result

if TYPE_CHECKING:
    from mechlab.models import Model

__all__ = ["path_patch"]

Item = Site | Head | str | Sequence[Site | Head | str]


@analysis(
    version=1,
    prompt_kind="pair",
    default_plot="sender_grid",
    per_prompt=False,
    check=check_paths,
)
def path_patch(
    model: "Model",
    pairs: PromptSet[Any] | Sequence[PromptPair] | PromptPair,
    *,
    senders: str | Sequence[Item] = "all_heads",
    receivers: str | Sequence[Item] = "logits",
    freeze: Literal["heads", "heads+mlps"] = "heads",
    direction: Literal["noising", "denoising"] = "noising",
    ln: Literal["recompute", "frozen"] = "recompute",
    positions: PositionOption | int = "all",
    metric: str | Metric = "logit_diff",
    max_batch: int | None = None,
    progress: ProgressCallback | None = None,
    journal: Journal | None = None,
) -> xr.Dataset:
    """Measure what senders do to the metric through receivers alone, everything else held.

    Wang et al. 2022 (arXiv 2211.00593, section 3.1 and appendix B); Goldowsky-Dill et al. 2023.
    Run A gives the senders' new values, run B is the original. In run C every head is held at B
    and the senders are overwritten by A; what the receivers' inputs become is recorded. In run D
    the receivers take these inputs, everything else is live, and the metric is read. With the
    final residual as receiver run C itself is read.

    Args:
        model: an attention model on which the engine's fast runs are proven (`verify`).
        pairs: clean and corrupted prompts of equally many tokens, with their answers.
        senders: what is patched, one by one: `all_heads`, `all_mlps`, `embed`, `all` of these, or a
            list of nodes: `ml.Site("z", layer, head)` (or `ml.Head`, `"L9H6"`), `mlp_out`,
            `attn_out`, `embed`. A tuple in the list is patched together. A site with `pos` is
            patched there, whatever `positions` says.
        receivers: what alone sees the change, one by one: `logits` (the final residual),
            `all_heads_q`, `all_heads_k`, `all_heads_v`, `all_heads_pattern` (queries and keys),
            `all_heads` (queries, keys and values), `all_mlps`, under grouped queries
            `all_kv_heads_k` and `all_kv_heads_v`; or a list of these and of sites `q`, `k`, `v`,
            `pattern`, `z` (all three inputs of a head), `mlp_out` (that MLP's input). **A tuple in
            the list is set jointly**, as in the IOI code; without a tuple each receiver is alone.
        freeze: `heads` holds all heads and recomputes the MLPs between sender and receiver (the
            IOI form), so a path may run through MLPs; `heads+mlps` holds these as well (direct
            edges of the residual stream).
        direction: `noising` puts corrupted values into the clean run, `denoising` clean values into
            the corrupted run.
        ln: `recompute` the norm in front of the receiver on what it receives, or keep it `frozen`
            at the scale of the original run, so that the effects of senders on an input add up.
            Norms in front of live MLPs on the way are always recomputed.
        positions: where senders are patched: `all` positions, the `last`, a list of positions of
            every prompt (negative ones count from the end), the name or names of places that the
            pairs have (`PromptPair.places`, `end`; all tokens of each), or one such list per pair,
            as `ml.prompts.named_positions` gives them. Where no sender writes nothing is received:
            heads are held, and the residual does not move between positions.
        metric: a metric's name or a function; answers are those of the pair.
        max_batch: upper bound on rows per batch; changes no number beyond rounding.
        progress: called between batches with a partial result; may raise `Cancelled`.
        journal: keeps finished batches, so that a killed run resumes.

    Returns:
        Dataset with `effect[prompt, sender, receiver]`, the metric of the patched minus that of the
        original run, in units of the metric; `patched` of the same axes; `clean_metric[prompt]`,
        `corrupted_metric[prompt]`; `relative_effect[sender, receiver]`, the mean of the effect over
        prompts divided by the mean metric of the original run (a ratio of means, as in the IOI
        code); and `valid[sender, receiver]`, whether the edge exists in any prompt. Coordinates:
        `sender_kind`, `sender_layer`, `sender_head`, `sender_pos` and the same for receivers, with
        -1 where there is none. An edge that does not exist (receiver not after the sender, or no
        position in common) is NaN.

    Raises:
        OptionError: an option outside its range or choices; a position named twice; a place that
            no pair has; a metric of several numbers, or one that no record can name.
        SiteError: a model without attention heads; nodes that the model does not have or that
            cannot send or receive, all at once; keys or values asked for per query head where
            groups share them; a sender without an additive write (`heads+mlps`); or when none of
            the edges asked for exists.
        PromptError: pairs that do not align, whose answers begin with the same token, positions or
            places that a prompt does not have, or two that are one token of it; all offenders at
            once, before the first forward pass.
        ModelError: blocks that cannot be run with their attention held.
        Cancelled: when `progress` asked to stop.

    Differs from the papers: the IOI code patches at the last position unless told otherwise, here
    `all` is the default (the same for `logits`, which read the last position only). Heads are held
    by their outputs, which equals holding their queries, keys and values. What a receiver's input
    does is worked out by its own block; values equal those of three whole runs to rounding.
    """
    started = time.time()
    require_heads(model)
    senders, receivers = plain_nodes(senders), plain_nodes(receivers)
    positions = engine.plain_positions(positions)
    options = {name: value for name, value in locals().items() if name not in HINTS}
    engine.check_whole("max_batch", max_batch, at_least=1, optional=True)
    prompts = as_prompt_set(pairs, kind="pair")
    plan = prepare(
        model,
        prompts,
        senders=senders,
        receivers=receivers,
        freeze=freeze,
        direction=direction,
        ln=ln,
        positions=positions,
        metric=metric,
    )
    checks = engine.verify(model)
    edges = proven_edges(model, plan)

    def dataset(original: np.ndarray, new: np.ndarray, patched: np.ndarray) -> xr.Dataset:
        """Arrange readings; called with those so far for a partial picture, and at the end."""
        about: dict[str, str] = {"freeze": freeze, "ln": ln, "direction": direction}
        if model.n_heads != model.n_kv_heads:
            about["kv_heads"] = (
                f"receivers k and v are key and value heads, each shared by "
                f"{(model.n_heads or 0) // (model.n_kv_heads or 1)} query heads"
            )
        result = new_result(
            _variables(direction, metric, edges, original, new, patched),
            _coordinates(prompts, plan.senders, plan.receivers),
            method="path_patch",
            version=1,
            model=model,
            prompts=prompts,
            options=options,
            seed=None,
            started=started,
            checks={"verify": checks.summary()},
        )
        return result.assign_attrs(about)

    def report(step: Progress, *so_far: np.ndarray) -> None:
        if progress is not None:
            progress(Progress(step.done, step.total, step.unit, dataset(*so_far)))

    readings = engine.run_paths(
        model,
        plan.prompts(),
        plan.senders,
        plan.receivers,
        freeze=freeze,
        ln=ln,
        read=metric,
        max_batch=max_batch,
        report=None if progress is None else report,
        journal=journal,
    )
    result = dataset(readings.original, readings.new, readings.patched)
    return result.assign_attrs(rows=readings.rows)


# --- the result -----------------------------------------------------------------------------------


def _variables(
    direction: str,
    metric: str | Metric,
    edges: np.ndarray,
    original: np.ndarray,
    new: np.ndarray,
    patched: np.ndarray,
) -> dict[str, Any]:
    cell = ("prompt", "sender", "receiver")
    units = {"units": units_of(metric)}
    effect = patched - original[:, None, None]
    clean, corrupted = (original, new) if direction == "noising" else (new, original)
    relative = {"units": "fraction of the original run's mean metric"}
    return {
        "effect": (cell, effect, units),
        "patched": (cell, patched, units),
        "relative_effect": (cell[1:], _relative(patched, original), relative),
        "valid": (cell[1:], edges.any(0)),
        "clean_metric": ("prompt", clean, units),
        "corrupted_metric": ("prompt", corrupted, units),
    }


def _relative(patched: np.ndarray, original: np.ndarray) -> np.ndarray:
    """Return (mean patched - mean original) / mean original, over prompts that have the edge."""
    there = ~np.isnan(patched)
    before = np.where(there, original[:, None, None].astype(np.float64), 0).sum(0)
    after = np.where(there, patched.astype(np.float64), 0).sum(0)
    with np.errstate(invalid="ignore", divide="ignore"):
        relative: np.ndarray = (after - before) / before
    return np.where(np.isfinite(relative), relative, np.nan).astype(np.float32)


def _coordinates(
    prompts: PromptSet[PromptPair], senders: Sequence[Node], receivers: Sequence[Node]
) -> dict[str, Any]:
    return {
        "prompt": list(prompts.labels),
        "clean_prompt": ("prompt", [pair.clean for pair in prompts]),
        "corrupted_prompt": ("prompt", [pair.corrupted for pair in prompts]),
        **_node_coordinates("sender", senders),
        **_node_coordinates("receiver", receivers),
    }


def _node_coordinates(axis: str, nodes: Sequence[Node]) -> dict[str, Any]:
    def number(node: Node, name: str) -> int:
        """Return what all sites of a node agree on, else -1."""
        values = {getattr(site, name) for site in node}
        value = values.pop() if len(values) == 1 else None
        return -1 if value is None else int(value)

    receiver = axis == "receiver"
    return {
        axis: [label_of(node, receiver=receiver) for node in nodes],
        f"{axis}_kind": (axis, [kind_of(node, receiver=receiver) for node in nodes]),
        f"{axis}_layer": (axis, [number(node, "layer") for node in nodes]),
        f"{axis}_head": (axis, [number(node, "head") for node in nodes]),
        f"{axis}_pos": (axis, [number(node, "pos") for node in nodes]),
    }
