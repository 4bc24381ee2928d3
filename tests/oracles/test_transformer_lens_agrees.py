"""TransformerLens's own patching gives the same grid as the engine, cell by cell.

It runs one forward per cell through hooks of its own making; the engine packs and resumes.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from toys import ATTENTION_FAMILIES, FAMILIES, N_HEADS, N_LAYERS
from transformer_lens import patching

from mechlab.engine import Base, Row, run
from mechlab.hooks import Patch, Site
from mechlab.models import Model

CLEAN, CORRUPTED = "Paris is the capital of France w1", "Rome was by tower near Italy w7"
N_POS = 8
ANSWER, WRONG = 12, 40
GRIDS = [("resid_pre", family) for family in FAMILIES]
GRIDS += [(site, family) for site in ("attn_out", "mlp_out") for family in ATTENTION_FAMILIES]
ToyModel = Callable[..., Model]


def logit_difference(logits: torch.Tensor) -> torch.Tensor:
    return (logits[:, -1, ANSWER] - logits[:, -1, WRONG]).mean()


def engine_effect(model: Model, sites: list[Site]) -> np.ndarray:
    """Logit difference of the corrupted run with each site taken from the clean run."""
    rows = [Row(0, (Patch(site, source=1),)) for site in sites]
    logits = run(model, [Base(CORRUPTED), Base(CLEAN)], rows, read="logits").rows
    return logits[:, ANSWER] - logits[:, WRONG]


@torch.no_grad()
def their_grid(model: Model, function: str) -> np.ndarray:
    bridge: Any = model.bridge
    clean = bridge.run_with_cache(model.tokenize([CLEAN]).tokens)[1]
    corrupted = model.tokenize([CORRUPTED]).tokens
    grid = getattr(patching, function)(bridge, corrupted, clean, logit_difference)
    return grid.cpu().numpy()


@pytest.mark.parametrize(("site", "family"), GRIDS)
def test_layer_by_position_grids_agree(site: str, family: str, toy_model: ToyModel) -> None:
    model = toy_model(family)
    theirs = their_grid(model, f"get_act_patch_{site}")
    sites = [Site(site, layer, pos=pos) for layer in range(N_LAYERS) for pos in range(N_POS)]
    ours = engine_effect(model, sites).reshape(N_LAYERS, N_POS)
    assert theirs.shape == ours.shape
    assert np.abs(ours - theirs).max() <= 1e-5
    assert np.ptp(theirs) > 0.1, "a flat grid would agree with anything"


def test_head_grids_agree(attention_family: str, toy_model: ToyModel) -> None:
    model = toy_model(attention_family)
    theirs = their_grid(model, "get_act_patch_attn_head_out_all_pos")
    sites = [Site("z", layer, head) for layer in range(N_LAYERS) for head in range(N_HEADS)]
    ours = engine_effect(model, sites).reshape(N_LAYERS, N_HEADS)
    assert np.abs(ours - theirs).max() <= 1e-5
    assert np.ptp(theirs) > 0.1
