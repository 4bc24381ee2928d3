"""Evaluating many edits through the store: what is finished is kept, a killed run goes on."""

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mechlab.cli.editing.effects import Compared
from mechlab.errors import OptionError

if TYPE_CHECKING:
    import xarray as xr

    from mechlab.cli.editing.evaluation_request import EvaluationWork
    from mechlab.cli.editing.plan import EditPlan
    from mechlab.methods import Edit
    from mechlab.models import Model
    from mechlab.progress import Journal, ProgressCallback
    from mechlab.prompts import EditRequest, PromptSet
    from mechlab.store import Store

__all__ = ["Done", "Evaluation"]


@dataclass(frozen=True)
class Done(Compared):
    """A finished evaluation.

    Attributes:
        drift: result of `prediction_drift` where all edits are in force at once.
        run: id of the stored result.
    """

    drift: "xr.Dataset | None"
    run: str


@dataclass(frozen=True)
class Evaluation:
    """What is evaluated, on a loaded model."""

    store: "Store"
    model: "Model"
    cases: "PromptSet[Any]"
    plan: "EditPlan"
    loaded: "Edit | None"
    work: "EvaluationWork"
    options: Mapping[str, Any] = field(init=False)

    def __post_init__(self) -> None:
        """Complete the options of `evaluate_edit`."""
        from mechlab.cli.editing.effects import protocol_of

        protocol = self.work.protocol or protocol_of(self.cases)
        options = {"protocol": protocol, "generation_length": self.work.generation_length}
        object.__setattr__(self, "options", options)

    @property
    def together(self) -> bool:
        """Whether there is one edit, in force for all cases."""
        return self.work.together or self.loaded is not None

    def check(self) -> None:
        """Refuse what the evaluation would refuse, before edits are made.

        Raises:
            OptionError, PromptError: as `evaluate_edit`.
        """
        from mechlab.methods.evaluation.evaluate import check_options
        from mechlab.methods.evaluation.table import check_objects

        if self.work.drift < 0:
            raise OptionError(f"--drift {self.work.drift}. Allowed: texts from 0. Correct it.")
        length = self.work.generation_length
        check_options(self.model, str(self.options["protocol"]), length, 5, 0, None)
        check_objects(self.cases, str(self.options["protocol"]))

    @property
    def source(self) -> dict[str, Any]:
        """What an evaluation of single edits is kept under."""
        how = {**self.options, "edit": self.plan.to_json(), "drift_texts": self.work.drift}
        return {
            "method": "evaluate_each_edit",
            "method_version": 1,
            "model": self.model.fingerprint,
            "options": how,
            "prompts": self.cases.digest,
        }

    def run(self, progress: "ProgressCallback | None" = None) -> Done:
        """Return the evaluation, computing what is not stored."""
        from mechlab.methods import evaluate_edit

        before = self.store.run(evaluate_edit, self.model, self.cases, **self.options)
        return self._at_once(before, progress) if self.together else self._each(before, progress)

    def _at_once(self, before: "xr.Dataset", progress: "ProgressCallback | None") -> Done:
        from mechlab.methods import evaluate_edit
        from mechlab.methods.evaluation import prediction_drift

        requests = [case.request for case in self.cases]
        edit = self.loaded or self.plan.stored(self.store, self.model, requests, progress)
        reference = self._reference()
        with edit.applied(self.model):
            after = self.store.run(evaluate_edit, self.model, self.cases, **self.options)
            key = self.store.key(evaluate_edit, self.model, self.cases, **self.options)
            drift = None if reference is None else prediction_drift(self.model, reference)
        return Done(before, after, drift, key[:12])

    def _each(self, before: "xr.Dataset", progress: "ProgressCallback | None") -> Done:
        from mechlab.canonical import digest
        from mechlab.methods.evaluation import evaluate_each_edit

        source = self.source
        after = self.store.kept(source)
        if after is None:
            statistics = self.plan.count(self.store, self.model, progress)
            journal = self.store.journal(source)

            def made(request: "EditRequest") -> "Edit":
                return resumed(
                    journal,
                    digest(request.to_json()),
                    lambda: self.plan.make(self.model, [request], statistics),
                )

            after = evaluate_each_edit(
                self.model, self.cases, made, reference=self._reference(), progress=progress,
                **self.options,
            )  # fmt: skip
            self.store.keep(source, after, name=f"{len(self.cases)} edits, {self.cases.name}")
        return Done(before, after, None, digest(source)[:12])

    def _reference(self) -> "xr.Dataset | None":
        from mechlab.cli.editing.effects import held_out_texts
        from mechlab.methods.evaluation import next_token_reference

        corpus = self.plan.statistics.get("corpus", "atlas")
        texts = held_out_texts(corpus, self.work.drift, self.model)
        return next_token_reference(self.model, texts) if texts else None


def resumed(journal: "Journal", key: str, make: Any) -> "Edit":
    """Return the edit that a killed run had made already, or make it and note it down."""
    from mechlab.errors import StoreError
    from mechlab.methods import Edit

    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "edit.safetensors"
        held = journal.get(key)
        if held is not None:
            file.write_bytes(held.tobytes())
            try:
                return Edit.load(file)
            except StoreError:  # written by a version that kept edits in another form
                pass
        edit: Edit = make()
        journal.put(key, np.frombuffer(edit.save(file).read_bytes(), dtype=np.uint8))
    return edit
