"""One call of the engine, step by step: tokenise, check, plan, passes, batches, readings."""

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from torch import Tensor

from mechlab.engine.batching import Batch, cut_batches, positions_per_chunk, with_back_off
from mechlab.engine.forward import BaseRuns, packed_residuals, run_bases, tokenize_bases
from mechlab.engine.one_pass import in_one_pass
from mechlab.engine.planning import places_to_keep, plan_rows
from mechlab.engine.rows import (
    Base,
    PlannedRow,
    Readings,
    Row,
    check_rows,
)
from mechlab.engine.wavefront import Work, head_logits, wave_residuals
from mechlab.hooks import source_of
from mechlab.metrics import Metric, kl_divergence
from mechlab.progress import Journal, Progress, ProgressCallback

if TYPE_CHECKING:
    import xarray as xr

    from mechlab.models import Model

__all__ = ["Partial", "Sweep"]

Partial = Callable[[np.ndarray, np.ndarray], "xr.Dataset"]
"""Makes a picture of the readings so far: bases, rows (NaN: not run yet)."""

ROWS_PER_READING = 256
"""Rows whose logits are worked out together."""

BASES_PER_PASS = 64
"""Base runs side by side; groups of bases that refer to one another are never split."""


class Sweep:
    """One call of the engine; its arguments are those of `engine.run`."""

    def __init__(
        self,
        model: "Model",
        bases: Sequence[Base],
        rows: Sequence[Row],
        metric: Metric | None,
        answers: Sequence[Sequence[int]] | None,
        banks: Mapping[str, Tensor],
        mode: str,
        suffix: Literal["auto"] | bool,
        max_batch: int | None,
        inside: bool | None = None,
    ) -> None:
        """Tokenise, check and plan; no forward pass yet.

        Args beyond those of `engine.run`: `inside` says whether rows may resume inside a block; by
        default where the model was proven to allow it.

        Raises:
            SiteError, OptionError, PromptError: see `engine.run`.
        """
        self.model, self.bases, self.metric, self.mode = model, bases, metric, mode
        self.max_batch = 1 if mode == "plain" else max_batch
        self.suffix = model.has_attention if suffix == "auto" else suffix
        self.suffix = bool(self.suffix and mode == "wavefront")
        self.tokens = tokenize_bases(model, bases)
        lengths = [self.tokens.width - start for start in self.tokens.starts]
        check_rows(model, bases, rows, lengths, banks)
        ids = self.tokens.tokens.tolist()
        unpadded = [row[start:] for row, start in zip(ids, self.tokens.starts, strict=True)]
        # The reference runs every row; the fast routes leave out those whose reading is known.
        skip = mode != "plain"
        if inside is None:
            inside = model.checks is not None and model.checks.resumes_inside
        self.planned, self.origin = plan_rows(
            model, bases, rows, unpadded, skip=skip, inside=inside and mode == "wavefront"
        )
        self.answers = answers
        self.banks = banks
        several = getattr(metric, "outputs", None)  # numbers per row, where there is not just one
        width: tuple[int, ...] = () if several is None else (int(several),)
        width = (model.d_vocab,) if metric is None else width
        self.base_values = np.full((len(bases), *width), np.nan, dtype=np.float32)
        self.row_values = np.full((len(rows), *width), np.nan, dtype=np.float32)
        self.base_logits: dict[int, Tensor] = {}
        self.work = Work()

    def run(
        self,
        progress: ProgressCallback | None,
        partial: Partial | None,
        journal: Journal | None,
    ) -> Readings:
        """Run everything and return the readings, in the order of bases and rows."""
        done = 0
        fast = in_one_pass(self.model) if self.mode == "wavefront" else nullcontext()
        with fast:
            for number, which in enumerate(self._passes()):
                members = set(which)
                rows = [row for row in self.planned if row.base in members]
                done = self._run_pass(number, which, rows, done, progress, partial, journal)
        return Readings(
            self.base_values,
            self._all_rows(),
            self.mode,
            len(self.planned),
            self.work.token_layers,
            self.work.keys_only,
        )

    def _passes(self) -> Iterator[list[int]]:
        """Yield groups of bases that refer to one another, packed up to a limit."""
        leader = list(range(len(self.bases)))

        def find(base: int) -> int:
            while leader[base] != base:
                leader[base] = leader[leader[base]]
                base = leader[base]
            return base

        links = {
            (row.base, source)
            for row in self.planned
            for step in row.raw
            if (source := source_of(step)) is not None
        }
        for a, b in links:
            leader[find(a)] = find(b)
        groups: dict[int, list[int]] = {}
        for base in range(len(self.bases)):
            groups.setdefault(find(base), []).append(base)
        packed: list[int] = []
        for group in groups.values():
            if packed and len(packed) + len(group) > BASES_PER_PASS:
                yield packed
                packed = []
            packed = packed + group
        yield packed

    def _run_pass(
        self,
        number: int,
        which: list[int],
        rows: list[PlannedRow],
        done: int,
        progress: ProgressCallback | None,
        partial: Partial | None,
        journal: Journal | None,
    ) -> int:
        waves = [row for row in rows if row.layer >= 0] if self.mode == "wavefront" else []
        whole = rows if self.mode != "wavefront" else [row for row in rows if row.layer < 0]
        places = {**places_to_keep(waves, raw=False), **places_to_keep(whole, raw=True)}
        entries = sorted({row.layer for row in waves})
        entries += [layer for name, layer in places if name == "resid_pre" and layer is not None]
        tokens = self.tokens.select(which)
        runs = run_bases(
            self.model,
            self.bases,
            which,
            tokens,
            entries=sorted(set(entries)),
            places=[place for place in places if place[0] != "resid_pre"],
            keep_cache=self.suffix and bool(waves),
        )
        runs.kept.banks = self.banks
        self._read_bases(runs, which)
        for chunk in self._chunks(self._batches(waves, whole, runs), runs.tokens.width):
            members_of_chunk = [row for batch, _ in chunk for row in batch.rows]
            key = _journal_key(number, members_of_chunk)
            values = journal.get(key) if journal is not None else None
            if values is None:
                parts = [self._run_batch(batch, runs, is_wave) for batch, is_wave in chunk]
                values = self._read(torch.cat(parts), [row.base for row in members_of_chunk])
                if journal is not None:
                    journal.put(key, values)
            self.row_values[[row.index for row in members_of_chunk]] = values
            done += len(members_of_chunk)
            if progress is not None:
                seen = None if partial is None else partial(self.base_values, self._all_rows())
                progress(Progress(done, len(self.planned), "rows", seen))
        return done

    def _batches(
        self, waves: list[PlannedRow], whole: list[PlannedRow], runs: BaseRuns
    ) -> Iterator[tuple[Batch, bool]]:
        starts = dict(zip(runs.kept.bases, runs.tokens.starts, strict=True))
        for rows, is_wave in ((waves, True), (whole, False)):
            if rows:
                batches = cut_batches(
                    self.model,
                    rows,
                    starts,
                    runs.tokens.width,
                    suffix=self.suffix and is_wave,
                    max_batch=self.max_batch,
                )
                yield from ((batch, is_wave) for batch in batches)

    def _chunks(
        self, batches: Iterator[tuple[Batch, bool]], width: int
    ) -> Iterator[list[tuple[Batch, bool]]]:
        """Yield batches that are read out, kept in the journal and reported together.

        The unembedding of a large vocabulary is a tenth of a sweep, and half as fast on a hundred
        rows as on several hundred. A chunk stays small enough that a killed run loses little; a
        `max_batch` of the user's keeps batches apart.
        """
        chunk: list[tuple[Batch, bool]] = []
        rows = positions = 0
        alone = self.mode == "plain" or self.max_batch is not None
        for batch, is_wave in batches:
            chunk.append((batch, is_wave))
            rows += len(batch.rows)
            positions += len(batch.rows) * (width - batch.first)
            if alone or rows >= ROWS_PER_READING or positions >= positions_per_chunk(self.model):
                yield chunk
                chunk, rows, positions = [], 0, 0
        if chunk:
            yield chunk

    def _run_batch(self, batch: Batch, runs: BaseRuns, is_wave: bool) -> Tensor:
        """Return the residuals of a batch at its rows' read positions, `[row, d_model]`."""

        def execute(part: Batch) -> Tensor:
            if is_wave:
                residuals, work = wave_residuals(self.model, runs, part.rows, part.first)
                self.work.token_layers += work.token_layers
                self.work.keys_only += work.keys_only
            else:
                alone = self.mode == "plain"
                residuals = packed_residuals(self.model, runs, part.rows, unpadded=alone)
                self.work.add(len(part.rows) * self.model.n_layers, runs.tokens.width)
            return residuals

        return with_back_off(execute, batch, lambda a, b: torch.cat([a, b]))

    def _read_bases(self, runs: BaseRuns, which: list[int]) -> None:
        if self.metric is kl_divergence:
            logits = head_logits(self.model, runs.residuals)
            self.base_logits.update(zip(which, logits, strict=True))
        self.base_values[which] = self._read(runs.residuals, which)

    def _read(self, residuals: Tensor, bases: Sequence[int]) -> np.ndarray:
        logits = head_logits(self.model, residuals)
        if self.metric is None:
            return logits.float().cpu().numpy()
        if self.metric is kl_divergence:
            reference = torch.stack([self.base_logits[base] for base in bases])
        else:
            assert self.answers is not None
            reference = torch.tensor(
                [list(self.answers[base]) for base in bases], device=logits.device
            )
        return self.metric(logits, reference).float().cpu().numpy()

    def _all_rows(self) -> np.ndarray:
        """Give every row its reading: its own, its twin's, or its base run's."""
        own = self.row_values[np.maximum(self.origin, 0)]
        base = self.base_values[np.maximum(-1 - self.origin, 0)]
        is_own = (self.origin >= 0).reshape(-1, *[1] * (own.ndim - 1))
        result: np.ndarray = np.where(is_own, own, base)
        return result


def _journal_key(number: int, members: Sequence[PlannedRow]) -> str:
    rows = np.array([row.index for row in members], dtype=np.int64)
    return f"{number}-{hashlib.sha256(rows.tobytes()).hexdigest()[:16]}"
