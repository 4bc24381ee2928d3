"""The store: every result is kept once, under a key that says what it is.

    store = Store()
    trace = store.run(causal_trace, model, facts, sites=["mlp_out"], samples=10)

A second call returns the stored result; a longer prompt set computes only the missing prompts; a
kill at any moment loses at most the batch in flight; several processes may write at once.
"""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mechlab.canonical import canonical_json, digest
from mechlab.errors import StoreError
from mechlab.progress import ProgressCallback
from mechlab.prompts import as_prompt_set
from mechlab.results import check_result, method_of
from mechlab.store import upkeep
from mechlab.store.bundles import pack, unpack
from mechlab.store.export import export_result
from mechlab.store.journal import FileJournal
from mechlab.store.keys import bind
from mechlab.store.lease import Running, running
from mechlab.store.places import open_place
from mechlab.store.records import (
    KINDS,
    DamagedEntry,
    DamagedEntryWarning,
    Entry,
    Kind,
    NewerEntry,
    path_of,
)
from mechlab.store.remarks import Remark, changed, read_remark, write_remark
from mechlab.store.running import JOURNAL, Run, load_entry
from mechlab.store.shelf import Shelf
from mechlab.store.trained import trained_folder
from mechlab.store.upkeep import Damage

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["Damage", "Store"]

_ID = re.compile(r"[0-9a-f]{4,64}")


def _complete(source: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return a source that has all that a record needs."""
    needed = ("method", "method_version", "model", "options", "prompts")
    try:
        text = canonical_json(source)
    except TypeError as err:
        text, problem = "", str(err)
    else:
        problem = ", ".join(name for name in needed if name not in source)
    if problem or not text:
        raise StoreError(
            f"nothing can be kept under this source: {problem}.\n"
            f"  Needed: {', '.join(needed)}, with a canonical form.\n  Add what is named."
        )
    return source


class Store:
    """Results on disk or on any place that fsspec can write to."""

    def __init__(self, root: str | os.PathLike[str] | None = None) -> None:
        """Open a store; nothing is created before something is stored.

        Args:
            root: a folder or fsspec URL. By default `MECHLAB_CACHE`, else `cache/` of a checkout of
                mechlab around the working folder or the package, else the user's cache folder.

        Raises:
            StoreError: when `root` is a URL that fsspec cannot open.
        """
        self._shelf = Shelf(open_place(root))

    @property
    def root(self) -> str:
        """The folder or URL of the store."""
        return self._shelf.place.url

    def run(
        self,
        function: Callable[..., xr.Dataset],
        model: Any,
        prompts: Any,
        *,
        progress: ProgressCallback | None = None,
        recompute: bool = False,
        **options: Any,
    ) -> xr.Dataset:
        """Return `function(model, prompts, **options)`, computing only what is not stored.

        Methods that work prompt by prompt are stored prompt by prompt, each as soon as it is
        finished. What changes no numbers (`progress`, `max_batch`, `device`, `mode`, `suffix`) is
        handed on but does not enter the key.

        Args:
            function: a method, such as `causal_trace`.
            model: a `Model`.
            prompts: a PromptSet, one prompt, or any iterable of prompts.
            progress: called between batches with the number of finished prompts (for a single
                prompt: in the method's own units) and what can be shown so far.
            recompute: compute everything anew and replace what is stored.
            options: the method's own options.

        Raises:
            StoreError: when an option cannot be keyed, or the store cannot be written; before
                anything is computed.
            OptionError: when the method has no such option.
            PromptError: when the prompts are of another kind than the method takes.
            Cancelled: when `progress` asked to stop; what was finished is kept.
        """
        method = method_of(function)
        request = bind(method, model, options)
        chosen = as_prompt_set(prompts, method.prompt_kind)
        return Run(self._shelf, request, model, chosen, progress, recompute).result()

    def key(
        self, function: Callable[..., xr.Dataset], model: Any, prompts: Any, **options: Any
    ) -> str:
        """Return the key that `run` would use, without computing anything.

        Raises:
            StoreError, OptionError, PromptError: as in `run`.
        """
        method = method_of(function)
        chosen = as_prompt_set(prompts, method.prompt_kind)
        return bind(method, model, options).key_of_set(chosen.digest)

    def __contains__(self, key: object) -> bool:
        """Whether a run of this key is stored (by its record; data is checked when read)."""
        if not isinstance(key, str) or not _ID.fullmatch(key):
            return False
        return any(entry.key.startswith(key) for entry in self._entries("run", start=key))

    def get(self, key: str) -> xr.Dataset:
        """Return a stored result; every file is compared with its checksum.

        Args:
            key: a key, or the start of one (4 digits or more).

        Raises:
            StoreError: when there is no such entry, several begin like this, or it is damaged.
        """
        return load_entry(self._shelf, self.entry(key))

    def open(self, key: str, *, check: bool = False) -> xr.Dataset:
        """Return a stored result whose numbers are read when they are used.

        Sizes of files are checked; checksums only with `check`. On object stores it is read at
        once, as by `get`.

        Raises:
            StoreError: as `get`.
        """
        entry = self.entry(key)
        if check:
            load_entry(self._shelf, entry)
        return load_entry(self._shelf, entry, lazy=True)

    def entry(self, key: str) -> Entry:
        """Return the record of one entry, found by its key or the start of it.

        Raises:
            StoreError: when there is none, several begin like this, or its record is damaged.
        """
        if not _ID.fullmatch(key):
            raise StoreError(
                f"{key!r} is not a run id.\n  Allowed: 4 to 64 of the digits 0-9a-f.\n"
                "  `store.find()`, or `mechlab runs list`, shows the runs."
            )
        found: list[Entry] = []
        for kind in KINDS:
            paths = [*self._shelf.paths(kind, start=key)]
            entries = [self._shelf.entry(path) for path in paths]
            found = found or [entry for entry in entries if entry is not None]
        if len(found) == 1:
            return found[0]
        many = ", ".join(sorted(entry.key[: len(key) + 8] for entry in found[:10]))
        problem = f"{len(found)} entries begin like this: {many}" if found else "no such entry"
        raise StoreError(
            f"{key} in the store {self.root}: {problem}.\n  Allowed: the id of one run.\n"
            "  `store.find()`, or `mechlab runs list`, shows the runs."
        )

    def find(
        self,
        *,
        method: str | None = None,
        model: str | None = None,
        prompts: str | None = None,
        kind: Kind = "run",
    ) -> list[Entry]:
        """Return the records of stored results, newest first; no data is read.

        Args:
            method: name of a method.
            model: a model's name, fingerprint or the start of it.
            prompts: digest of a prompt set or the start of it.
            kind: whole prompt sets, or the single prompts they are made of.
        """
        found = [
            entry
            for entry in self._entries(kind, method)
            if (model is None or entry.model_name == model or entry.model.startswith(model))
            and (prompts is None or entry.prompts.startswith(prompts))
        ]
        return sorted(found, key=lambda entry: (entry.created, entry.key), reverse=True)

    def keep(self, source: Mapping[str, Any], result: xr.Dataset, *, name: str = "") -> str:
        """Store a result that no method of prompts made, such as key statistics; return its key.

        Args:
            source: what it is kept under: `method`, `method_version`, `model` (a fingerprint),
                `options` and `prompts` (a digest), all with a canonical form.
            result: what `check_result` accepts.
            name: what its input is called in lists.

        Raises:
            StoreError: when it cannot be keyed or written.
            OptionError: when it breaks a rule of results.
        """
        check_result(result)
        key = digest(_complete(source))
        self._shelf.check_writable()
        self._shelf.add("run", key, source, result, name=name)
        self.journal(source).remove()
        return key

    def kept(self, source: Mapping[str, Any]) -> xr.Dataset | None:
        """Return what was kept under `source`, `None` when there is none.

        What is damaged counts as missing, with a warning.

        Raises:
            StoreError: when it cannot be keyed.
        """
        path = path_of(str(_complete(source)["method"]), "run", digest(source))
        try:
            entry = self._shelf.entry(path)
            return None if entry is None else load_entry(self._shelf, entry)
        except DamagedEntry as err:
            warnings.warn(f"{err}. It is computed again.", DamagedEntryWarning, stacklevel=2)
            return None

    def journal(self, source: Mapping[str, Any]) -> FileJournal:
        """Return where finished batches are kept until `keep(source, ...)` completes the entry.

        Raises:
            StoreError: when it cannot be keyed.
        """
        path = path_of(str(_complete(source)["method"]), "run", digest(source))
        return FileJournal(self._shelf.place, f"{path}/{JOURNAL}")

    def trained_model(self, recipe: object, train: Callable[[Path, Path], object]) -> Path:
        """Return the folder of a model, trained when the store does not have it yet.

            folder = ml.Store().trained_model(recipe, train)
            model = ml.load_model(str(folder))

        It lies in `models/<digest of the recipe>/`, with `recipe.json` beside the weights. Of
        several processes that ask for the same model one trains it, and the others wait.

        Args:
            recipe: all that decides the weights, as values with a canonical form: raise a number
                in it when the code of the training changes.
            train: called with an empty folder, into which it writes a Hugging Face model and its
                tokenizer, and with a second one for saved states: that one stays until the model
                is finished, so that a killed training resumes.

        Raises:
            StoreError: the store is not a local folder, the recipe cannot be keyed, the folder
                cannot be written, or a file in it was changed.
        """
        return trained_folder(self._shelf.place, recipe, train)

    def verify(self) -> list[Damage]:
        """Compare every file of every entry with its checksum and return what is damaged."""
        return upkeep.damages(self._shelf)

    def clean(self, *, older_than: timedelta = timedelta(days=1)) -> list[str]:
        """Remove what no record points to and return the paths removed.

        These are the remains of killed runs, journals of theirs, and data of which another writer's
        record took the place. A killed run whose remains are removed starts its last prompt anew.

        Args:
            older_than: younger remains stay, since their run may be under way.
        """
        return upkeep.remove_debris(self._shelf, older_than.total_seconds())

    def delete(self, key: str) -> int:
        """Remove a run, and those of its prompts that no other run of the method holds.

        Returns:
            Bytes of data freed.

        Raises:
            StoreError: when there is no such entry, or several begin like this.
        """
        entry = self.entry(key)
        others = [other for other in self._entries("run", entry.method) if other.key != entry.key]
        return upkeep.remove(self._shelf, entry, others)

    def remark(
        self,
        key: str,
        *,
        tags: Iterable[str] | None = None,
        note: str | None = None,
        shown_although: str | None = None,
    ) -> Remark:
        """Write beside a run what people say of it; return all that is said of it now.

        The result, its key and its checksums do not change. Remarks stay when the run is computed
        again, travel in bundles, and go when it is deleted.

        Args:
            key: of a run, or the start of it.
            tags: short words to find it by; `()` removes them, `None` leaves them.
            note: free text; `""` removes it, `None` leaves it.
            shown_although: why it means little, where somebody chose to look at it all the same.

        Raises:
            StoreError: when there is no such run, the remark is too long or has characters that are
                not allowed, or it cannot be written; what was said before stays then.
        """
        entry = self.entry(key)
        if entry.kind != "run":
            raise StoreError(f"{entry.id} is one prompt of a run.\n  Allowed: the id of a run.")
        held = self.remarks([entry.key]).get(entry.key, Remark())
        new = changed(held, tags=tags, note=note, shown_although=shown_although)
        write_remark(self._shelf.place, entry.path, new)
        return new

    def remarks(self, keys: Iterable[str] | None = None) -> dict[str, Remark]:
        """Return what is said of runs, by key; runs without a remark are left out.

        What is damaged counts as nothing said, with a warning.

        Args:
            keys: of runs, or starts of them; by default all runs.
        """
        found: dict[str, Remark] = {}
        for start in [""] if keys is None else keys:
            for path in self._shelf.paths("run", start=start):
                try:
                    found[path.rpartition("/")[2]] = read_remark(self._shelf.place, path)
                except StoreError as err:
                    warnings.warn(str(err), DamagedEntryWarning, stacklevel=2)
        return {key: remark for key, remark in found.items() if remark}

    def bundle(self, keys: Iterable[str]) -> bytes:
        """Return stored results and the remarks on them as one zip, for `add_bundle`.

        Raises:
            StoreError: when there is no such entry, or one of its files cannot be read.
        """
        return pack(self._shelf, [self.entry(key) for key in keys])

    def add_bundle(self, data: bytes) -> list[str]:
        """Keep the results of a bundle and return their keys; it is checked whole before.

        A remark of the bundle is kept where this store has none on that run.

        Raises:
            StoreError: when anything in it is not as `bundle` writes it; nothing is kept then.
        """
        self._shelf.check_writable()
        return unpack(self._shelf, data)

    def running(self) -> list[Running]:
        """Return what is being computed into this store now, by any process on any machine."""
        return running(self._shelf.place)

    def export(self, key: str, path: str | os.PathLike[str], *, overwrite: bool = False) -> Path:
        """Write a stored result as `.zarr` folder, `.zip` of one, `.csv` (long form) or `.json`.

        Raises:
            StoreError: when there is no such entry, it is damaged, or `path` cannot be written.
        """
        entry = self.entry(key)
        result = load_entry(self._shelf, entry)
        return export_result(result, Path(path), entry.id, overwrite=overwrite)

    def __repr__(self) -> str:
        """Return the root."""
        return f"Store({self.root!r})"

    def _entries(self, kind: Kind, method: str | None = None, start: str = "") -> Iterator[Entry]:
        for path in self._shelf.paths(kind, method, start):
            try:
                entry = self._shelf.entry(path)
            except (DamagedEntry, NewerEntry) as err:
                warnings.warn(f"{err}. It is not listed.", DamagedEntryWarning, stacklevel=3)
                continue
            if entry is not None:
                yield entry
