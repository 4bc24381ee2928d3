"""Many associations written into several layers at once: MEMIT."""

import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from torch import Tensor

from mechlab.engine import check_choice, check_number, check_whole
from mechlab.errors import OptionError
from mechlab.methods.editing.contexts import check_contexts, memit_contexts
from mechlab.methods.editing.continuing import Started, at_entry, start
from mechlab.methods.editing.deltas import Delta
from mechlab.methods.editing.edits import Edit, unedited_fingerprint
from mechlab.methods.editing.modules import EditSite, check_layers, default_site, projection
from mechlab.methods.editing.moments import KeyStatistics
from mechlab.methods.editing.rank_one import check_statistics, collect, curve_variables
from mechlab.methods.editing.recording import MODES, efficacy, measured, runs_plain
from mechlab.methods.editing.rows import (
    TokenRow,
    as_requests,
    check_targets,
    prompt_rows,
    subject_rows,
)
from mechlab.methods.editing.solving import spread_update
from mechlab.methods.editing.values import Objective, Optimised, optimise
from mechlab.methods.editing.writing import written
from mechlab.progress import Progress, ProgressCallback
from mechlab.prompts import EditRequest

if TYPE_CHECKING:
    from mechlab.models import Model

__all__ = ["check_weight", "memit"]


def memit(
    model: "Model",
    requests: Sequence[EditRequest],
    *,
    layers: Sequence[int],
    key_statistics: KeyStatistics,
    moment_weight: float = 15_000.0,
    site: EditSite | None = None,
    contexts: Sequence[str] | None = None,
    seed: int = 0,
    steps: int = 20,
    learning_rate: float = 0.5,
    kl_weight: float = 0.0625,
    decay_weight: float = 0.5,
    clamp: float = 0.75,
    stop_loss: float = 0.05,
    kl_template: str = "{} is a",
    max_batch: int = 16,
    mode: Literal["auto", "wavefront", "plain"] = "auto",
    progress: ProgressCallback | None = None,
) -> Edit:
    """Write many associations at once, spread over several layers.

    MEMIT: Meng et al. 2023, in the form of the authors' code. For each request a residual z at the
    subject's last token after the last of the layers is optimised that makes the new object likely.
    Then layer by layer, in order, with the earlier layers already changed, the keys are read, and
    an equal part of what is still missing is added by ridge regression:
    dW = (z - residual) / (layers left) K^T (moment_weight C + K K^T)^-1, in float64.

    Args:
        model: a model with raw weights; left bitwise as found. Edits in force stay in force.
        requests: the associations.
        layers: zero-based blocks, changed in ascending order.
        key_statistics: of this model and projection, of all the layers.
        moment_weight: how many tokens of text C stands for; more of them preserve more.
        site: which projection; the architecture's default when `None`.
        contexts: texts put before the prompt, the first one empty; `None` draws 5 from the model.
            Keys are averaged with weight 1/2 for the bare prompt and 1/2 for all others together.
        seed: of that drawing.
        steps: as in `rank_one_edit`, as are the next options.
        learning_rate: of Adam.
        kl_weight: of the divergence of what follows the subject in `kl_template`.
        decay_weight: of ||delta|| / ||residual||^2.
        clamp: largest ||delta|| / ||residual||.
        stop_loss: a total loss below it ends the optimisation.
        kl_template: unrelated sentence about the subject.
        max_batch: requests that are optimised side by side; it decides no number but rounding.
        mode: as in `rank_one_edit`.
        progress: called between batches; may raise `Cancelled`.

    Returns:
        The `Edit`, one change of rank up to the number of requests per layer. Its `details` hold
        `residual_before`, `residual` z (edit, d_out), `error_before`, `error` (edit, delta), the
        norm of what is missing of z before and after each layer's change as a share of the change
        wanted, the terms of the loss (edit, step), `stopped` (edit), probabilities before and after
        as in `rank_one_edit`, `norm`, `weight_norm` (delta) and the contexts.

    Raises:
        OptionError, PromptError, ModelError: as `rank_one_edit`.

    Differs from the paper: constants are those of the authors' code. A total loss below `stop_loss`
    ends an optimisation.
    """
    started = time.time()
    asked = as_requests(requests)
    site = default_site(model) if site is None else site
    objective: list[Objective] = []
    collect(
        (
            lambda: _check_places(model, layers, site, key_statistics),
            lambda: _check_writes_residual(site),
            lambda: check_weight(moment_weight),
            lambda: check_contexts(contexts),
            lambda: check_whole("seed", seed, at_least=0),
            lambda: check_whole("max_batch", max_batch, at_least=1),
            lambda: check_choice("mode", mode, MODES),
            lambda: objective.append(
                Objective(steps, learning_rate, kl_weight, decay_weight, clamp, stop_loss)
            ),
            lambda: subject_rows(model, asked, kl_template),
        ),
        [],
    )
    check_targets(model, asked)
    options = {
        "layers": sorted(layers), "site": site, "moment_weight": moment_weight,
        "key_statistics": key_statistics.digest, "kl_template": kl_template,
        "contexts": None if contexts is None else list(contexts), **asdict(objective[0]),
    }  # fmt: skip
    with model.lock, torch.inference_mode(False):
        before = efficacy(model, asked)
        used = memit_contexts(model, seed=seed) if contexts is None else tuple(contexts)
        plain = runs_plain(model, mode)
        wanted = _Wanted(model, asked, used, max(layers), kl_template, objective[0], plain)
        wanted.optimise(max_batch, len(layers), progress)
        deltas, errors = _spread(model, wanted, sorted(layers), site, key_statistics, moment_weight,
                                 progress)  # fmt: skip
        edit = Edit(deltas, asked, unedited_fingerprint(model), model.edits)
        data = {
            "residual_before": (("edit", "d_out"), wanted.first.cpu().numpy()),
            "residual": (("edit", "d_out"), wanted.z.cpu().numpy()),
            "error_before": (("edit", "delta"), errors[:, :-1]),
            "error": (("edit", "delta"), errors[:, 1:]),
            **curve_variables(wanted.found),
        }
        return measured(
            model, edit, before, data, method="memit", options=options, contexts=used, seed=seed,
            started=started,
        )  # fmt: skip


def _check_places(
    model: "Model", layers: Sequence[int], site: str, statistics: KeyStatistics
) -> None:
    check_layers(model, layers)
    collect(
        (
            lambda: projection(model, layers[0], site),
            lambda: check_statistics(model, statistics, tuple(layers), site),
        ),
        [],
    )


def _check_writes_residual(site: str) -> None:
    if site.startswith("in_proj"):
        raise OptionError(
            f"site={site!r} does not write to the residual stream, over which memit spreads its "
            "changes. Allowed: 'down_proj', 'out_proj'. Use rank_one_edit for other projections."
        )


def check_weight(moment_weight: float) -> None:
    """Refuse a weight of the key statistics that is not above 0.

    Raises:
        OptionError: saying what was received.
    """
    check_number("moment_weight", moment_weight, at_least=0)
    if moment_weight == 0:
        raise OptionError("moment_weight=0.0. Allowed: numbers above 0. Give one of these.")


class _Wanted:
    """The residuals that the requests need after the last of the layers."""

    z: Tensor
    first: Tensor
    found: Optimised

    def __init__(
        self,
        model: "Model",
        requests: tuple[EditRequest, ...],
        contexts: tuple[str, ...],
        last: int,
        kl_template: str,
        objective: Objective,
        plain: bool,
    ) -> None:
        self.model, self.requests, self.contexts, self.last = model, requests, contexts, last
        self.objective, self.plain = objective, plain
        self.rows = prompt_rows(model, requests, contexts)
        self.still = subject_rows(model, requests, kl_template)

    def optimise(self, at_once: int, layers: int, progress: ProgressCallback | None) -> None:
        """Find z for every request, some side by side."""
        parts, firsts, n = [], [], len(self.requests)
        for begin in range(0, n, at_once):
            which = range(begin, min(begin + at_once, n))
            part, first = self._part(which)
            parts.append(part)
            firsts.append(first)
            if progress is not None:
                progress(Progress(which.stop, n * (1 + layers), "requests"))
        self.first = torch.cat(firsts).double()
        curves = {k: np.concatenate([p.curves[k] for p in parts]) for k in parts[0].curves}
        self.found = Optimised(
            torch.cat([part.delta for part in parts]),
            curves,
            np.concatenate([part.steps for part in parts]),
            tuple(reason for part in parts for reason in part.stopped),
        )
        self.z = self.first + self.found.delta.double()

    def _part(self, which: range) -> tuple[Optimised, Tensor]:
        rows = [
            replace(row, owner=row.owner - which.start)
            for row in [*self.rows, *self.still]
            if row.owner in which
        ]
        batches = start(self.model, rows, self.last + 1, plain=self.plain, at_once=len(rows))
        states = torch.cat([batch.states for batch in batches])
        bare = [i * len(self.contexts) for i in range(len(which))]
        first = states[torch.tensor(bare, device=states.device)].float()
        if states.dtype == torch.float64:
            first = states[torch.tensor(bare, device=states.device)]
        return optimise(batches, at_entry, first, self.objective), first


def _spread(
    model: "Model",
    wanted: _Wanted,
    layers: Sequence[int],
    site: str,
    statistics: KeyStatistics,
    moment_weight: float,
    progress: ProgressCallback | None,
) -> tuple[tuple[Delta, ...], Any]:
    """Return the changes, and the share of z that is missing before, between and after them."""
    n, deltas, errors = len(wanted.requests), [], []
    size = (wanted.z - wanted.first).norm(dim=-1).clamp(min=1e-300)
    prompts = [row for row in wanted.rows]
    with ExitStack() as stack:
        for index, layer in enumerate(layers):
            place = projection(model, layer, site)
            batches = _read(model, prompts, wanted.last + 1, place)
            keys, missing = _keys_and_missing(batches, wanted)
            errors.append((missing.norm(dim=-1) / size).cpu().numpy())
            moment = statistics.moment(layer).to(keys.device)
            left, right = spread_update(
                moment, keys, missing / (len(layers) - index), moment_weight
            )
            deltas.append(Delta(layer, place.site, left, right))  # type: ignore[arg-type]
            step = Edit((deltas[-1],), wanted.requests, "", model.edits)
            stack.enter_context(written(model, step.deltas, step.digest))
            if progress is not None:
                progress(Progress(n * (2 + index), n * (1 + len(layers)), "requests"))
        batches = _read(model, prompts, wanted.last + 1, None)
        _, missing = _keys_and_missing(batches, wanted)
        errors.append((missing.norm(dim=-1) / size).cpu().numpy())
    return tuple(deltas), np.stack(errors, axis=1)


def _read(model: "Model", rows: Sequence[TokenRow], entry: int, place: Any) -> list[Started]:
    """Run rows up to the subject, which is all that keys and residuals there depend on."""
    cut = [replace(row, ids=row.ids[: row.lookup + 1], targets=()) for row in rows]
    return start(model, cut, entry, reading=place, plain=True)


def _keys_and_missing(batches: Sequence[Started], wanted: _Wanted) -> tuple[Tensor, Tensor]:
    """Return the requests' keys, bare prompt and contexts half each, and z minus the residual."""
    n, m = len(wanted.requests), len(wanted.contexts)
    states = torch.cat([batch.states for batch in batches]).double().reshape(n, m, -1)
    missing = wanted.z - states[:, 0]
    if any(batch.keys is None for batch in batches):
        return missing[:, :0], missing
    keys = torch.cat([batch.keys for batch in batches]).double().reshape(n, m, -1)  # type: ignore[misc]
    if m == 1:
        return keys[:, 0], missing
    return (keys[:, 0] + keys[:, 1:].mean(1)) / 2, missing
