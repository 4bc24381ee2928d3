"""One batch of rows, decoded step by step to its end."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from mechlab.engine.generation.batches import prefixes_of
from mechlab.engine.generation.masks import Factors
from mechlab.engine.generation.paths import Paths
from mechlab.engine.generation.rows import Choose, Decoded, DecodeRow, context_of
from mechlab.engine.generation.steps import Steps

if TYPE_CHECKING:
    from mechlab.models import Model

__all__ = ["Batch", "Job"]


@dataclass(frozen=True)
class Job:
    """One call of `decode`."""

    model: "Model"
    prompts: Sequence[Sequence[int]]
    groups: Sequence[Sequence[DecodeRow]]
    max_new_tokens: int
    stop: frozenset[int]
    choose: Choose
    attention: bool
    watch: Sequence[Sequence[int]] | None
    first: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Number the rows through all groups."""
        self.first.extend(np.cumsum([0, *(len(group) for group in self.groups)]).tolist())

    def room(self, group: int) -> int:
        """Return how many tokens each row of a group may generate."""
        longest = max(len(self.prompts[row.prompt]) for row in self.groups[group])
        context = context_of(self.model)
        room = self.max_new_tokens if context is None else context - longest
        return min(self.max_new_tokens, room)


class Batch:
    """Groups that are decoded side by side."""

    def __init__(self, job: Job, paths: Paths, groups: list[int]) -> None:
        """Lay out the rows of some groups of a job.

        Args:
            job: the call.
            paths: keys and values that outlast the batch.
            groups: indices of the groups.
        """
        self.job = job
        self.paths = paths
        self.groups = groups
        members = [(group, row) for group in groups for row in range(len(job.groups[group]))]
        self.numbers = [job.first[group] + row for group, row in members]
        self.group_of = [group for group, _ in members]
        self.rows = [job.groups[group][row] for group, row in members]
        self.room = {group: job.room(group) for group in groups}
        self.taken: list[list[_Step]] = [[] for _ in self.rows]
        self.stopped: set[int] = set()

    def run(self) -> list[tuple[int, list[Decoded]]]:
        """Decode all groups to their end."""
        steps = self._begin()
        live = list(range(len(self.rows)))
        ids = [self.job.prompts[row.prompt][-1] for row in self.rows]
        for step in range(self.job.max_new_tokens):
            tokens, logprobs = self._step(steps, ids, step, live)
            ends = [row for row, token in zip(live, tokens, strict=True) if token in self.job.stop]
            over = {self.group_of[row] for row in ends}
            self.stopped |= over
            stay = [at for at, row in enumerate(live) if self.group_of[row] not in over]
            self._take(steps, live, stay, tokens, logprobs)
            full = {group for group, room in self.room.items() if room <= step + 1}
            stay = [at for at in stay if self.group_of[live[at]] not in full]
            if not stay:
                break
            if len(stay) < len(live):
                steps = steps.keep(stay)
            ids = [tokens[at] for at in stay]
            live = [live[at] for at in stay]
        return self._results()

    def _begin(self) -> Steps:
        model = self.job.model
        masks = [row.mask for row in self.rows]
        return Steps(
            self.paths.parts(prefixes_of(self.rows, self.job.prompts)),
            Factors(masks, n_heads=model.n_heads or 0, device=model.device),
            self._watched(),
            self.job.attention,
        )

    def _watched(self) -> tuple[Tensor, Tensor] | None:
        if self.job.watch is None:
            return None
        places = [self.job.watch[row.prompt] for row in self.rows]
        index = torch.zeros(len(places), max(1, *map(len, places)), dtype=torch.long)
        real = torch.zeros(index.shape)
        for row, positions in enumerate(places):
            index[row, : len(positions)] = torch.tensor(list(positions), dtype=torch.long)
            real[row, : len(positions)] = 1.0
        return index.to(self.job.model.device), real.to(self.job.model.device)

    def _step(
        self, steps: Steps, ids: Sequence[int], step: int, live: list[int]
    ) -> tuple[list[int], np.ndarray]:
        """Run one token per live row; return the tokens chosen next and their log-probabilities."""
        device = self.job.model.device
        column = torch.tensor(ids, device=device)[:, None]
        logits = self.paths.twin.run(column, steps.positions, steps, keep=1)[:, -1]
        steps.done += 1
        chosen = self.job.choose(logits, step, [self.numbers[row] for row in live])
        chosen = chosen.to(device=device, dtype=torch.long).reshape(len(live))
        picked = logits.gather(-1, chosen[:, None])[:, 0]
        logprobs = picked.double() - logits.double().logsumexp(-1)
        return chosen.tolist(), logprobs.cpu().numpy()

    def _take(
        self,
        steps: Steps,
        live: list[int],
        stay: list[int],
        tokens: list[int],
        logprobs: np.ndarray,
    ) -> None:
        """Note what the rows that go on, or stop without a stop token, were given."""
        attended = _by_row(steps.attended) if self.job.attention else None
        mass = _by_row(steps.mass) if self.job.watch is not None else None
        for at in stay:
            self.taken[live[at]].append(
                _Step(
                    tokens[at],
                    float(logprobs[at]),
                    None if attended is None else attended[at],
                    None if mass is None else mass[at],
                )
            )

    def _results(self) -> list[tuple[int, list[Decoded]]]:
        found: dict[int, list[Decoded]] = {group: [] for group in self.groups}
        shape = (0, self.job.model.n_layers, self.job.model.n_heads or 0)
        for row, taken in enumerate(self.taken):
            group = self.group_of[row]
            found[group].append(
                Decoded(
                    tuple(step.token for step in taken),
                    group in self.stopped,
                    np.array([step.logprob for step in taken], np.float64),
                    _stacked([step.attended for step in taken], shape, np.int32)
                    if self.job.attention
                    else None,
                    _stacked([step.mass for step in taken], shape, np.float32)
                    if self.job.watch is not None
                    else None,
                )
            )
        return list(found.items())


@dataclass(frozen=True)
class _Step:
    token: int
    logprob: float
    attended: np.ndarray | None
    mass: np.ndarray | None


def _by_row(per_layer: dict[int, Tensor]) -> np.ndarray:
    """From a `[row, head]` tensor per layer to `[row, layer, head]`."""
    layers = [per_layer[layer] for layer in sorted(per_layer)]
    return torch.stack(layers, dim=1).cpu().numpy()


def _stacked(
    steps: list[np.ndarray | None], empty: tuple[int, ...], dtype: type[np.generic]
) -> np.ndarray:
    found = [step for step in steps if step is not None]
    return np.stack(found).astype(dtype) if found else np.zeros(empty, dtype)
