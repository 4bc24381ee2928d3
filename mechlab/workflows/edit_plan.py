"""How the edits of a workflow are made: checked once, contexts drawn once, kept in a journal."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from inspect import signature
from typing import TYPE_CHECKING, Any

from mechlab.engine import check_choice, check_whole
from mechlab.errors import ModelError, OptionError
from mechlab.methods.editing import (
    KeyStatistics,
    edit_settings,
    key_statistics,
    rank_one_edit,
)
from mechlab.methods.editing.contexts import rome_contexts
from mechlab.methods.editing.corpora import Corpus, check_corpus
from mechlab.methods.editing.edits import unedited_fingerprint
from mechlab.methods.editing.modules import (
    EditSite,
    Projection,
    check_layers,
    default_site,
    projection,
)
from mechlab.methods.editing.rank_one import VARIANTS, Variant, check_statistics, collect
from mechlab.methods.editing.rows import check_targets
from mechlab.methods.editing.sentences import check_sentences
from mechlab.methods.editing.values import Objective
from mechlab.prompts import EditCase, EditRequest, PromptSet
from mechlab.workflows.made_edits import MadeEdit

if TYPE_CHECKING:
    from mechlab.models import Model
    from mechlab.progress import Journal, ProgressCallback

__all__ = [
    "EditPlan",
    "check_given_statistics",
    "check_setting_names",
    "check_unedited",
    "counted",
]

_FIXED = {
    "model", "request", "requests", "layer", "layers", "key_statistics", "variant", "site", "seed",
    "mode", "progress",
}  # fmt: skip
"""What a workflow decides itself."""

_PARAMETERS = signature(rank_one_edit).parameters


@dataclass(frozen=True)
class EditPlan:
    """Everything but the request and the layer that decides a rank-one edit."""

    model: "Model"
    variant: Variant
    site: EditSite
    statistics: KeyStatistics
    contexts: tuple[str, ...]
    settings: Mapping[str, Any]
    seed: int

    @classmethod
    def make(
        cls,
        model: "Model",
        cases: PromptSet[EditCase],
        layers: Sequence[int],
        *,
        variant: Variant,
        site: EditSite | None,
        key_statistics: KeyStatistics | None,
        corpus: Corpus,
        tokens: int,
        settings: Mapping[str, Any] | None,
        seed: int,
        progress: "ProgressCallback | None",
    ) -> "EditPlan":
        """Check all options at once, then count key statistics and draw contexts where needed.

        Raises:
            OptionError, PromptError, ModelError: as `rank_one_edit`, before anything is run.
        """
        chosen = default_site(model) if site is None else site
        given = known_settings(model) if settings is None else dict(settings)
        requests = [case.request for case in cases]
        collect(
            (
                lambda: check_layers(model, layers),
                lambda: projection(model, 0, chosen),
                lambda: check_choice("variant", variant, VARIANTS),
                lambda: check_corpus(corpus),
                lambda: check_whole("tokens", tokens, at_least=1),
                lambda: check_whole("seed", seed, at_least=0),
                lambda: _check_settings(given),
                lambda: check_given_statistics(model, key_statistics, layers, chosen),
                lambda: check_sentences(model, requests, given),
            ),
            [],
        )
        check_targets(model, requests)
        found = key_statistics or counted(model, layers, corpus, tokens, seed, chosen, progress)
        contexts = given.pop("contexts", None)
        drawn = rome_contexts(model, seed=seed) if contexts is None else tuple(contexts)
        return cls(model, variant, chosen, found, drawn, given, seed)

    def place(self, layer: int) -> Projection:
        """Return the projection that is edited in a layer."""
        return projection(self.model, layer, self.site)

    def edit(self, request: EditRequest, layer: int, journal: "Journal | None" = None) -> MadeEdit:
        """Make the edit of a request on the model as it is now, or take it from the journal."""
        key = f"edit {layer} {request.to_json()} {','.join(self.model.edits)}"
        held = None if journal is None else journal.get(key)
        if held is not None:
            made_by = unedited_fingerprint(self.model)
            return MadeEdit.unpacked(held, self.place(layer), request, made_by, self.model.edits)
        made = MadeEdit.fresh(
            rank_one_edit(
                self.model, request, layer=layer, key_statistics=self.statistics, site=self.site,
                variant=self.variant, contexts=self.contexts, seed=self.seed, **self.settings,
            )
        )  # fmt: skip
        if journal is not None:
            journal.put(key, made.packed())
        return made


def known_settings(model: "Model") -> dict[str, Any]:
    """Return what is known to work on the model's shape, but for the layer."""
    return {name: value for name, value in edit_settings(model).items() if name != "layer"}


def check_unedited(model: "Model") -> None:
    """Refuse a model with edits in force: what a workflow measures "before" would not be before.

    Raises:
        ModelError: when there are any.
    """
    if model.edits:
        raise ModelError(
            f"{model.name} is edited already ({len(model.edits)} edits in force).\n"
            "  Allowed: the model as it was loaded.\n  Leave the edit's `with` block first."
        )


def check_given_statistics(
    model: "Model", statistics: object, layers: Sequence[int], site: str
) -> None:
    """Refuse key statistics of something else; none at all are counted later.

    Raises:
        OptionError: saying what does not fit.
    """
    if statistics is not None:
        check_statistics(model, statistics, tuple(layers), site)


def check_setting_names(
    settings: Mapping[str, Any], method: str, parameters: Iterable[str]
) -> None:
    """Refuse settings that a method of editing has not, or that the workflow decides.

    Raises:
        OptionError: naming them all.
    """
    known = sorted(set(parameters) - _FIXED)
    if wrong := sorted(set(settings) - set(known)):
        raise OptionError(
            f"settings {', '.join(map(repr, wrong))} are none of {method}'s. Allowed: "
            f"{', '.join(known)}. Correct the names."
        )


def _check_settings(settings: Mapping[str, Any]) -> None:
    """Refuse settings that `rank_one_edit` has not, and numbers out of range."""
    check_setting_names(settings, "rank_one_edit", _PARAMETERS)
    numbers = {field.name for field in fields(Objective)} & set(settings)
    Objective(**{name: settings[name] for name in numbers if settings[name] is not None})


def counted(
    model: "Model",
    layers: Sequence[int],
    corpus: Corpus,
    tokens: int,
    seed: int,
    site: EditSite,
    progress: "ProgressCallback | None" = None,
) -> KeyStatistics:
    """Count the key statistics that a workflow was not given."""
    return key_statistics(
        model, layer=sorted(layers), corpus=corpus, tokens=tokens, seed=seed, site=site,
        progress=progress,
    )  # fmt: skip
