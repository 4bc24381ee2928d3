"""Greedy and guided decoding of many rows, with attention read while it is there.

1. Rows are cut into batches (`batches`); the prompts of a batch are visited in sorted order, and
   each is computed up to its last token but one, from where it departs from the last (`path`).
2. The last token of each prompt is the first decoding step; each step runs one token per row
   (`steps`). A batch of one prompt reads keys and values where they lie, others from a copy.
3. A group that stops leaves the batch.
"""

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from mechlab.engine.batching import is_out_of_memory
from mechlab.engine.generation.batches import decode_batches, prefixes_of
from mechlab.engine.generation.masks import Factors, check_masks
from mechlab.engine.generation.paths import Paths
from mechlab.engine.generation.proof import check_attention, proven_twin
from mechlab.engine.generation.rows import (
    Choose,
    Decoded,
    DecodeRow,
    check_groups,
    check_sequences,
    check_stop,
    check_watch,
    context_of,
    greedy,
)
from mechlab.engine.generation.steps import Steps
from mechlab.engine.options import check_whole
from mechlab.errors import MechlabError
from mechlab.progress import Progress, ProgressCallback

if TYPE_CHECKING:
    from mechlab.models import Model

__all__ = ["decode"]


def decode(
    model: "Model",
    prompts: Sequence[Sequence[int]],
    groups: Sequence[Sequence[DecodeRow]],
    *,
    max_new_tokens: int,
    stop: Collection[int] = (),
    choose: Choose = greedy,
    attention: bool = False,
    watch: Sequence[Sequence[int]] | None = None,
    chunk: int = 512,
    at_once: int | None = None,
    progress: ProgressCallback | None = None,
) -> Iterator[tuple[int, list[Decoded]]]:
    """Continue prompts token by token.

    No pattern of queries by keys is ever built: memory grows linearly with length. Prompts that
    begin alike are computed once as far as they do.

    Args:
        model: the model; it is left bitwise as found, and its lock is held while a batch runs.
        prompts: token ids of each prompt, as the model is to see them (BOS included).
        groups: rows decoded side by side. Rows of one group are always in one batch and stop
            together, when the first of them meets a stop token or the end of the context; the
            token of that step is kept by none of them.
        max_new_tokens: most tokens per row.
        stop: token ids that end a row.
        choose: picks the tokens; see `Choose`.
        attention: whether the most attended position per step, layer and head is returned.
        watch: positions per prompt whose summed attention is returned too.
        chunk: tokens of a prompt that are computed at once.
        at_once: most rows per batch (a larger group still runs); `None` goes by memory.
        progress: called after each batch, with groups done; may raise `Cancelled`.

    Yields:
        Index of a group and its rows' results, in the order of the group; groups in any order.

    Raises:
        PromptError: prompts that are empty or leave no room in the context, all at once.
        OptionError, SiteError: options or heads that do not exist. All before anything runs.
        ModelError: a model on which fast attention is not equal to the bridge's.
        MechlabError: when a single group does not fit into memory.
    """
    check_attention(model)
    check_whole("max_new_tokens", max_new_tokens, at_least=1)
    check_whole("chunk", chunk, at_least=1)
    check_whole("at_once", at_once, at_least=1, optional=True)
    check_groups(groups, len(prompts))
    check_watch(watch, prompts, attention=attention)
    check_masks(model, [row.mask for group in groups for row in group])
    check_sequences(model, prompts)
    job = _Job(
        model, prompts, groups, max_new_tokens, check_stop(model, stop), choose, attention, watch
    )
    return _decoded(job, chunk, at_once, progress)


@dataclass(frozen=True)
class _Job:
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
        return (
            self.max_new_tokens if context is None else min(self.max_new_tokens, context - longest)
        )


def _decoded(
    job: _Job, chunk: int, at_once: int | None, progress: ProgressCallback | None
) -> Iterator[tuple[int, list[Decoded]]]:
    if not job.groups:
        return
    longest = max(len(job.prompts[row.prompt]) for group in job.groups for row in group)
    with job.model.lock, torch.no_grad():
        twin = proven_twin(job.model)
        queue = list(
            decode_batches(
                job.model,
                job.prompts,
                job.groups,
                max_new_tokens=job.max_new_tokens,
                at_once=at_once,
            )
        )
    paths = Paths(job.model, twin, capacity=longest, chunk=chunk)
    done = 0
    while queue:
        batch = queue.pop(0)
        with job.model.lock, torch.no_grad():
            paths.refresh()
            found = _with_back_off(_Batch(job, paths, batch).run, batch, queue)
        if found is None:
            continue
        done += len(batch)
        if progress is not None:
            progress(Progress(done, len(job.groups), "groups"))
        yield from found


def _with_back_off(
    run: Callable[[], list[tuple[int, list[Decoded]]]], batch: list[int], queue: list[list[int]]
) -> list[tuple[int, list[Decoded]]] | None:
    """Run a batch; when memory runs out, put its halves in front of the queue and return `None`.

    Raises:
        MechlabError: when a single group does not fit.
    """
    try:
        return run()
    except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        if len(batch) == 1:
            raise MechlabError(
                "out of memory with a single group of rows. Use a shorter prompt, fewer rows per "
                "group, a smaller dtype (bfloat16) or a device with more memory."
            ) from error
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    middle = len(batch) // 2
    queue[:0] = [batch[:middle], batch[middle:]]
    return None


class _Batch:
    """Groups that are decoded side by side."""

    def __init__(self, job: _Job, paths: Paths, groups: list[int]) -> None:
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
            over = {
                self.group_of[row] for row, t in zip(live, tokens, strict=True) if self._ends(t)
            }
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

    def _ends(self, token: int) -> bool:
        return token in self.job.stop

    def _begin(self) -> Steps:
        prefixes = prefixes_of(self.rows, self.job.prompts)
        classes = {mask: place for place, mask in enumerate(dict.fromkeys(m for _, m in prefixes))}
        different = sorted(dict.fromkeys(prefixes), key=lambda p: (classes[p[1]], p[0]))
        place = {prefix: index for index, prefix in enumerate(different)}
        device = self.job.model.device
        owner = torch.tensor([place[prefix] for prefix in prefixes], device=device)
        factors = Factors(
            [row.mask for row in self.rows],
            n_heads=self.job.model.n_heads or 0,
            device=device,
        )
        return Steps(
            self.paths.prefixes(different), owner, factors, self._watched(), self.job.attention
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
