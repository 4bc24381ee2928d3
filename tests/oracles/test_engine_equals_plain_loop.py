"""The engine's promise: packed, resumed and cut rows equal one plain run per row."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from oracles.plain import plain_patch_loop, plain_run
from oracles.random_rows import RowMaker

from mechlab.engine import Base, Row, run
from mechlab.hooks import AddNoise, FrozenArray, Scale, Site, Steer
from mechlab.models import Model

SHORT, TWIN, LONG = (
    "Paris is the capital of France w1",
    "Rome was by tower near Italy w7",
    "w4 w9 Oslo is in w5 the river of Norway w2 w3",
)
EMBED = Site("embed")
MODES = {
    "wavefront": {"mode": "wavefront", "suffix": False},
    "suffix": {"mode": "wavefront", "suffix": "auto"},
    "small batches": {"mode": "wavefront", "max_batch": 3},
    "packed": {"mode": "packed"},
    "plain": {"mode": "plain"},
}
ToyModel = Callable[..., Model]


def bases_of(model: Model, read_pos: int | None = None) -> list[Base]:
    """Clean and noised runs of prompts of two lengths, and one base changed in its middle.

    With `read_pos` one of them is read early; without, the last block runs one position only.
    """
    vector = FrozenArray(np.full(model.d_model, 0.3, dtype=np.float32))
    writer = "mlp_out" if model.has_attention else "mixer_out"
    noisy = [AddNoise(EMBED, 2, 3, 0.7, seed=0, draw=draw) for draw in range(2)]
    return [
        Base(SHORT),
        Base(SHORT, (noisy[0],)),
        Base(SHORT, (noisy[1],), read_pos=read_pos),
        Base(TWIN),
        Base(LONG),
        Base(LONG, (AddNoise(EMBED, 3, 5, 0.7, seed=0, draw=0),)),
        Base(SHORT, (Steer(Site("resid_post", 1, pos=3), vector), Scale(Site(writer, 2), 0.5))),
    ]


def expected_logits(model: Model, bases: list[Base], rows: list[Row]) -> np.ndarray:
    """Logits [row, vocab] at each row's read position, by the plain loop."""
    logits = plain_patch_loop(model, bases, rows)
    reads = [bases[row.base].read_pos for row in rows]
    picked = [one[-1 if read is None else read] for one, read in zip(logits, reads, strict=True)]
    return torch.stack(picked).numpy()


@pytest.mark.parametrize("seed", range(3))
def test_random_rows_of_every_kind(family: str, seed: int, toy_model: ToyModel) -> None:
    model = toy_model(family)
    bases = bases_of(model, read_pos=5 if seed == 2 else None)
    maker = RowMaker(model, bases, seed)
    rows = [maker.row() for _ in range(40)]
    expected = expected_logits(model, bases, rows)
    for name, options in MODES.items():
        readings = run(model, bases, rows, read="logits", **options)  # type: ignore[arg-type]
        worst = np.abs(readings.rows - expected).max(-1)
        wrong = [f"{worst[i]:.1e} {rows[i]}" for i in np.flatnonzero(~(worst <= 2e-5))]
        assert not wrong, f"{name}: {len(wrong)} rows\n" + "\n".join(wrong)
    reads = [-1 if base.read_pos is None else base.read_pos for base in bases]
    untouched = np.stack(
        [
            plain_run(model, base.prompt, base.interventions).logits[read]
            for base, read in zip(bases, reads, strict=True)
        ]
    )
    bases_read = [row.base for row in rows]
    moved = np.abs(expected - untouched[bases_read]).max(-1) > 1e-3
    assert moved.mean() > 0.6, "too few rows change anything for the comparison to mean much"
