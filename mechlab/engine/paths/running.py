"""All senders to all receivers, group by group of prompts, chunk by chunk of senders.

1. Both runs of a group of prompts, once.
2. A stream carries what each sender changes to the blocks of the receivers (`streams`).
3. Jobs tell what the receivers make of it (`receivers`, `arrivals`).
4. The last pass runs one row per edge from the receiver's block on (`tails`). Receivers that are
   set together in several blocks go through `engine.run` as inserted values instead.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from mechlab.engine.batching import rows_that_fit
from mechlab.engine.forward import run_bases, tokenize_bases
from mechlab.engine.one_pass import in_one_pass
from mechlab.engine.paths.chunks import Chunk
from mechlab.engine.paths.edges import Node, touched_positions
from mechlab.engine.paths.plan import Freeze, Ledger, PathPlan, PathPrompt, Report
from mechlab.engine.paths.receivers import Norms
from mechlab.engine.paths.streams import PairRuns, StreamRow
from mechlab.engine.paths.tails import ReadOut
from mechlab.engine.rows import Base, check_rows, positions_of
from mechlab.engine.verify import require_proven, verify
from mechlab.errors import ModelError
from mechlab.hooks import Place
from mechlab.metrics import Metric, named_metric
from mechlab.progress import Journal

if TYPE_CHECKING:
    from mechlab.models import Model

__all__ = ["PathReadings", "run_paths"]

GROUP_BYTES = 2**30
"""Memory for what is kept of the base runs of one group of prompts."""
PAIRS_AT_ONCE = 32


@dataclass(frozen=True)
class PathReadings:
    """What a call measured.

    Attributes:
        original, new: metric of the two runs, `[prompt]`.
        patched: metric after one path was patched, `[prompt, sender, receiver]`; NaN where the edge
            does not exist.
        rows: rows of the last pass that were run; the other edges needed none.
    """

    original: np.ndarray
    new: np.ndarray
    patched: np.ndarray
    rows: int


def run_paths(
    model: "Model",
    prompts: Sequence[PathPrompt],
    senders: Sequence[Node],
    receivers: Sequence[Node],
    *,
    freeze: Freeze,
    ln: Norms = "recompute",
    read: str | Metric = "logit_diff",
    max_batch: int | None = None,
    report: Report | None = None,
    journal: Journal | None = None,
) -> PathReadings:
    """Patch every path from a sender to a receiver, and read one number from each.

    Args:
        model: an attention model on which the engine's fast runs are proven.
        prompts: pairs of prompts.
        senders: nodes that take their values from the new run.
        receivers: nodes that alone see the change; `()` is the final residual.
        freeze: whether MLPs between sender and receiver are held as well.
        ln: whether the receiver's norm is recomputed on the changed residual or keeps its scale.
        read: a metric's name, or a metric function.
        max_batch: upper bound on rows per batch.
        report: called between batches with what is known; may raise `Cancelled`.
        journal: where finished batches are kept.

    Raises:
        SiteError: sites that are not proven, or heads without an additive write.
        ModelError: a model whose blocks cannot be run with their attention held.
    """
    _require_support(model, senders, receivers)
    pairs = [(Base(prompt.original), Base(prompt.new)) for prompt in prompts]
    tokens = [tokenize_bases(model, pair).tokens.tolist() for pair in pairs]
    plan = PathPlan(
        model,
        prompts,
        senders,
        receivers,
        freeze,
        ln,
        read,
        max_batch,
        lengths=[len(original) for original, _ in tokens],
        differs=[
            _first_difference(original, new, prompt)
            for (original, new), prompt in zip(tokens, prompts, strict=True)
        ],
    )
    new = [Base(prompt.new, prompt.changes) for prompt in prompts]
    check_rows(model, new, [], plan.lengths, {})
    ledger = Ledger(plan, report, journal)
    with model.lock, torch.no_grad(), in_one_pass(model):
        for group in _groups(plan):
            _run_group(ledger, group)
    return PathReadings(ledger.original, ledger.new, ledger.patched, ledger.rows)


def _require_support(model: "Model", senders: Sequence[Node], receivers: Sequence[Node]) -> None:
    checks = verify(model)
    names = {site.name for node in (*senders, *receivers) for site in node} | {"resid_pre", "z"}
    names |= {"attn_out"} if any(site.name == "z" for node in senders for site in node) else set()
    if any(site.name != "mlp_out" for node in receivers for site in node):
        names |= {"q", "k", "v"}
    require_proven(model, sorted(names))
    if not checks.padding_exact:
        dtype = str(model.dtype).removeprefix("torch.")
        other = "" if model.dtype == torch.float32 else ", or this one in float32"
        raise ModelError(
            f"paths of {model.name} ({model.family}) cannot be patched in {dtype}: left padding "
            "changes its numbers there, and the engine is not used where one of its checks fails."
            f"\n  Allowed: models that pass them{other}.\n"
            f"  See `mechlab models check {model.name}`; activation patching works without them."
        )
    if not (checks.engine_agrees and checks.resumes_inside):
        raise ModelError(
            f"paths of {model.name} ({model.family}) cannot be patched: its blocks could not be "
            "proven to run with their attention held.\n  Allowed: models that pass the checks of "
            "the engine and of resuming inside a block.\n  See `mechlab models check "
            f"{model.name}`; activation patching works without them."
        )


def _first_difference(a: Sequence[int], b: Sequence[int], prompt: PathPrompt) -> int:
    tokens = next((i for i, (x, y) in enumerate(zip(a, b, strict=True)) if x != y), len(a))
    return min([tokens, *(positions_of(step)[0] for step in prompt.changes)])


def _groups(plan: PathPlan) -> Iterator[list[int]]:
    """Yield prompts of one length, as many as memory allows."""
    by_length: dict[int, list[int]] = {}
    for index, length in enumerate(plan.lengths):
        by_length.setdefault(length, []).append(index)
    model = plan.model
    kept = len(plan.places()) + 4 * (model.n_layers + 1)  # residuals, head outputs, keys, values
    for length, members in by_length.items():
        size = 2 * kept * length * model.d_model * max(4, model.dtype.itemsize)
        step = max(1, min(PAIRS_AT_ONCE, GROUP_BYTES // size))
        yield from (members[i : i + step] for i in range(0, len(members), step))


def _run_group(ledger: Ledger, group: Sequence[int]) -> None:
    """Run one group of prompts: both base runs, then chunk after chunk of senders."""
    plan = ledger.plan
    pairs = _pair_runs(plan, group)
    answers = [plan.prompts[i].answers for i in group]
    read_out = ReadOut(pairs, named_metric(plan.read), answers, plan.ln)
    ledger.begin(group, read_out.bases[: pairs.n], read_out.bases[pairs.n :])
    rows = _rows(plan, group)
    wide = pairs.width if len(plan.final) < len(plan.receivers) else 1
    step = rows_that_fit(plan.model, wide, plan.max_batch)
    even = -(-len(rows) // max(1, -(-len(rows) // step)))
    for start in range(0, len(rows), max(1, even)):
        Chunk(ledger, group, pairs, read_out, rows[start : start + even]).run()
    ledger.finish(group)


def _pair_runs(plan: PathPlan, group: Sequence[int]) -> PairRuns:
    model = plan.model
    prompts = [plan.prompts[i] for i in group]
    bases = [Base(p.original) for p in prompts] + [Base(p.new, p.changes) for p in prompts]
    heads: list[Place] = [("z", layer) for layer in range(model.n_layers)]
    runs = run_bases(
        model,
        bases,
        range(len(bases)),
        tokenize_bases(model, bases),
        entries=range(model.n_layers + 1),
        places=[*plan.places(), *heads],
        keep_cache=any(node for node in plan.receivers),
    )
    return PairRuns(model, runs, len(group))


def _rows(plan: PathPlan, group: Sequence[int]) -> list[StreamRow]:
    """Return the rows of pairs and senders that change something that a receiver reads."""
    found: list[StreamRow] = []
    for pair, index in enumerate(group):
        where, positions = plan.positions_read(index), plan.prompts[index].positions
        for label in plan.edges[index].any(-1).nonzero()[0].tolist():
            writes = []
            for site in plan.senders[label]:
                touched = touched_positions(site, positions, plan.lengths[index])
                if here := tuple(pos for pos in touched if pos in where):
                    writes.append((site, here))
            if writes:
                found.append(StreamRow(pair, tuple(writes), label))
    return found
