"""The work of `mechlab edit`: an edit made or loaded, measured before and after, and shown."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mechlab.cli.editing.choice import chosen_cases
from mechlab.errors import OptionError

if TYPE_CHECKING:
    from mechlab.cli.editing.plan import EditPlan
    from mechlab.methods import Edit
    from mechlab.models import Model
    from mechlab.prompts import PromptSet

__all__ = ["EditWork", "perform_edit"]


@dataclass(frozen=True)
class EditWork:
    """What to edit and how, as plain data; nothing is loaded yet."""

    model: Mapping[str, Any]
    """Arguments of `load_model`."""
    cases: "PromptSet[Any] | None"
    """What is edited and looked at; `None` for the requests of `load`."""
    plan: "EditPlan"
    """How the edit is made."""
    load: Path | None = None
    """A saved edit instead."""
    save: Path | None = None
    """Where the edit is kept besides."""
    export: Path | None = None
    """Where the edited model is written."""
    drift: int = 0
    """Held-out texts on which the change of predictions is measured."""
    generate: int = 0
    """New tokens that are written before and after."""


def perform_edit(
    work: EditWork,
    *,
    top: int = 10,
    estimate: bool = False,
    html: Path | None = None,
    as_json: bool = False,
    cache: str | None = None,
) -> None:
    """Make or load an edit, measure the model before and with it, and show both.

    Raises:
        MechlabError: when it cannot be carried out; whatever can be refused without running the
            model is refused before.
    """
    from mechlab.cli.bar import progress_bar
    from mechlab.cli.editing.effects import Look, held_out_texts, measure
    from mechlab.cli.editing.estimate import print_estimate
    from mechlab.cli.editing.report import EditReport
    from mechlab.cli.work import check_figure_path, default_figure
    from mechlab.methods import Edit
    from mechlab.models import load_model
    from mechlab.store import Store

    _check_places(work)
    if html is not None:
        check_figure_path(html)
    store, loaded = Store(cache), None if work.load is None else Edit.load(work.load)
    cases = work.cases if loaded is None else chosen_cases(loaded.requests)
    assert cases is not None
    model = load_model(**work.model)
    plan = work.plan.completed(model)
    requests = [case.request for case in cases]
    if loaded is None:
        plan.check(model, requests)
    else:
        loaded._check(model, False)
    if estimate:
        print_estimate(store, model, plan, requests, loaded, as_json=as_json)
        return
    texts = held_out_texts(plan.statistics.get("corpus", "atlas"), work.drift, model)
    with progress_bar("edit") as progress:
        before = measure(store, model, cases, Look(work.generate, texts))
        made = loaded or plan.stored(store, model, requests, progress)
        effects = before.with_edit(made)
    kept = _kept(work, model, made)
    told = EditReport(model, made, cases, effects, kept, top)
    told.show(html or default_figure(store, made.digest), as_json=as_json)


def _kept(work: EditWork, model: "Model", made: "Edit") -> dict[str, str]:
    """Save and export, and return where."""
    from mechlab.methods import export

    kept = {}
    if work.save is not None:
        kept["saved"] = str(made.save(work.save))
    if work.export is not None:
        kept["exported"] = str(export(model, made, work.export))
    return kept


def _check_places(work: EditWork) -> None:
    """Refuse places that cannot be written to before anything is computed.

    Raises:
        OptionError: a folder in place of a file, a folder that is not empty or does not exist.
    """
    save, folder = work.save, work.export
    if save is not None and (save.is_dir() or not save.expanduser().absolute().parent.is_dir()):
        raise OptionError(
            f"--save {save} cannot be written: it is a folder, or lies in one that does not exist. "
            "Allowed: the name of a file in an existing folder. Choose one."
        )
    if folder is not None and folder.exists() and (folder.is_file() or any(folder.iterdir())):
        raise OptionError(
            f"--export {folder} is there already and not empty. Allowed: a new or empty folder. "
            "Choose another one, or remove it."
        )
