"""mechlab's engine, TransformerLens hooks and nnsight give the same logits for the same edit.

nnsight runs on its own copy of the plain Hugging Face model, so agreement means that a site is
where its name says. Every edit must also change the logits: two no-ops would agree as well.
"""

from collections.abc import Callable

import numpy as np
import pytest
import torch
import toys
from oracles import nnsight_runs
from oracles.plain import plain_run

from mechlab.engine import Base, Row, run
from mechlab.hooks import Ablate, AddNoise, Intervention, Patch, Site, noise
from mechlab.models import Model

CLEAN, OTHER = "Paris is the capital of France w1", "Rome was by tower near Italy w7"
N_POS = 8
WRITERS = [(s, f) for f in toys.ATTENTION_FAMILIES for s in ("attn_out", "mlp_out")]
WRITERS += [("mixer_out", f) for f in toys.RECURRENT_FAMILIES]
ToyModel = Callable[..., Model]


def tokens_of(model: Model, text: str) -> torch.Tensor:
    return model.tokenize([text]).tokens


def agree(
    model: Model, step: Intervention, expected: torch.Tensor, base: Base | None = None
) -> None:
    """Engine, plain hooks and `expected` [pos, vocab] agree, and differ from the untouched run."""
    bases = [base or Base(CLEAN), Base(OTHER)]
    rows = [Row(0, (step,))]
    sources = [plain_run(model, b.prompt, b.interventions, keep=True) for b in bases]
    hooked = plain_run(model, CLEAN, (*bases[0].interventions, step), sources).logits
    assert float((hooked - expected).abs().max()) <= 1e-5
    for mode in ("wavefront", "packed"):
        reading = run(model, bases, rows, read="logits", mode=mode).rows[0]  # type: ignore[arg-type]
        assert np.abs(reading - expected[-1].numpy()).max() <= 1e-5, mode
    assert float((sources[0].logits[-1] - expected[-1]).abs().max()) > 1e-3, "nothing changed"


def test_unpatched_logits(family: str, toy_model: ToyModel) -> None:
    model, hf = toy_model(family), toys.make_hf(family)
    tokens = tokens_of(model, CLEAN)
    value = nnsight_runs.site_value(hf, family, tokens, 1, "resid_post")
    same = nnsight_runs.written(hf, family, tokens, 1, "resid_post", 4, value[4])
    assert float((same - plain_run(model, CLEAN).logits).abs().max()) <= 1e-5


@pytest.mark.parametrize(("layer", "pos"), [(0, 2), (1, 5), (2, 7)])
def test_residual_patch(family: str, layer: int, pos: int, toy_model: ToyModel) -> None:
    model, hf = toy_model(family), toys.make_hf(family)
    value = nnsight_runs.site_value(hf, family, tokens_of(model, OTHER), layer, "resid_post")
    expected = nnsight_runs.written(
        hf, family, tokens_of(model, CLEAN), layer, "resid_post", pos, value[pos]
    )
    agree(model, Patch(Site("resid_post", layer, pos=pos), source=1), expected)


@pytest.mark.parametrize(("site", "family"), WRITERS)
def test_writer_patch(family: str, site: str, toy_model: ToyModel) -> None:
    model, hf = toy_model(family), toys.make_hf(family)
    value = nnsight_runs.site_value(hf, family, tokens_of(model, OTHER), 1, site)
    expected = nnsight_runs.written(hf, family, tokens_of(model, CLEAN), 1, site, 5, value[5])
    agree(model, Patch(Site(site, 1, pos=5), source=1), expected)


@pytest.mark.parametrize("head", [0, 3])
def test_head_patch(attention_family: str, head: int, toy_model: ToyModel) -> None:
    model, hf = toy_model(attention_family), toys.make_hf(attention_family)
    values = nnsight_runs.head_values(hf, attention_family, tokens_of(model, OTHER), 1)
    assert values.shape == (N_POS, toys.N_HEADS, toys.D_HEAD)
    expected = nnsight_runs.written_head(
        hf, attention_family, tokens_of(model, CLEAN), 1, head, 6, values[6, head]
    )
    agree(model, Patch(Site("z", 1, head=head, pos=6), source=1), expected)


def test_mlp_ablation(attention_family: str, toy_model: ToyModel) -> None:
    model, hf = toy_model(attention_family), toys.make_hf(attention_family)
    nothing = torch.zeros(toys.D_MODEL)
    expected = nnsight_runs.written(
        hf, attention_family, tokens_of(model, CLEAN), 1, "mlp_out", 4, nothing
    )
    agree(model, Ablate(Site("mlp_out", 1, pos=4)), expected)


def test_the_same_noise_on_the_embeddings(family: str, toy_model: ToyModel) -> None:
    model, hf = toy_model(family), toys.make_hf(family)
    draw = noise(7, CLEAN, 2, 2, toys.D_MODEL) * 0.5
    expected = nnsight_runs.noised(hf, family, tokens_of(model, CLEAN), 3, draw)
    agree(model, AddNoise(Site("embed"), 3, 4, 0.5, seed=7, draw=2), expected)
    other = nnsight_runs.noised(
        hf, family, tokens_of(model, CLEAN), 3, noise(7, CLEAN, 3, 2, toys.D_MODEL) * 0.5
    )
    assert float((other - expected).abs().max()) > 1e-3


def test_restoring_into_a_noised_run(family: str, toy_model: ToyModel) -> None:
    """One cell of causal tracing, by three mechanisms."""
    model, hf = toy_model(family), toys.make_hf(family)
    tokens, first, layer, pos = tokens_of(model, CLEAN), 1, 1, 1
    draw = noise(0, CLEAN, 0, 1, toys.D_MODEL) * 0.5
    clean = nnsight_runs.site_value(hf, family, tokens, layer, "resid_post")
    expected = nnsight_runs.noised_and_restored(
        hf, family, tokens, first, draw, layer, pos, clean[pos]
    )
    noised = Base(CLEAN, (AddNoise(Site("embed"), first, first, 0.5, seed=0, draw=0),))
    step = Patch(Site("resid_post", layer, pos=pos), source=1)
    bases = [noised, Base(CLEAN)]
    reading = run(model, bases, [Row(0, (step,))], read="logits")
    assert np.abs(reading.rows[0] - expected[-1].numpy()).max() <= 1e-5
    assert np.abs(reading.rows[0] - reading.bases[0]).max() > 1e-3
