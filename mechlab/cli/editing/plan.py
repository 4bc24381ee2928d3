"""How an edit is made: the method, its options and its key statistics, as plain data.

A plan is checked before anything runs. What it makes is kept in the store, as are the statistics.
"""

import inspect
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from mechlab.cli.editing.usual import note_foreign_corpus, usual_options
from mechlab.cli.options import check_known
from mechlab.errors import OptionError

if TYPE_CHECKING:
    from mechlab.methods import Edit, KeyStatistics
    from mechlab.models import Model
    from mechlab.progress import ProgressCallback
    from mechlab.prompts import EditRequest
    from mechlab.store import Store

__all__ = ["METHODS", "STATISTICS", "EditPlan", "check_method"]

METHODS = {"rank-one": "rank_one_edit", "memit": "memit", "fine-tune": "fine_tune_edit"}
"""What `--method` takes, and the function behind each."""

STATISTICS = ("corpus", "tokens", "ridge")
"""Options of the key statistics that an edit can name."""

_OURS = {"model", "request", "requests", "key_statistics", "progress"}


@dataclass(frozen=True)
class EditPlan:
    """How to make an edit."""

    method: str
    """One of `METHODS`."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """Options of that function; with `layer` (`layers` for memit) once completed."""
    statistics: Mapping[str, Any] = field(default_factory=dict)
    """Options of `stored_key_statistics`."""

    def completed(self, model: "Model") -> "EditPlan":
        """Return the plan with the model's usual settings where nothing was given."""
        given = {name: value for name, value in self.options.items() if value is not None}
        if isinstance(given.get("layers"), int):
            given["layers"] = (given["layers"],)
        return replace(self, options={**usual_options(model, self.method), **given})

    @property
    def layers(self) -> tuple[int, ...]:
        """The layers to be edited, of a completed plan."""
        given = self.options["layers" if self.method == "memit" else "layer"]
        return tuple(given) if isinstance(given, list | tuple) else (given,)

    @property
    def needs_statistics(self) -> bool:
        """Whether the method asks for key statistics."""
        return self.method != "fine-tune"

    def to_json(self) -> dict[str, Any]:
        """Return what decides the edit: as part of a run's options, a plan is keyed by it."""
        return {
            "method": METHODS[self.method],
            "options": dict(self.options),
            "key_statistics": self._source() if self.needs_statistics else None,
        }

    def _source(self) -> dict[str, Any]:
        from mechlab.methods.editing.corpora import corpus_source

        rest = {name: value for name, value in self.statistics.items() if name != "corpus"}
        return {**corpus_source(self.statistics.get("corpus", "atlas"), 0), **rest}

    # --- refusing ---------------------------------------------------------------------------------

    def check(self, model: "Model", requests: "Sequence[EditRequest]") -> None:
        """Refuse whatever can be refused before the model runs, all options at once.

        Raises:
            OptionError: options out of range, or that the method does not have.
            PromptError: requests that cannot be tokenised, or merge with their old object.
            ModelError: processed weights, or a projection of an unknown kind.
        """
        from mechlab.methods.editing.corpora import check_corpus
        from mechlab.methods.editing.modules import check_layers, projection
        from mechlab.methods.editing.rank_one import collect
        from mechlab.methods.editing.rows import check_targets
        from mechlab.methods.editing.sentences import check_sentences

        check_method(self.method, self.options)
        site = self.options.get("site")
        collect(
            (
                lambda: check_layers(model, self.layers),
                lambda: projection(model, self.layers[0], site),
                lambda: check_corpus(self.statistics.get("corpus", "atlas")),
                lambda: _check_counts(self.statistics),
                lambda: _check_numbers(self.options),
                lambda: check_sentences(model, requests, self.options),
            ),
            [],
        )
        check_targets(model, list(requests))
        if self.needs_statistics:
            note_foreign_corpus(model, self.statistics)

    # --- making -----------------------------------------------------------------------------------

    def count(
        self, store: "Store", model: "Model", progress: "ProgressCallback | None" = None
    ) -> "KeyStatistics | None":
        """Return the key statistics, from the store where they are; `None` when none are needed."""
        from mechlab.methods import stored_key_statistics

        if not self.needs_statistics:
            return None
        site = self.options.get("site")
        return stored_key_statistics(
            store, model, layer=self.layers, site=site, progress=progress, **self.statistics
        )

    def source(self, model: "Model", requests: "Sequence[EditRequest]") -> dict[str, Any]:
        """Return what an edit of these requests is kept under, edits in force included."""
        from mechlab.canonical import digest

        return {
            "method": METHODS[self.method],
            "method_version": 1,
            "model": model.fingerprint,
            "options": self.to_json(),
            "prompts": digest([request.to_json() for request in requests]),
        }

    def make(
        self,
        model: "Model",
        requests: "Sequence[EditRequest]",
        statistics: "KeyStatistics | None",
        progress: "ProgressCallback | None" = None,
    ) -> "Edit":
        """Compute one edit: memit of all requests, the other methods of the only one."""
        from mechlab import methods

        function: Callable[..., Edit] = getattr(methods, METHODS[self.method])
        options = dict(self.options)
        if self.needs_statistics:
            options["key_statistics"] = statistics
        if self.method == "memit":
            return function(model, list(requests), progress=progress, **options)
        (request,) = requests
        return function(model, request, **options)

    def stored(
        self,
        store: "Store",
        model: "Model",
        requests: "Sequence[EditRequest]",
        progress: "ProgressCallback | None" = None,
    ) -> "Edit":
        """Return the edit of all requests, from the store or computed and kept.

        Methods that write one association are applied one after the other, each edit made on top
        of those before it; what comes back is all of them as one.
        """
        statistics = self.count(store, model, progress)  # of the model without edits
        if self.method == "memit" or len(requests) == 1:
            return self._kept(store, model, requests, statistics, progress)
        parts: list[Edit] = []
        with ExitStack() as stack:
            for request in requests:
                part = self._kept(store, model, [request], statistics, progress)
                stack.enter_context(part.applied(model, on_top=bool(parts)))
                parts.append(part)
        return joined(parts)

    def _kept(
        self,
        store: "Store",
        model: "Model",
        requests: "Sequence[EditRequest]",
        statistics: "KeyStatistics | None",
        progress: "ProgressCallback | None",
    ) -> "Edit":
        from mechlab.methods import Edit

        source = self.source(model, requests)
        held = store.kept(source)
        if held is not None:
            return Edit.from_dataset(held)
        edit = self.make(model, requests, statistics, progress)
        more = f" and {len(requests) - 1} more" if len(requests) > 1 else ""
        store.keep(source, edit.to_dataset(), name=f"{requests[0].label}{more}")
        return edit


def joined(edits: "Sequence[Edit]") -> "Edit":
    """Return edits that were made one on top of the other as one that does all of it."""
    from mechlab.methods import Edit

    first = edits[0]
    return Edit(
        tuple(delta for edit in edits for delta in edit.deltas),
        tuple(request for edit in edits for request in edit.requests),
        first.fingerprint,
        first.made_on,
        _joined_details([edit.details for edit in edits]),
    )


def _joined_details(parts: Sequence[Any]) -> Any:
    import xarray as xr

    along = {name: [dim for dim in ("edit", "delta") if dim in parts[0][name].dims]
             for name in parts[0].variables}  # fmt: skip
    held = {
        name: xr.concat([part[name].variable for part in parts], dims[0])
        if dims
        else parts[0][name].variable
        for name, dims in along.items()
    }
    coords = {name: held.pop(name) for name in parts[0].coords}
    return xr.Dataset(held, coords, parts[0].attrs)


def check_method(method: str, options: Mapping[str, Any]) -> None:
    """Refuse an unknown method, and options that it does not have.

    Raises:
        OptionError: naming the method, or each of the options.
    """
    from mechlab import methods

    has = {
        word: set(inspect.signature(getattr(methods, name)).parameters) - _OURS
        for word, name in METHODS.items()
    }
    check_known(options, method, has)


def _check_counts(statistics: Mapping[str, Any]) -> None:
    from mechlab.engine import check_number, check_whole

    if wrong := sorted(set(statistics) - {*STATISTICS, "seed", "dtype", "max_length"}):
        raise OptionError(
            f"key statistics have no {', '.join(wrong)}. Allowed: {', '.join(STATISTICS)}, seed, "
            "dtype, max_length. Leave these out."
        )
    check_whole("tokens", statistics.get("tokens", 1), at_least=1)
    check_number("ridge", statistics.get("ridge", 0), at_least=0)


def _check_numbers(options: Mapping[str, Any]) -> None:
    """Check the numbers and choices of a method; those left out have defaults that are fine."""
    from mechlab.engine import check_choice, check_number, check_whole
    from mechlab.methods.editing.memit import check_weight
    from mechlab.methods.editing.rank_one import VARIANTS, collect
    from mechlab.methods.editing.recording import MODES
    from mechlab.methods.editing.values import Objective

    names = ("steps", "learning_rate", "kl_weight", "decay_weight", "clamp", "stop_loss")
    given = {name: value for name, value in options.items() if value is not None}
    collect(
        (
            lambda: Objective(**{name: given[name] for name in names if name in given}),
            lambda: check_choice("variant", given.get("variant", "r-rome"), VARIANTS),
            lambda: check_whole("seed", given.get("seed", 0), at_least=0),
            lambda: check_number("max_change", given.get("max_change", 1), at_least=0),
            lambda: check_weight(given.get("moment_weight", 1)),
            lambda: check_whole("max_batch", given.get("max_batch", 1), at_least=1),
            lambda: check_choice("mode", given.get("mode", "auto"), MODES),
        ),
        [],
    )
