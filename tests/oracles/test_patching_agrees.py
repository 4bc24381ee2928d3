"""`activation_patch` gives TransformerLens' grids and nnsight's patches, cell by cell.

TransformerLens runs one forward per cell through hooks of its own making; nnsight hooks its own
copy of the plain model. Attribution patching is compared with TransformerLens' own as well.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import toys
from numpy.testing import assert_allclose
from oracles import nnsight_runs
from transformer_lens import patching
from transformer_lens.tools.analysis import attribution_patching as theirs

from mechlab.methods import activation_patch, attribution_patch
from mechlab.models import Model
from mechlab.prompts import PromptPair

ToyModel = Callable[..., Model]
PAIR = PromptPair(
    "Paris is the capital of France w1", "Rome was by tower near Italy w7", "Paris", "Rome"
)
RESIDUAL = [("resid_pre", family) for family in toys.FAMILIES]
RESIDUAL += [
    (site, family) for site in ("attn_out", "mlp_out") for family in toys.ATTENTION_FAMILIES
]
SITES = {"out": "z", "q": "q", "k": "k", "v": "v", "pattern": "pattern"}
HEADS = [(name, family) for name in SITES for family in toys.ATTENTION_FAMILIES]


def difference(model: Model) -> Callable[[torch.Tensor], torch.Tensor]:
    word = model.tokenizer.convert_tokens_to_ids
    right, wrong = word(PAIR.answer), word(PAIR.wrong_answer)
    return lambda logits: logits[0, -1, right] - logits[0, -1, wrong]


@torch.no_grad()
def their_grid(model: Model, function: str) -> np.ndarray:
    """Effects of TransformerLens' denoising patch: its metric minus that of the corrupted run."""
    bridge: Any = model.bridge
    metric = difference(model)
    clean = bridge.run_with_cache(model.tokenize([PAIR.clean]).tokens)[1]
    corrupted = model.tokenize([PAIR.corrupted]).tokens
    grid = getattr(patching, function)(bridge, corrupted, clean, metric)
    found: np.ndarray = (grid - metric(bridge(corrupted))).cpu().numpy()
    return found


@pytest.mark.parametrize(("site", "family"), RESIDUAL)
def test_layers_by_positions(site: str, family: str, toy_model: ToyModel) -> None:
    model = toy_model(family)
    ours = activation_patch(model, PAIR, site=site, by="layer", positions="each")
    expected = their_grid(model, f"get_act_patch_{site}")
    assert ours.effect.dims == ("prompt", "layer", "pos")
    assert_allclose(ours.effect[0], expected, atol=1e-5)
    assert np.ptp(expected) > 0.1, "a flat grid would agree with anything"


@pytest.mark.parametrize(("name", "family"), HEADS)
def test_heads(name: str, family: str, toy_model: ToyModel) -> None:
    model = toy_model(family)
    by: Any = "kv_head" if name in "kv" else "head"
    ours = activation_patch(model, PAIR, site=SITES[name], by=by)
    expected = their_grid(model, f"get_act_patch_attn_head_{name}_all_pos")
    assert_allclose(ours.effect[0], expected, atol=1e-5)
    assert np.ptp(expected) > 0.02


@pytest.mark.parametrize("name", ["out", "k"])
def test_heads_by_positions(name: str, attention_family: str, toy_model: ToyModel) -> None:
    model = toy_model(attention_family)
    by: Any = "kv_head" if name == "k" else "head"
    ours = activation_patch(model, PAIR, site=SITES[name], by=by, positions="each")
    expected = their_grid(model, f"get_act_patch_attn_head_{name}_by_pos")  # [layer, pos, head]
    assert_allclose(ours.effect[0].transpose("layer", "pos", by), expected, atol=1e-5)
    assert np.ptp(expected) > 0.02


@pytest.mark.parametrize("direction", ["denoising", "noising"])
def test_one_head_at_one_position_through_nnsight(
    direction: Any, attention_family: str, toy_model: ToyModel
) -> None:
    model, layer, head, pos = toy_model(attention_family), 1, 2, 7
    hf = toys.make_hf(attention_family)
    texts = [PAIR.corrupted, PAIR.clean]
    texts = texts if direction == "denoising" else texts[::-1]
    target, source = (model.tokenize([text]).tokens for text in texts)
    value = nnsight_runs.head_values(hf, attention_family, source, layer)[pos, head]
    patched = nnsight_runs.written_head(hf, attention_family, target, layer, head, pos, value)
    own = nnsight_runs.head_values(hf, attention_family, target, layer)[pos, head]
    plain = nnsight_runs.written_head(hf, attention_family, target, layer, head, pos, own)
    metric = difference(model)
    expected = float(metric(patched[None]) - metric(plain[None]))
    ours = activation_patch(
        model, PAIR, heads=[f"L{layer}H{head}"], positions=[pos], direction=direction
    )
    assert float(ours.effect.sel(layer=layer, head=head)[0]) == pytest.approx(expected, abs=1e-5)
    assert abs(expected) > 1e-3


@pytest.mark.parametrize("site", ["resid_post", "mlp_out", "attn_out"])
def test_one_layer_at_one_position_through_nnsight(
    site: str, attention_family: str, toy_model: ToyModel
) -> None:
    model, layer, pos = toy_model(attention_family), 1, 4
    hf, metric = toys.make_hf(attention_family), difference(model)
    target = model.tokenize([PAIR.corrupted]).tokens
    source = model.tokenize([PAIR.clean]).tokens
    sides = [
        nnsight_runs.site_value(hf, attention_family, tokens, layer, site)[pos]
        for tokens in (source, target)
    ]
    patched, plain = (
        nnsight_runs.written(hf, attention_family, target, layer, site, pos, value)
        for value in sides
    )
    expected = float(metric(patched[None]) - metric(plain[None]))
    ours = activation_patch(model, PAIR, site=site, by="layer", layers=[layer], positions=[pos])
    assert float(ours.effect[0, 0]) == pytest.approx(expected, abs=1e-5)
    assert abs(expected) > 1e-3


def test_attribution_patching(attention_family: str, fresh_model: ToyModel) -> None:
    """TransformerLens scores nodes by name; those of heads and MLPs are compared per position."""
    model = fresh_model(attention_family)
    model.hf.requires_grad_(True)  # theirs follows gradients from the parameters
    clean, corrupted = (model.tokenize([text]).tokens for text in (PAIR.clean, PAIR.corrupted))
    found = theirs.attribution_patch(model.bridge, clean, corrupted, difference(model))
    heads = attribution_patch(model, PAIR, positions="each").effect[0]
    mlps = attribution_patch(model, PAIR, site="mlp_out", by="layer", positions="each").effect[0]
    compared = 0
    for node, score in found.node_scores.items():
        if node.kind == "attn_head_out":
            ours = heads.sel(layer=node.layer, head=node.head, pos=node.position)
        elif node.kind == "mlp_out":
            ours = mlps.sel(layer=node.layer, pos=node.position)
        else:
            continue
        assert float(ours) == pytest.approx(float(score), abs=1e-5), node
        compared += 1
    assert compared == heads.size + mlps.size
    assert float(np.abs(heads).max()) > 0.05
