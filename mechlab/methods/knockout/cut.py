"""`knockout`: cut attention edges between groups of tokens in windows of layers."""

import inspect
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import xarray as xr

from mechlab import engine
from mechlab.axes import Head
from mechlab.engine import Base, Row, default_window, window_layers
from mechlab.engine.options import HINTS
from mechlab.errors import OptionError, PromptError
from mechlab.hooks import Block
from mechlab.methods.knockout.groups import named_groups, plain_groups, resolve
from mechlab.metrics import Metric, named_metric, units_of
from mechlab.models import Scored, chosen_heads, chosen_layers, scored_prompts
from mechlab.progress import Journal, ProgressCallback
from mechlab.prompts import Fact, PromptPair, PromptSet, as_prompt_set
from mechlab.results import analysis, new_result

if TYPE_CHECKING:
    from mechlab.models import Model

__all__ = ["knockout"]

Mode = Literal["mask", "zero"]
Group = str | Sequence[int] | Sequence[Sequence[int]]
Groups = str | Sequence[str] | Sequence[int] | Mapping[str, Group]
SMALLEST = 1e-12


@dataclass(frozen=True)
class _Plan:
    """A knockout, checked.

    Attributes:
        sources: labels of the groups of keys.
        edges: per prompt the query positions, and the key positions per group.
        centres: centre layers.
        windows: layers cut together, per centre.
        heads: heads cut in each layer; a layer that is missing is cut in all heads.
    """

    prompts: PromptSet[Any]
    scored: Scored
    sources: tuple[str, ...]
    edges: tuple[tuple[tuple[int, ...], tuple[tuple[int, ...], ...]], ...]
    centres: tuple[int, ...]
    windows: tuple[range, ...]
    heads: dict[int, tuple[int, ...] | None]
    cut: Mode


def _prepare(
    model: "Model",
    prompts: PromptSet[Any],
    *,
    keys: Any,
    queries: Any = "last",
    cut: Mode = "mask",
    layers: Sequence[int] | None = None,
    window: int | None = None,
    heads: Sequence[Head | str] | None = None,
    metric: str | Metric = "probability",
) -> _Plan:
    """Check everything that can be checked without a forward pass."""
    engine.require_heads(model, "models with attention", "attention edges")
    engine.check_choice("cut", cut, ("mask", "zero"))
    engine.check_whole("window", window, at_least=1, optional=True)
    named_metric(metric)
    from_groups = named_groups(prompts, queries, "queries")
    to_groups = named_groups(prompts, keys, "keys")
    if len(from_groups) != 1:
        raise OptionError(f"queries={queries!r:.60}. Allowed: one group. Give one at a time.")
    centres = chosen_layers(model, layers)
    width = default_window(model.n_layers) if window is None else window
    windows = tuple(window_layers(centre, width, model.n_layers) for centre in centres)
    scored = scored_prompts(model, prompts, metric)
    ends = resolve(model, prompts, from_groups, scored.lengths)
    sources = resolve(model, prompts, to_groups, scored.lengths)
    edges = tuple(
        (next(iter(end.values())), tuple(source.values()))
        for end, source in zip(ends, sources, strict=True)
    )
    if cut == "mask":
        _refuse_blind_queries(prompts, edges, tuple(to_groups))
    by_layer = _heads_by_layer(model, heads)
    return _Plan(prompts, scored, tuple(to_groups), edges, centres, windows, by_layer, cut)


def _heads_by_layer(
    model: "Model", heads: Sequence[Head | str] | None
) -> dict[int, tuple[int, ...] | None]:
    """Return the heads to cut per layer: `None` for all, an empty tuple for none."""
    if heads is None:
        return dict.fromkeys(range(model.n_layers))
    chosen = chosen_heads(model, heads)
    if not chosen:
        raise OptionError("heads=[] names no head. Leave heads out for all of them.")
    return {n: tuple(h.head for h in chosen if h.layer == n) for n in range(model.n_layers)}


def _refuse_blind_queries(
    prompts: PromptSet[Any],
    edges: Sequence[tuple[tuple[int, ...], tuple[tuple[int, ...], ...]]],
    labels: Sequence[str],
) -> None:
    """Refuse queries that would have no key left: a softmax over nothing is undefined."""
    blind = [
        f"  #{index} {prompts[index].text!r:.60}: {label!r} are all keys of position {query}"
        for index, (queries, groups) in enumerate(edges)
        for label, keys in zip(labels, groups, strict=True)
        for query in queries
        if set(range(query + 1)) <= set(keys)
    ]
    if blind:
        raise PromptError(
            f"cut='mask' would leave {len(blind)} queries without a key, and a softmax over "
            "nothing is undefined:\n" + "\n".join(blind) + "\n  Allowed: groups that leave each "
            "query a key, itself at least. Name fewer keys or queries, or use cut='zero'."
        )


def _check_all(model: "Model", prompts: PromptSet[Any], **options: Any) -> None:
    """Check a whole set, so that the store names all offenders before it computes the first."""
    known = inspect.signature(_prepare).parameters
    _prepare(model, prompts, **{name: value for name, value in options.items() if name in known})


@analysis(
    version=1, prompt_kind="any", default_plot="lines", check=_check_all, lists=("keys", "queries")
)
def knockout(
    model: "Model",
    prompts: PromptSet[Any] | Sequence[PromptPair | Fact] | PromptPair | Fact,
    *,
    keys: Groups,
    queries: str | Sequence[int] | Mapping[str, Group] = "last",
    cut: Mode = "mask",
    layers: Sequence[int] | None = None,
    window: int | None = None,
    heads: Sequence[Head | str] | None = None,
    metric: str | Metric = "probability",
    max_batch: int | None = None,
    mode: Literal["auto", "wavefront", "packed", "plain"] = "auto",
    progress: ProgressCallback | None = None,
    journal: Journal | None = None,
) -> xr.Dataset:
    """Cut the attention from some tokens to others and measure what is left of the answer.

    Geva et al. 2023 (attention knockout); Fierro et al. (multilingual recall), whose windows are
    around 10 layers.

    Args:
        model: a decoder with attention.
        prompts: facts, or pairs, whose clean prompts are run.
        keys: groups of tokens that are no longer attended to, each an entry of the axis `source`:
            a name, a list of names, or a mapping from labels to names or lists of positions.
            Names: `last`, `all`, `all_before` (all but the last token), `bos`; `answer` (where it
            stands in the prompt), and `wrong_answer` of pairs; `subject`, `first_subject`,
            `last_subject` and `not_subject` (without last token and beginning of sequence) of
            facts; the `places` of pairs. Positions are whole numbers, negative ones counted from
            the end; in a mapping also one list per prompt, as `ml.prompts.named_positions` gives.
        queries: the one group that no longer attends to them.
        cut: `mask` sets scores to minus infinity before the softmax, so that the other keys share
            the weight; `zero` sets weights to 0 after it, so that rows sum to less. Results of the
            two are not comparable.
        layers: centre layers; all by default.
        window: layers cut together around each centre (10 around l: l - 5 to l + 4), clipped at
            the ends. Default a fifth of the layers, at least 1.
        heads: cut in these query heads only, in the layers of the window; all by default.
        metric: a metric's name or a function; `logit_diff` needs pairs.
        max_batch: upper bound on rows per batch; changes no number beyond rounding.
        mode: how the engine runs; `plain` is the slow reference.
        progress: called between batches with a partial result; may raise `Cancelled`.
        journal: keeps finished batches, so that a killed run resumes.

    Returns:
        Dataset with `effect[prompt, layer, source]`, the metric of the cut minus that of the
        unpatched run, `patched` of the same axes and `unpatched[prompt]`, in units of the metric;
        `relative_change[prompt, layer, source]`, effect / unpatched, the published measure when the
        metric is a probability (NaN where the unpatched metric is 0). Coordinates:
        `window_start`, `window_stop` (excluded) of the layer, `key_positions` of (prompt, source)
        and `query_positions` of the prompt, as text.

    Raises:
        OptionError: an option outside its range or choices.
        SiteError: a model without attention, layers or heads it lacks, or unproven sites.
        PromptError: prompts that cannot be tokenised or scored, that lack a group, or of which a
            query would be left without a key; all offenders at once.
        Cancelled: when `progress` asked to stop.

    Differs from the papers: windows default to a fifth of the layers; the first token of the answer
    is scored.
    """
    started, keys, queries = time.time(), plain_groups(keys), plain_groups(queries)
    options = {name: value for name, value in locals().items() if name not in HINTS}
    engine.check_choice("mode", mode, engine.MODES)
    engine.check_whole("max_batch", max_batch, at_least=1, optional=True)
    chosen = as_prompt_set(prompts, kind="any")
    plan = _prepare(
        model,
        chosen,
        keys=keys,
        queries=queries,
        cut=cut,
        layers=layers,
        window=window,
        heads=heads,
        metric=metric,
    )
    checks = engine.verify(model)
    engine.require_proven(model, ["scores" if cut == "mask" else "pattern"])

    def dataset(read_bases: np.ndarray, read_rows: np.ndarray) -> xr.Dataset:
        """Arrange readings; called with the rows so far for a partial picture, and at the end."""
        return new_result(
            _variables(plan, read_bases, read_rows, units_of(metric)),
            _coordinates(plan),
            method="knockout",
            version=1,
            model=model,
            prompts=chosen,
            options=options,
            seed=None,
            started=started,
            checks={"verify": checks.summary()},
        )

    readings = engine.run(
        model,
        [Base(text) for text in plan.scored.texts],
        _rows(plan),
        read=metric,
        answers=plan.scored.answers,
        mode=mode,
        max_batch=max_batch,
        progress=progress,
        partial=dataset,
        journal=journal,
    )
    return dataset(readings.bases, readings.rows).assign_attrs(engine_mode=readings.mode)


def _rows(plan: _Plan) -> list[Row]:
    """Return rows by prompt, window and group of keys; without an edge a row changes nothing."""
    rows = []
    for base, (queries, groups) in enumerate(plan.edges):
        for layers in plan.windows:
            for keys in groups:
                steps = [
                    Block(layer, queries, keys, plan.heads[layer], plan.cut)
                    for layer in layers
                    if queries and keys and plan.heads[layer] != ()
                ]
                rows.append(Row(base, tuple(steps)))
    return rows


def _variables(plan: _Plan, unpatched: np.ndarray, rows: np.ndarray, units: str) -> dict[str, Any]:
    patched = rows.reshape(len(plan.prompts), len(plan.centres), len(plan.sources))
    start = unpatched[:, None, None]
    effect = patched - start
    relative = effect / np.where(np.abs(start) < SMALLEST, np.nan, start)
    cell, attributes = ("prompt", "layer", "source"), {"units": units}
    return {
        "effect": (cell, effect, attributes),
        "relative_change": (cell, relative, {"units": "fraction of the unpatched metric"}),
        "patched": (cell, patched, attributes),
        "unpatched": ("prompt", unpatched, attributes),
    }


def _coordinates(plan: _Plan) -> dict[str, Any]:
    return {
        "prompt": list(plan.prompts.labels),
        "layer": list(plan.centres),
        "source": list(plan.sources),
        "window_start": ("layer", [window.start for window in plan.windows]),
        "window_stop": ("layer", [window.stop for window in plan.windows]),
        "prompt_text": ("prompt", list(plan.scored.texts)),
        "query_positions": ("prompt", [_listed(queries) for queries, _ in plan.edges]),
        "key_positions": (
            ("prompt", "source"),
            [[_listed(k) for k in groups] for _, groups in plan.edges],
        ),
    }


def _listed(positions: Sequence[int]) -> str:
    return " ".join(map(str, positions))
