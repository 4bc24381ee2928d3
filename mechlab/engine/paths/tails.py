"""The last pass: from a changed block to the head, and from the head to one number per row."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from mechlab.engine.paths.receivers import Norms, frozen_norms, norm_scales
from mechlab.engine.paths.streams import PairRuns, run_cells
from mechlab.engine.verify import TOLERANCE
from mechlab.engine.wavefront import LiveBlock, head_logits
from mechlab.hooks import Edits
from mechlab.metrics import Metric, kl_divergence, logit_diff

__all__ = ["ReadOut", "TailCells", "tail_residuals"]

FINAL_SCALE = "ln_final.hook_scale"


class TailCells:
    """What some rows change in one block, cell by cell, before they go on as whole rows.

    Attributes:
        pair: pair of each row, `[row]`.
        row, pos: row and position of each cell, `[cell]`.
    """

    def __init__(self, pairs: PairRuns, pair: Tensor, row: Tensor, pos: Tensor) -> None:
        """Keep the indices."""
        self.pairs, self.pair, self.row, self.pos = pairs, pair, row, pos

    def original(self, name: str, layer: int) -> Tensor:
        """Return the original run's values at the cells, `[cell, ...]`."""
        return self.pairs.original(name, layer)[self.pair[self.row], self.pos]


def tail_residuals(
    cells: TailCells, layer: int, z: Tensor, edits: Edits | None, first: int
) -> Tensor:
    """Run rows that change block `layer` at some cells, from there to the head.

    Args:
        cells: the cells; a row's others are those of its original run.
        layer: the changed block.
        z: head outputs of that block at the cells, `[cell, head, d_head]`.
        edits: what else is written in that block, with every cell as a row of one position.
        first: no cell lies before this position.

    Returns:
        Residual entering the final norm at the last position, `[row, d_model]`.
    """
    pairs = cells.pairs
    left = run_cells(pairs, layer, cells.original("resid_pre", layer), z, edits)
    n_layers = pairs.model.n_layers
    live = pairs.original("resid_pre", layer + 1)[:, first:].index_select(0, cells.pair)
    live[cells.row, cells.pos - first] = left
    span = range(first, pairs.width)
    for later in range(layer + 1, n_layers):
        block = LiveBlock(pairs.model, pairs.runs, later, cells.pair)
        live = block.finish(live, span) if later == n_layers - 1 else block.run(live, span)
    return live[:, -1]


class ReadOut:
    """The metric of rows, from the residuals that enter the final norm."""

    def __init__(
        self,
        pairs: PairRuns,
        metric: Metric,
        answers: Sequence[Sequence[int]],
        ln: Norms,
    ) -> None:
        """Read the base runs.

        Args:
            pairs: the runs.
            metric: maps logits and answers (or the original run's logits) to numbers.
            answers: token ids per pair.
            ln: whether the final norm is recomputed where `rows(..., final=True)` is asked for.
        """
        self.model, self.metric = pairs.model, metric
        device = pairs.runs.residuals.device
        self.answers = torch.tensor([list(ids) for ids in answers], device=device)
        residuals = pairs.runs.residuals
        logits = head_logits(self.model, residuals)
        self.reference = logits[: pairs.n] if metric is kl_divergence else self.answers
        twice = self.reference.repeat(2, *[1] * (self.reference.ndim - 1))
        self.bases: np.ndarray = metric(logits, twice).float().cpu().numpy()
        self._columns = self._proven_columns(residuals, logits)
        self._scale: Tensor | None = None
        if ln == "frozen":
            scales = norm_scales(
                self.model, [FINAL_SCALE], lambda: head_logits(self.model, residuals[: pairs.n])
            )
            self._scale = scales[FINAL_SCALE]

    def rows(self, residuals: Tensor, pair: Tensor, *, final: bool = False) -> np.ndarray:
        """Return the metric of rows.

        Args:
            residuals: what enters the final norm, `[row, d_model]`.
            pair: pair of each row.
            final: whether the final norm is the receiver's, which `ln="frozen"` freezes.
        """
        parts = [
            self._read(part, of, frozen=final and self._scale is not None)
            for part, of in zip(residuals.split(512), pair.split(512), strict=True)
        ]
        return np.concatenate(parts) if parts else np.empty(0, np.float32)

    def _read(self, residuals: Tensor, pair: Tensor, *, frozen: bool) -> np.ndarray:
        scales = {FINAL_SCALE: self._scale[pair]} if frozen and self._scale is not None else {}
        with frozen_norms(self.model, scales):
            if self._columns is not None:
                values = self._difference(residuals, self._columns[pair])
            else:
                values = self.metric(head_logits(self.model, residuals), self.reference[pair])
        found: np.ndarray = values.float().cpu().numpy()
        return found

    def _proven_columns(self, residuals: Tensor, logits: Tensor) -> Tensor | None:
        """Return the difference of the two answers' unembeddings, `[pair, d_model]`.

        A logit difference needs two columns of the unembedding and not the whole vocabulary. Used
        only where this gives the model's own logit difference on the base runs, and on residuals
        along the columns themselves, where the logits are large: soft-caps, scales and biases
        show there.
        """
        if self.metric is not logit_diff or not hasattr(self.model.bridge, "ln_final"):
            return None
        weight = self.model.hf.get_output_embeddings().weight
        columns = (weight[self.answers[:, 0]] - weight[self.answers[:, 1]]).float()
        along = columns.to(residuals.dtype)
        mine = self._difference(torch.cat([residuals, along]), columns.repeat(3, 1))
        every = torch.cat([logits, head_logits(self.model, along)])
        theirs = self.metric(every, self.answers.repeat(3, 1))
        tolerance = TOLERANCE.get(self.model.dtype, 1e-5) * max(1.0, float(every.abs().max()))
        return columns if float((mine - theirs).abs().max()) <= tolerance else None

    def _difference(self, residuals: Tensor, columns: Tensor) -> Tensor:
        normed = self.model.bridge.ln_final(residuals[:, None])[:, 0]
        return torch.einsum("rd,rd->r", normed.float(), columns)
