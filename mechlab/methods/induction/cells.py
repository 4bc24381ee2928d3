"""Cells of attention matrices, read inside the hook: a few diagonals are kept, never a matrix.

A *cell* is one query and one key of one prompt; a *measure* is what is averaged, such as one lag. A
measure's value at a query is the sum over its cells there (two earlier occurrences of a token add
up), and its value in a prompt is the mean over those queries.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from mechlab.engine.readout import exact
from mechlab.methods.induction.ablating import Runner
from mechlab.methods.induction.rows import Laid, same_length
from mechlab.progress import Progress, ProgressCallback

if TYPE_CHECKING:
    from mechlab.models import Model

__all__ = ["Cells", "Moments", "read_cells"]

Array = np.ndarray[Any, Any]


@dataclass(frozen=True, eq=False)
class Cells:
    """Which cells of one prompt count in which measure, one entry per cell."""

    query: Array
    key: Array
    measure: Array


@dataclass(frozen=True, eq=False)
class Moments:
    """What was read of each prompt.

    Attributes:
        mean: mean over queries, `[prompt, measure, layer, head]`; NaN without a query.
        squares: sum of squared distances of the queries' values from it, of the same axes.
        count: queries, `[prompt, measure]`.
        columns: mean attention of the probes on each place of the list,
            `[prompt, layer, head, input_position]`; NaN beyond a shorter list.
    """

    mean: Array
    squares: Array
    count: Array
    columns: Array

    def _weights(self) -> Array:
        """Return the queries behind each mean, 0 where it was not read."""
        weights: Array = np.where(np.isnan(self.mean), 0.0, self.count[:, :, None, None])
        return weights

    def over_tokens(self) -> tuple[Array, Array]:
        """Return mean and SEM over the queries of all prompts, `[measure, layer, head]`."""
        weight = self._weights()
        total = weight.sum(0)
        with np.errstate(invalid="ignore", divide="ignore"):
            mean = np.nansum(self.mean * weight, axis=0) / total
            between = np.nansum(weight * (self.mean - mean) ** 2, axis=0)
            variance = (np.nansum(self.squares, axis=0) + between) / (total - 1)
            sem = np.sqrt(variance / total)
        return np.where(total > 0, mean, np.nan), np.where(total > 1, sem, np.nan)

    def over_groups(self, groups: Sequence[str]) -> tuple[Array, Array]:
        """Return means `[group, measure, layer, head]` and their SEM; prompts of a group pool."""
        names = list(dict.fromkeys(groups))
        number = np.array([names.index(group) for group in groups])
        weight = self._weights()
        means = []
        with np.errstate(invalid="ignore", divide="ignore"):
            for index in range(len(names)):
                own = number == index
                total = weight[own].sum(0)
                mean = np.nansum(self.mean[own] * weight[own], axis=0) / total
                means.append(np.where(total > 0, mean, np.nan))
        return np.stack(means), sem(np.stack(means))


def mean_of_known(values: Array, axis: int = 0) -> Array:
    """Return the mean over what is there along an axis, NaN where nothing is."""
    there = (~np.isnan(values)).sum(axis=axis)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(there > 0, np.nansum(values, axis=axis) / there, np.nan)


def sem(values: Array) -> Array:
    """Return the standard error of the mean over the first axis; NaN below two values."""
    there = (~np.isnan(values)).sum(axis=0)
    mean = np.nansum(values, axis=0) / np.maximum(there, 1)
    squares = np.nansum((values - mean) ** 2, axis=0)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(there > 1, np.sqrt(squares / (there - 1) / there), np.nan)


def read_cells(
    runner: Runner,
    laid: Sequence[Laid],
    cells_of: Callable[[Laid], Cells],
    measures: int,
    *,
    site: str,
    layers: Sequence[int],
    columns: bool = False,
    max_batch: int | None = None,
    report: ProgressCallback | None = None,
) -> Moments:
    """Run prompts and reduce their attention to moments of measures.

    Args:
        runner: runs rows, perhaps with heads ablated.
        laid: the prompts; those that read the same tokens are run once.
        cells_of: cells of one prompt.
        measures: how many measures there are.
        site: `scores` or `pattern`.
        layers: layers to read; others are NaN.
        columns: whether attention by place in the list is read too.
        max_batch: upper bound on rows per batch.
        report: called after each batch.
    """
    model = runner.model
    shape = (model.n_layers, model.n_heads or 0)
    mean, squares = np.full((2, len(laid), measures, *shape), np.nan)
    count = np.zeros((len(laid), measures))
    longest = max(one.length for one in laid) if columns else 0
    placed = np.full((len(laid), *shape, longest), np.nan)
    rows = list(dict.fromkeys(one.tokens for one in laid))
    of_row: dict[tuple[int, ...], list[int]] = {row: [] for row in rows}
    for index, one in enumerate(laid):
        of_row[one.tokens].append(index)
    done = 0
    for which in same_length(model, rows, max_batch):
        members = [(i, local) for local, row in enumerate(which) for i in of_row[rows[row]]]
        batch = _Batch(model, [laid[i] for i, _ in members], [r for _, r in members], cells_of)
        batch.columns = columns
        tokens = torch.tensor([rows[row] for row in which], device=model.device)
        found: dict[int, tuple[Array, Array, list[Array]]] = {}
        runner.run(tokens, {(site, n): batch.reader(found, n, measures) for n in layers})
        which_prompts = [i for i, _ in members]
        count[which_prompts] = batch.counts(measures)
        for layer, (own_mean, own_squares, own_columns) in found.items():
            mean[which_prompts, :, layer] = own_mean
            squares[which_prompts, :, layer] = own_squares
            for i, column in zip(which_prompts, own_columns, strict=False):  # none unless asked for
                placed[i, layer, :, : column.shape[-1]] = column
        done += len(which)
        if report is not None:
            report(Progress(done, len(rows), "prompts"))
    return Moments(mean, squares, count, placed)


class _Batch:
    """Cells of prompts that run together, as one index into the attention of the batch."""

    columns = False

    def __init__(
        self,
        model: "Model",
        laid: Sequence[Laid],
        rows: Sequence[int],
        cells_of: Callable[[Laid], Cells],
    ) -> None:
        """Gather the cells of all prompts.

        Args:
            model: where indices will lie.
            laid: the prompts.
            rows: row of the batch that each is read from.
            cells_of: cells of one prompt.
        """
        self.laid, self.rows = laid, rows
        parts = [cells_of(one) for one in laid]
        sizes = [len(part.query) for part in parts]
        local = np.repeat(np.arange(len(laid)), sizes)
        query = np.concatenate([part.query for part in parts])
        key = np.concatenate([part.key for part in parts])
        measure = np.concatenate([part.measure for part in parts])
        units = np.stack([local, measure, query], axis=1)
        unique, unit = np.unique(units, axis=0, return_inverse=True)
        self.unit_local, self.unit_measure = unique[:, 0], unique[:, 1]

        def there(numbers: Array) -> Tensor:
            return torch.as_tensor(np.ascontiguousarray(numbers), device=model.device)

        self.row = there(np.asarray(rows)[local])
        self.query, self.key, self.unit = there(query), there(key), there(unit.ravel())
        self.single = len(unique) == len(query)
        self._there = there

    def reader(
        self, found: dict[int, tuple[Array, Array, list[Array]]], layer: int, measures: int
    ) -> Callable[[Tensor], None]:
        """Return what reads one layer's tensor into `found`."""

        def read(tensor: Tensor) -> None:
            found[layer] = self.reduced(tensor, measures)

        return read

    def counts(self, measures: int) -> Array:
        """Return the number of queries per prompt and measure."""
        found = np.zeros((len(self.laid), measures))
        np.add.at(found, (self.unit_local, self.unit_measure), 1)
        return found

    def reduced(self, tensor: Tensor, measures: int) -> tuple[Array, Array, list[Array]]:
        """Return mean and squares `[prompt, measure, head]`, and columns per prompt."""
        values = exact(tensor[self.row, :, self.query, self.key])
        heads = tensor.shape[1]
        units = values.new_zeros(len(self.unit_local), heads).index_add_(0, self.unit, values)
        group = self._there(self.unit_local * measures + self.unit_measure)
        groups = len(self.laid) * measures
        count = torch.bincount(group, minlength=groups)[:, None]
        total = values.new_zeros(groups, heads).index_add_(0, group, units)
        mean = torch.where(count > 0, total / count.clamp(min=1), torch.nan)
        apart = (units - mean[group]) ** 2
        squares = values.new_zeros(groups, heads).index_add_(0, group, apart)
        shape = (len(self.laid), measures, heads)
        placed = [self._column(tensor, i) for i in range(len(self.laid))] if self.columns else []
        return mean.reshape(shape).cpu().numpy(), squares.reshape(shape).cpu().numpy(), placed

    def _column(self, tensor: Tensor, index: int) -> Array:
        """Return the probes' mean attention on each place of the list, `[head, place]`."""
        one = self.laid[index]
        queries = [query for query, _ in one.probes]
        block = tensor[self.rows[index], :, :, one.source.start : one.source.stop]
        if queries == list(range(queries[0], queries[-1] + 1)):
            block = block[:, queries[0] : queries[-1] + 1]  # a view, not a copy
        else:
            block = block[:, self._there(np.array(queries))]
        found: Array = block.mean(1, dtype=exact(tensor[:1, :1, :1, :1]).dtype).cpu().numpy()
        return found
