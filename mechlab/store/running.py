"""Compute what is not stored yet, and store each part as soon as it is finished."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from mechlab.errors import StoreError
from mechlab.progress import Progress, ProgressCallback
from mechlab.prompts import PromptSet
from mechlab.results import check_result
from mechlab.store.joining import join_prompts
from mechlab.store.journal import FileJournal
from mechlab.store.keys import HINTS, Request
from mechlab.store.lease import hold
from mechlab.store.records import DamagedEntry, DamagedEntryWarning, Entry, Kind, path_of
from mechlab.store.shelf import Shelf

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["JOURNAL", "Run", "load_entry"]

Stored: TypeAlias = "tuple[Entry, xr.Dataset]"

JOURNAL = "journal"
"""Folder, inside an unfinished entry, of the batches finished so far."""


@dataclass(frozen=True)
class Run:
    """One call of `Store.run`, with everything it was given."""

    shelf: Shelf
    request: Request
    model: Any
    prompts: PromptSet[Any]
    progress: ProgressCallback | None
    recompute: bool

    def result(self) -> xr.Dataset:
        """Return the stored result, or compute what is missing of it.

        While another process computes the same, wait for its result.
        """
        if (found := self._stored()) is not None:
            return found
        self.shelf.check_writable()
        with hold(self.shelf.place, self._key, self._about, self.progress) as progress:
            held = replace(self, progress=progress)
            if (found := held._stored(quiet=True)) is not None:
                return found
            return held._by_prompt() if self._falls_apart else held._whole()

    def _stored(self, *, quiet: bool = False) -> xr.Dataset | None:
        found = None if self.recompute else self._look("run", self._key, quiet=quiet)
        if found is None:
            return None
        self._report(len(self.prompts), len(self.prompts), None)
        return found[1]

    @property
    def _about(self) -> dict[str, Any]:
        """What others are told of this run while it is under way."""
        return {
            "method": self.request.method.name,
            "model_name": str(getattr(self.model, "name", self.request.fingerprint[:12])),
            "prompts": self.prompts.digest,
            "options": dict(self.request.options),
        }

    @property
    def _falls_apart(self) -> bool:
        """Whether prompts are computed and stored one by one."""
        method, given = self.request.method, self.request.given
        return method.per_prompt and not any(_holds_lists(given.get(n)) for n in method.lists)

    @property
    def _key(self) -> str:
        return self.request.key_of_set(self.prompts.digest)

    @property
    def _source(self) -> dict[str, object]:
        return self.request.source("prompts", self.prompts.digest)

    def _whole(self) -> xr.Dataset:
        journal = self._journal("run", self._key)
        result = self._call(self.prompts, journal, self.progress)
        self.shelf.add("run", self._key, self._source, result, name=self.prompts.name)
        journal.remove()
        self._report(len(self.prompts), len(self.prompts), result)
        return result

    def _by_prompt(self) -> xr.Dataset:
        digests = [self.prompts.prompt_digest(index) for index in range(len(self.prompts))]
        distinct = dict(zip(digests, self.prompts, strict=True))
        held = {} if self.recompute else self._held(distinct)
        missing = [digest for digest in distinct if digest not in held]
        if missing and self.request.method.check is not None:
            options = {n: v for n, v in self.request.given.items() if n not in HINTS}
            self.request.method.check(self.model, self.prompts, **options)
        for digest in missing:
            held[digest] = self._one(distinct[digest], digest, len(held), len(distinct))
            self._report(len(held), len(distinct), held[digest][1])
        return self._join([held[digest] for digest in digests])

    def _held(self, digests: Iterable[str]) -> dict[str, Stored]:
        found = {digest: self._look("prompt", self._prompt_key(digest)) for digest in digests}
        return {digest: stored for digest, stored in found.items() if stored is not None}

    def _prompt_key(self, digest: str) -> str:
        return self.request.key_of_prompt(digest)

    def _one(self, prompt: Any, digest: str, done: int, total: int) -> Stored:
        """Compute and store one prompt, unless another process has done so meanwhile."""
        key = self._prompt_key(digest)
        if not self.recompute and (stored := self._look("prompt", key, quiet=True)) is not None:
            return stored
        journal = self._journal("prompt", key)
        alone: PromptSet[Any] = PromptSet((prompt,), self.prompts.name)
        result = self._call(alone, journal, self._inner(done, total))
        entry = self.shelf.add("prompt", key, self.request.source("prompt", digest), result)
        journal.remove()
        return entry, result

    def _look(self, kind: Kind, key: str, *, quiet: bool = False) -> Stored | None:
        """Return what is stored; what is damaged counts as missing, with a warning."""
        try:
            entry = self.shelf.entry(path_of(self.request.method.name, kind, key))
            if entry is None:
                return None
            return entry, load_entry(self.shelf, entry, repair=False)
        except DamagedEntry as err:
            if not quiet:
                warnings.warn(f"{err}. It is computed again.", DamagedEntryWarning, stacklevel=5)
            return None

    def _join(self, parts: list[Stored]) -> xr.Dataset:
        results = [result for _, result in parts]
        joined = join_prompts(results, self.prompts.labels, self.prompts.digest)
        chunks = tuple(entry for entry, _ in parts)
        name = self.prompts.name
        self.shelf.add("run", self._key, self._source, joined, name=name, chunks=chunks)
        return joined

    def _call(
        self, prompts: PromptSet[Any], journal: FileJournal, progress: ProgressCallback | None
    ) -> xr.Dataset:
        if self.recompute:
            journal.remove()
        hints = {"journal": journal, "progress": progress}
        given = {name: hint for name, hint in hints.items() if name in self.request.accepts}
        result: xr.Dataset = self.request.method.function(
            self.model, prompts, **{**given, **self.request.given}
        )
        check_result(result)
        self._check_origin(result)
        return result

    def _check_origin(self, result: xr.Dataset) -> None:
        about, method = result.attrs, self.request.method
        expected = (method.name, method.version, self.request.fingerprint)
        found = (about["method"], about["method_version"], about["model_fingerprint"])
        if found != expected:
            raise StoreError(
                f"the result says it comes from {found}, the call was {expected} "
                "(method, version, model fingerprint); it is not stored.\n"
                "  Both must agree.\n"
                "  Do not change the model while it runs; correct the method's provenance."
            )

    def _journal(self, kind: Kind, key: str) -> FileJournal:
        path = path_of(self.request.method.name, kind, key)
        return FileJournal(self.shelf.place, f"{path}/{JOURNAL}")

    def _inner(self, done: int, total: int) -> ProgressCallback | None:
        outer = self.progress
        if outer is None or total == 1:
            return outer  # a single prompt is counted in the method's own units
        return lambda inner: outer(Progress(done, total, "prompts", inner.partial))

    def _report(self, done: int, total: int, partial: xr.Dataset | None) -> None:
        if self.progress is not None:
            self.progress(Progress(done, total, "prompts", partial))


def _holds_lists(value: object) -> bool:
    """Return whether an option holds lists in a list, or in a list of a mapping."""
    if isinstance(value, Mapping):
        return any(map(_holds_lists, value.values()))
    if (axes := getattr(value, "ndim", None)) is not None:
        return bool(axes > 1)
    nested = isinstance(value, Sequence) and not isinstance(value, str) and len(value) > 0
    return nested and isinstance(value[0], Sequence | np.ndarray) and not isinstance(value[0], str)  # type: ignore[index]


def load_entry(
    shelf: Shelf, entry: Entry, *, lazy: bool = False, repair: bool = True
) -> xr.Dataset:
    """Return an entry's result from its own data or from its prompts.

    Args:
        shelf: where the entry is.
        entry: its record.
        lazy: whether numbers may be read later, when they are used.
        repair: whether the prompts may stand in, with a warning, when its own data is damaged.

    Raises:
        DamagedEntry: when it is damaged beyond that.
    """
    import xarray as xr

    read = shelf.open if lazy else shelf.load
    if entry.data is not None:
        try:
            return read(entry)
        except DamagedEntry as err:
            if not (repair and entry.chunks):
                raise
            text = f"{err}. It is put together from its prompts."
            warnings.warn(text, DamagedEntryWarning, stacklevel=3)
    parts = [read(_chunk(shelf, entry, key)) for key in entry.chunks]
    if not lazy or len(parts) > 1:
        return join_prompts(parts, entry.labels, str(entry.provenance["prompts_digest"]))
    prompt = xr.Variable("prompt", np.array(entry.labels), parts[0].coords["prompt"].attrs)
    return parts[0].assign_coords(prompt=prompt).assign_attrs(entry.provenance)


def _chunk(shelf: Shelf, entry: Entry, key: str) -> Entry:
    chunk = shelf.entry(path_of(entry.method, "prompt", key))
    if chunk is None:
        raise DamagedEntry(f"entry {entry.id} of {entry.method} lacks its prompt {key[:12]}")
    return chunk
