"""Each case under an edit of its own, as single edits are published (`evaluate_each_edit`)."""

import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import xarray as xr

from mechlab.errors import OptionError
from mechlab.methods.evaluation.drift import prediction_drift
from mechlab.methods.evaluation.evaluate import check_options
from mechlab.methods.evaluation.generating import Generations, text_variables
from mechlab.methods.evaluation.measures import Protocol as Measured
from mechlab.methods.evaluation.scoring import Score, score_continuations
from mechlab.methods.evaluation.table import Table, check_objects
from mechlab.progress import Progress, ProgressCallback
from mechlab.prompts import EditCase, EditRequest, PromptSet, as_prompt_set
from mechlab.results import new_result

if TYPE_CHECKING:
    from mechlab.models import Model

__all__ = ["evaluate_each_edit"]


class Applicable(Protocol):
    """What can be put in force, such as `ml.Edit`."""

    @property
    def digest(self) -> str:
        """Sha256 of the change."""
        ...

    def applied(self, model: "Model") -> AbstractContextManager[Any]:
        """Put it in force for the length of a `with` block."""
        ...


def evaluate_each_edit(
    model: "Model",
    cases: PromptSet[Any] | Sequence[EditCase] | EditCase,
    edits: Callable[[EditRequest], Applicable] | Sequence[Applicable],
    *,
    protocol: Measured = "counterfact",
    generation_length: int = 0,
    generation_top_k: int = 5,
    seed: int = 0,
    reference: xr.Dataset | None = None,
    max_batch: int | None = None,
    progress: ProgressCallback | None = None,
) -> xr.Dataset:
    """Evaluate each case with its own edit in force, and no other one.

    So single edits are measured: the model is edited for the first case, evaluated and restored,
    then edited for the second, and so on.

        before = ml.evaluate_edit(model, cases)
        after = ml.evaluate_each_edit(
            model, cases, lambda request: ml.rank_one_edit(model, request, layer=3, …)
        )
        ml.edit_summary(after, before=before)

    Args:
        model: the model without these edits.
        cases: as in `evaluate_edit`.
        edits: makes the edit of a request on the unedited model; or one edit for each case.
        protocol: as there, and so are the options of generation.
        generation_length: 0 generates nothing.
        generation_top_k: so many most probable tokens are sampled from.
        seed: of the sampling.
        reference: predictions on held-out texts (`next_token_reference`); their drift is measured
            under each edit.
        max_batch: prompts that run side by side.
        progress: called after each case; may raise `Cancelled`.

    Returns:
        The Dataset of `evaluate_edit`, with `drift` of (case) besides: the mean KL(reference ‖ now)
        over all positions of the held-out texts, in nats, NaN without a reference. Coordinate
        `edit_digest` of (case) is that of the case's edit.

    Raises:
        OptionError, PromptError, ModelError: as `evaluate_edit`, before the first edit is made; an
            edit for each case is missing; and whatever making an edit raises.
        Cancelled: when `progress` asked to stop.
    """
    started = time.time()
    options = {
        "protocol": protocol, "generation_length": generation_length,
        "generation_top_k": generation_top_k, "seed": seed,
    }  # fmt: skip
    check_options(model, protocol, generation_length, generation_top_k, seed, max_batch)
    given = as_prompt_set(cases, kind="edit")
    check_objects(given, protocol)
    make = _maker(edits, given)
    how, table = Generations(generation_length, generation_top_k, seed), Table(given)
    how.check(model, given)
    model.answer_tokens(table.prompts, table.objects, answer="full")  # all offenders at once
    scores: list[Score] = []
    written, digests, moved = [], [], np.full(len(given), np.nan)
    for number, case in enumerate(given):
        edit = make(number)
        one = Table(PromptSet((case,)))
        with edit.applied(model):
            scores += score_continuations(model, one.prompts, one.objects, max_batch=max_batch)
            written.append(how.write(model, [case], None))
            if reference is not None:
                drift = prediction_drift(model, reference, max_batch=max_batch)
                moved[number] = float(drift.kl.mean())
        digests.append(edit.digest)
        if progress is not None:
            progress(Progress(number + 1, len(given), "cases"))
    return new_result(
        table.variables(scores, protocol)
        | text_variables(given, written, table.width)
        | {"drift": ("case", moved, {"units": "nats"})},
        table.coordinates(scores) | {"edit_digest": ("case", digests)},
        method="evaluate_each_edit", version=1, model=model, prompts=given, options=options,
        seed=seed, started=started,
    )  # fmt: skip


def _maker(
    edits: Callable[[EditRequest], Applicable] | Sequence[Applicable], cases: PromptSet[Any]
) -> Callable[[int], Applicable]:
    """Return what gives the edit of each case.

    Raises:
        OptionError: neither a function nor as many edits as cases.
    """
    if callable(edits):
        return lambda number: edits(cases[number].request)
    if not isinstance(edits, Sequence) or len(edits) != len(cases):
        count = len(edits) if isinstance(edits, Sequence) else type(edits).__name__
        raise OptionError(
            f"edits: {count} for {len(cases)} cases. Allowed: a function from a request to its "
            "edit, or one edit for each case. To evaluate all cases under one edit, call "
            "evaluate_edit in its `with` block."
        )
    return lambda number: edits[number]
