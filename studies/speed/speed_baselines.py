"""The baselines: tracing as published, the same through the bridge, and TransformerLens' loop.

All of them run without gradients and without a key-value cache, on the noise that mechlab draws.
"""

import contextlib
import io
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from speed_measure import block_list
from torch import Tensor, nn
from transformer_lens import patching

import mechlab as ml

__all__ = ["Case", "cells_of", "published", "published_through_bridge", "transformer_lens_loop"]

Cell = tuple[int, int]


@dataclass(frozen=True)
class Case:
    """One model and one prompt.

    Attributes:
        name: what it is called in the output.
        model: what mechlab runs.
        plain: the same weights as a Hugging Face model that no bridge has touched.
        fact: the prompt and its subject.
        std: standard deviation of the noise.
        samples: corrupted runs.
        seed: of the noise.
    """

    name: str
    model: ml.Model
    plain: Any
    fact: ml.prompts.Fact
    std: float
    samples: int
    seed: int = 0

    @property
    def tokens(self) -> Tensor:
        """Token ids, `[1, pos]`."""
        return self.model.tokenize([self.fact.prompt]).tokens

    @property
    def first(self) -> int:
        """First position of the subject."""
        return self.model.subject_positions(self.fact)[0]

    def noise(self, samples: int) -> Tensor:
        """Return the noise that mechlab adds to the subject, `[sample, pos, d_model]`."""
        first, last = self.model.subject_positions(self.fact)
        draws = [
            ml.noise(self.seed, self.fact.prompt, draw, last - first + 1, self.model.d_model)
            for draw in range(samples)
        ]
        return torch.stack(draws) * self.std


def cells_of(case: Case, fraction: int = 1) -> list[Cell]:
    """Return every (layer, position), or every `fraction`-th of them, spread evenly."""
    width = int(case.tokens.shape[1])
    return [(layer, pos) for layer in range(case.model.n_layers) for pos in range(width)][
        fraction // 2 :: fraction
    ]


# --- (a) as published -----------------------------------------------------------------------------


@torch.no_grad()
def published(case: Case, cells: Sequence[Cell], *, last_only: bool = False) -> np.ndarray:
    """Return the indirect effect of each cell: one forward of 1 + samples rows per cell.

    Row 0 stays clean, the others are noised, and the restored state is copied from row 0 inside the
    same forward (Meng et al. 2022, public code). Logits are computed at all positions, as there;
    `last_only` computes those of the last position alone, which the published code does not.
    """
    hf, noise = case.plain, case.noise(case.samples)
    rows = case.tokens.expand(1 + case.samples, -1)
    options = {"logits_to_keep": 1} if last_only else {}

    def forward() -> Tensor:
        logits = hf(rows, use_cache=False, **options).logits[:, -1]
        probabilities: Tensor = logits.float().softmax(-1)
        return probabilities

    def add_noise(output: Tensor) -> None:
        output[1:, case.first : case.first + noise.shape[1]] += noise

    effects = []
    with after(hf.get_input_embeddings(), add_noise):
        start = forward()
        scored = int(start[0].argmax())
        corrupted = start[1:, scored].mean()
        for layer, pos in cells:
            with after(block_list(hf)[layer], _copies_clean(pos)):
                effects.append(float(forward()[1:, scored].mean() - corrupted))
    return np.array(effects)


def _copies_clean(pos: int) -> Callable[[Tensor], None]:
    def copy(state: Tensor) -> None:
        state[1:, pos] = state[0, pos]

    return copy


@contextmanager
def after(module: nn.Module, edit: Callable[[Tensor], None]) -> Iterator[None]:
    """Let `edit` change a module's output in place."""

    def hook(_: nn.Module, __: Any, output: Any) -> None:
        edit(output[0] if isinstance(output, tuple) else output)

    handle = module.register_forward_hook(hook)
    try:
        yield
    finally:
        handle.remove()


@torch.no_grad()
def published_through_bridge(case: Case, cells: Sequence[Cell]) -> np.ndarray:
    """Return the same effects, with TransformerLens' bridge and its hooks running each forward."""
    bridge, noise = case.model.bridge, case.noise(case.samples)
    rows = case.tokens.expand(1 + case.samples, -1)

    def add_noise(state: Tensor, hook: Any) -> Tensor:
        state = state.clone()
        state[1:, case.first : case.first + noise.shape[1]] += noise
        return state

    def restore(pos: int) -> Callable[..., Tensor]:
        def copy(state: Tensor, hook: Any) -> Tensor:
            state = state.clone()
            state[1:, pos] = state[0, pos]
            return state

        return copy

    def forward(*hooks: tuple[str, Any]) -> Tensor:
        edits = [("hook_embed", add_noise), *hooks]
        logits = bridge.run_with_hooks(rows, fwd_hooks=edits, use_cache=False)[:, -1]
        probabilities: Tensor = logits.float().softmax(-1)
        return probabilities

    start = forward()
    scored = int(start[0].argmax())
    corrupted = start[1:, scored].mean()
    return np.array(
        [
            float(
                forward((f"blocks.{layer}.hook_out", restore(pos)))[1:, scored].mean() - corrupted
            )
            for layer, pos in cells
        ]
    )


# --- (b) TransformerLens' own loop ----------------------------------------------------------------


@torch.no_grad()
def transformer_lens_loop(case: Case) -> Callable[[], np.ndarray]:
    """Return a call of `get_act_patch_resid_pre` over all cells, for one noised run.

    The loop has no noise of its own: a hook adds draw 0 to the embeddings of every run inside it.
    It patches one row per forward, so it stands for one corrupted run. The clean activations that
    it reads are made here, outside the timed call.
    """
    bridge, noise, tokens = case.model.bridge, case.noise(1)[0], case.tokens
    clean_logits, cache = bridge.run_with_cache(tokens)
    scored = int(clean_logits[0, -1].argmax())

    def probability(logits: Tensor) -> Tensor:
        return logits[0, -1].float().softmax(-1)[scored]

    def add_noise(state: Tensor, hook: Any) -> Tensor:
        state = state.clone()
        state[:, case.first : case.first + len(noise)] += noise
        return state

    @torch.no_grad()
    def run() -> np.ndarray:
        bridge.add_hook("hook_embed", add_noise)
        try:
            corrupted = probability(bridge(tokens))
            with contextlib.redirect_stderr(io.StringIO()):  # its progress bar
                grid = patching.get_act_patch_resid_pre(bridge, tokens, cache, probability)
        finally:
            bridge.reset_hooks()
        effects: np.ndarray = (grid - corrupted).cpu().numpy()
        return effects

    return run
