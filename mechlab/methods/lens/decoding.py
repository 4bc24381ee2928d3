"""States of the residual stream, and what the unembedding makes of them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from mechlab.engine import Recording
from mechlab.engine.readout import LinearReadout, linear_readout
from mechlab.engine.wavefront import head_logits

if TYPE_CHECKING:
    from mechlab.models import Model

__all__ = ["STREAM", "WRITES", "Decoded", "Decoder", "States", "states_of"]

ROWS = 64
"""States decoded at a time, so that their logits over a large vocabulary fit into memory."""

STREAM = ("resid_pre", "resid_mid", "resid_post")
WRITES = ("attn_out", "mlp_out", "mixer_out")


@dataclass(frozen=True, eq=False)
class States:
    """States of one prompt.

    Attributes:
        values: `[site, layer, pos, d_model]`.
        final: final residual at the same positions, `[pos, d_model]`.
    """

    values: Tensor
    final: Tensor


def states_of(
    recording: Recording,
    sites: Sequence[str],
    layers: Sequence[int],
    positions: str,
    last: tuple[str, int],
) -> States:
    """Keep of a recording the states to decode, and the final residual (`last`) beside them."""
    where = slice(-1, None) if positions == "last" else slice(None)
    values = [
        torch.stack([recording.values[site, layer][where] for layer in layers]) for site in sites
    ]
    return States(torch.stack(values), recording.values[last][where].clone())


@dataclass(frozen=True, eq=False)
class Decoded:
    """One prompt decoded: arrays `[site, layer, pos, ...]`, and its predictions `[pos]`."""

    logit: np.ndarray
    log_probability: np.ndarray
    rank: np.ndarray
    top: np.ndarray
    top_log_probability: np.ndarray
    predicted: np.ndarray


@dataclass(frozen=True, eq=False)
class _Rows:
    """States to decode, one per row.

    Attributes:
        states: `[row, d_model]`.
        tokens: tokens followed, `[row, answer]`, -1 for none.
        in_stream: 1 for states of the residual stream, 0 for writes to it, `[row]`.
        scales: scale of the final norm in the run, `[row]`, or `None`.
    """

    states: Tensor
    tokens: Tensor
    in_stream: Tensor
    scales: Tensor | None

    def __getitem__(self, where: slice) -> "_Rows":
        scales = None if self.scales is None else self.scales[where]
        return _Rows(self.states[where], self.tokens[where], self.in_stream[where], scales)


class Decoder:
    """Turns states into logits, and logits into what is kept of them."""

    def __init__(self, model: "Model", norm: str, top_k: int) -> None:
        """Read the model's head; call it with the model's lock held."""
        self.model, self.norm, self.top_k = model, norm, top_k
        self.readout: LinearReadout | None = linear_readout(model) if norm == "frozen" else None

    def decode(
        self, states: Sequence[States], answers: Sequence[Sequence[int]], sites: Sequence[str]
    ) -> list[Decoded]:
        """Decode prompts side by side.

        Raises:
            ModelError: a frozen norm on a model whose head is not linear behind it.
        """
        finals = [one.final for one in states]
        predicted = [self._predictions(final) for final in finals]
        followed = [
            torch.cat(
                [own[:, None], torch.tensor(asked, device=own.device).expand(len(own), -1)], 1
            )
            for own, asked in zip(predicted, answers, strict=True)
        ]
        kinds = torch.tensor([float(site in STREAM) for site in sites], device=finals[0].device)
        cells = states[0].values.shape[:2]
        each = [cells[1] * len(final) for final in finals]
        scales = None
        if (readout := self.readout) is not None:
            found = [readout.norm.scales(final).repeat(cells.numel()) for final in finals]
            scales = torch.cat(found)
        rows = _Rows(
            torch.cat([one.values.flatten(0, 2) for one in states]),
            torch.cat([tokens.repeat(cells.numel(), 1) for tokens in followed]),
            torch.cat([kinds.repeat_interleave(count) for count in each]),
            scales,
        )
        parts = [self._reduced(rows[i : i + ROWS]) for i in range(0, len(rows.states), ROWS)]
        kept = [torch.cat(part) for part in zip(*parts, strict=True)]
        return list(_parted(kept, states, predicted))

    def _predictions(self, finals: Tensor) -> Tensor:
        """Return the model's own top token for each final residual."""
        found = []
        for part in finals.split(ROWS):
            logits = head_logits(self.model, part)
            if self.readout is not None:
                self.readout.prove(self.model, part, logits)
            found.append(logits.argmax(-1))
        return torch.cat(found)

    def _reduced(self, rows: _Rows) -> tuple[Tensor, ...]:
        """Return logit, log-probability and rank of the tokens, and the top tokens with theirs."""
        logits = self._logits(rows)
        logits = logits if self.model.dtype == torch.float64 else logits.float()
        logs = logits.log_softmax(-1)
        index = rows.tokens.clamp(min=0)
        score = logits.gather(1, index)
        rank = (logits[:, None] > score[:, :, None]).sum(-1).to(logits.dtype)
        top = logits.topk(self.top_k, -1).indices
        followed = (score, logs.gather(1, index), rank)
        there = (part.masked_fill(rows.tokens < 0, float("nan")) for part in followed)
        return (*there, top, logs.gather(1, top))

    def _logits(self, rows: _Rows) -> Tensor:
        """Return logits of states, `[row, vocab]`."""
        if self.norm == "own":
            return head_logits(self.model, rows.states)
        if self.readout is None:
            plain: Tensor = rows.states @ self.model.bridge.W_U.to(rows.states.dtype)
            return plain
        assert rows.scales is not None
        return self.readout.logits(rows.states, rows.scales, constants=rows.in_stream)


def _parted(
    kept: Sequence[Tensor], states: Sequence[States], predicted: Sequence[Tensor]
) -> Iterator[Decoded]:
    """Give every prompt its rows back, in the axes of its states."""
    at = 0
    for one, own in zip(states, predicted, strict=True):
        shape = one.values.shape[:3]
        here = slice(at, at := at + shape.numel())
        logit, logs, rank, top, top_logs = (
            part[here].reshape(*shape, -1).cpu().numpy() for part in kept
        )
        yield Decoded(logit, logs, rank, top, top_logs, own.cpu().numpy())
