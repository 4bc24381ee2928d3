"""Rows that change a head's output at one position resume after the attention of that block."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from oracles.plain import plain_patch_loop

from mechlab import engine
from mechlab.engine import Base, Row
from mechlab.hooks import Ablate, Patch, Scale, Site, live_sites
from mechlab.models import Model

CLEAN, OTHER = "Paris is the capital of France w1", "Rome was by tower near Italy w7"
LAST = 7
"""Last position of both prompts; before it the last block changes nothing that is read."""
ToyModel = Callable[..., Model]


def rows_at(model: Model, pos: int) -> list[Row]:
    names = [n for n in ("z", "attn_out", "resid_mid", "mlp_out") if n in live_sites(model)]
    rows = [
        Row(0, (Patch(Site(name, layer, pos=pos), 1),))
        for name in names
        for layer in range(model.n_layers if pos == LAST else model.n_layers - 1)
    ]
    rows += [Row(0, (Scale(Site("z", layer, head=1, pos=pos), -2.0),)) for layer in range(2)]
    both = (Ablate(Site("z", 0, head=2, pos=pos)), Patch(Site("mlp_out", 0, pos=pos), 1))
    later = (*both, Ablate(Site("mlp_out", 2)), Patch(Site("resid_post", 1, pos=LAST), 1))
    return [*rows, Row(0, both), Row(0, later)]


@pytest.mark.parametrize("pos", [1, 4, LAST])
def test_rows_that_resume_inside_a_block_equal_plain_runs(
    attention_family: str, pos: int, toy_model: ToyModel
) -> None:
    model = toy_model(attention_family)
    assert engine.verify(model).resumes_inside
    bases, rows = [Base(CLEAN), Base(OTHER)], rows_at(model, pos)
    found = engine.run(model, bases, rows, read="logits")
    plain = torch.stack([logits[-1] for logits in plain_patch_loop(model, bases, rows)])
    np.testing.assert_allclose(found.rows, plain.numpy(), atol=2e-5, rtol=0)
    assert np.abs(found.rows - found.bases[:1]).max(-1).min() > 1e-4


def test_only_the_touched_position_of_that_block_is_run(toy_model: ToyModel) -> None:
    model = toy_model("gpt2")
    engine.verify(model)
    length = len(model.token_strings(CLEAN))
    pos = length - 2
    rows = [Row(0, (Ablate(Site("z", 0, head=0, pos=pos)),))]
    found = engine.run(model, [Base(CLEAN)], rows, read="logits")
    # Two whole blocks follow: two positions in the first, the last one alone in the second.
    assert (found.token_layers, found.keys_only) == (1 + 2 + 1, 1)


def test_a_recurrent_model_runs_whole_blocks(toy_model: ToyModel) -> None:
    assert not engine.verify(toy_model("mamba")).resumes_inside
