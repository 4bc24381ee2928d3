"""Path patching agrees with TransformerLens' direct paths and with three whole runs per edge."""

import random
from collections.abc import Callable
from itertools import product

import numpy as np
import pytest
import torch
import toys
from oracles import post_norm
from oracles.three_passes import path_logits
from toys import N_HEADS, N_KV_HEADS, N_LAYERS
from transformer_lens.patching import get_act_patch_direct_path

import mechlab as ml
from mechlab.engine import PathPrompt, run_paths
from mechlab.models import Model, wrap_model

CLEAN, CORRUPTED = "Paris is the capital of France w1", "Rome was by tower near Italy w7"
LATE, LATE_CORRUPTED = "Paris is the capital w7 France w1", "Paris is the w3 w7 Italy w1"
PAIRS = [
    ml.prompts.PromptPair(CLEAN, CORRUPTED, "w5", "w9"),
    ml.prompts.PromptPair(LATE, LATE_CORRUPTED, "w5", "w9"),
]
SHORT = ml.prompts.PromptPair("Oslo is in w5 the river", "Lima was in w6 the tower", "w8", "w2")
Site = ml.Site
ToyModel = Callable[..., Model]


def logit_difference(model: Model) -> Callable[[torch.Tensor], torch.Tensor]:
    ((a,), (b,)) = model.answer_tokens([CLEAN, CLEAN], ["w5", "w9"])
    return lambda logits: (logits[:, -1, a] - logits[:, -1, b]).mean()


@torch.no_grad()
def their_grid(model: Model, pair: ml.prompts.PromptPair, component: str, layer: int, head: int):
    clean, corrupted = (model.tokenize([text]).tokens for text in (pair.clean, pair.corrupted))
    caches = [model.bridge.run_with_cache(tokens)[1] for tokens in (clean, corrupted)]
    metric = logit_difference(model)
    grid = get_act_patch_direct_path(
        model.bridge, corrupted, *caches, metric, layer, head, component, verbose=False
    ).numpy()
    grid[: layer + 1] = np.nan  # placeholders there
    return grid


COMPONENTS = [("gpt2", "q"), ("gpt2", "k"), ("gpt2", "v"), ("neox", "q"), ("neox", "k")]
COMPONENTS += [("neox", "v"), ("llama", "q")]


@pytest.mark.parametrize(("family", "component"), COMPONENTS)
def test_direct_edges_equal_those_of_transformer_lens(
    family: str, component: str, toy_model: ToyModel
) -> None:
    model = toy_model(family)
    senders = [Site("z", 0, 0), Site("z", 1, 3)]
    pairs = PAIRS if component == "q" else PAIRS[:1]
    ours = ml.path_patch(
        model,
        pairs,
        senders=senders,
        receivers=f"all_heads_{component}",
        freeze="heads+mlps",
        direction="denoising",
    )
    for number, pair in enumerate(pairs):
        for place, sender in enumerate(senders):
            theirs = their_grid(model, pair, component, sender.layer, sender.head)
            mine = ours.patched.values[number, place].reshape(N_LAYERS, N_HEADS)
            np.testing.assert_allclose(mine, theirs, atol=1e-5, rtol=0)  # NaN in the same cells
    assert float(np.nanmax(np.abs(ours.effect))) > 1e-2


@pytest.mark.parametrize("component", ["k", "v"])
def test_shared_keys_and_values_are_refused_by_both(component: str, toy_model: ToyModel) -> None:
    model = toy_model("llama")
    with pytest.raises(ValueError, match="n_key_value_heads"):
        their_grid(model, PAIRS[0], component, 0, 0)
    with pytest.raises(ml.SiteError, match="a group shares them"):
        ml.path_patch(model, PAIRS, receivers=f"all_heads_{component}")


def test_layers_from_ten_on_are_not_taken_for_others(fresh_model: ToyModel) -> None:
    model = fresh_model("gpt2", n_layers=12)
    senders = [Site("z", 9, 1), Site("z", 10, 2)]
    ours = ml.path_patch(
        model,
        PAIRS[0],
        senders=senders,
        receivers="all_heads_q",
        freeze="heads+mlps",
        direction="denoising",
    )
    for place, sender in enumerate(senders):
        theirs = their_grid(model, PAIRS[0], "q", sender.layer, sender.head)
        mine = ours.patched.values[0, place].reshape(12, N_HEADS)
        np.testing.assert_allclose(mine, theirs, atol=1e-5, rtol=0)
        assert np.nanmax(np.abs(mine - float(ours.corrupted_metric[0]))) > 1e-3


# --- three whole runs -----------------------------------------------------------------------------

Nodes = list[tuple[ml.Site, ...]]


def senders_of(model: Model) -> Nodes:
    """One of every kind, and some together."""
    return [
        (Site("z", 0, 1),),
        (Site("z", 1, 3),),
        (Site("z", 2, 2),),
        (Site("attn_out", 1),),
        (Site("mlp_out", 0),),
        (Site("mlp_out", 2),),
        (Site("embed"),),
        (Site("z", 0, 1, pos=4),),
        (Site("z", 0, 1), Site("mlp_out", 0), Site("z", 1, 2)),
        (Site("embed"), Site("mlp_out", 1, pos=6)),
    ]


def receivers_of(model: Model) -> Nodes:
    last_kv = (model.n_kv_heads or 0) - 1
    found: Nodes = [
        (),
        (Site("q", 1, 2),),
        (Site("q", 2, 0, pos=6),),
        (Site("k", 2, last_kv),),
        (Site("v", 1, 0),),
        (Site("v", 2),),
        (Site("mlp_out", 1),),
        (Site("mlp_out", 2),),
        (Site("q", 2, 0), Site("q", 2, 1)),
        (Site("k", 2, 0), Site("q", 2, 1)),
        (Site("q", 1, 0), Site("v", 2, 1)),
        (Site("q", 1, 2), Site("mlp_out", 2)),
        (Site("v", 1, 0, pos=3), Site("mlp_out", 1, pos=4)),
    ]
    if N_KV_HEADS == N_HEADS or model.n_kv_heads == model.n_heads:
        found += [(Site("pattern", 2, 1),), (Site("z", 1, 1),)]
    return found


RAGGED = [[4, 7], [6], [1, 3, 4, 5]]


@pytest.mark.parametrize("freeze", ["heads", "heads+mlps"])
@pytest.mark.parametrize("ln", ["recompute", "frozen"])
def test_every_edge_equals_three_whole_runs(
    freeze: str, ln: str, attention_family: str, toy_model: ToyModel
) -> None:
    model = toy_model(attention_family)
    draw = random.Random(f"{freeze} {ln} {attention_family}")
    pairs = [PAIRS[0], SHORT, PAIRS[1]]
    largest = 0.0
    for positions, direction in ((None, "noising"), (RAGGED, "denoising")):
        senders = [(Site("z", 0, 1),), *draw.sample(senders_of(model)[1:], 3)]
        receivers = [(), *draw.sample(receivers_of(model)[1:], 5)]
        found = ml.path_patch(
            model,
            pairs,
            senders=senders,
            receivers=[node or "logits" for node in receivers],
            freeze=freeze,
            ln=ln,
            direction=direction,
            positions="all" if positions is None else positions,
        )
        start = found.clean_metric if direction == "noising" else found.corrupted_metric
        every = list(product(range(len(pairs)), range(len(senders)), range(len(receivers))))
        there = [edge for edge in every if not np.isnan(found.patched.values[edge])]
        missing = [edge for edge in every if np.isnan(found.patched.values[edge])]
        for edge in [*draw.sample(there, min(6, len(there))), *missing[:1]]:
            number, sender, receiver = edge
            texts = pairs[number].clean, pairs[number].corrupted
            theirs = difference(
                model,
                pairs[number],
                path_logits(
                    model,
                    *(texts if direction == "noising" else texts[::-1]),
                    senders[sender],
                    receivers[receiver],
                    freeze=freeze,
                    ln=ln,
                    positions=None if positions is None else positions[number],
                ),
            )
            # An edge that does not exist moves nothing.
            mine = start.values[number] if edge in missing else found.patched.values[edge]
            named = f"{senders[sender]} -> {receivers[receiver]} of pair {number}"
            assert theirs == pytest.approx(mine, abs=1e-5), named
            largest = max(largest, abs(theirs - start.values[number]))
    assert largest > 0.05


def difference(model: Model, pair: ml.prompts.PromptPair, logits: torch.Tensor) -> float:
    right, wrong = model.answer_tokens([pair.clean] * 2, [pair.answer, pair.wrong_answer])
    return float(logits[right[0]] - logits[wrong[0]])


@pytest.mark.parametrize("sender", [(Site("mlp_out", 1),), (Site("z", 1, 1),)])
def test_receivers_set_together_may_lie_before_the_sender(
    sender: tuple[ml.Site, ...], toy_model: ToyModel
) -> None:
    """With the earlier ones nothing happens, also when no sender of the call reaches them."""
    model = toy_model("llama")
    receiver = (Site("v", 1, 0), Site("mlp_out", 1), Site("q", 2, 3), Site("mlp_out", 2))
    found = ml.path_patch(model, SHORT, senders=[sender], receivers=[receiver])
    texts = SHORT.clean, SHORT.corrupted
    theirs = path_logits(model, *texts, sender, receiver, freeze="heads")
    assert found.patched.item() == pytest.approx(difference(model, SHORT, theirs), abs=1e-5)
    assert abs(found.effect.item()) > 1e-2


def test_paths_through_norms_behind_modules_and_capped_logits_equal_three_whole_runs() -> None:
    model = wrap_model(post_norm.make_hf(), toys.make_tokenizer(), name="post-norm")
    senders: Nodes = [(Site("z", 0, 1),), (Site("mlp_out", 1),), (Site("z", 2, 3),)]
    receivers: Nodes = [(), (Site("q", 2, 1),), (Site("v", 1, 1),), (Site("mlp_out", 2),)]
    prompts = [PathPrompt(pair.clean, pair.corrupted, (12, 40)) for pair in PAIRS[:1]]
    found = run_paths(model, prompts, senders, receivers, freeze="heads")
    for (s, sender), (r, receiver) in product(enumerate(senders), enumerate(receivers)):
        if not np.isnan(found.patched[0, s, r]):
            texts = prompts[0].original, prompts[0].new
            logits = path_logits(model, *texts, sender, receiver, freeze="heads")
            difference = float(logits[12] - logits[40])
            assert difference == pytest.approx(found.patched[0, s, r], abs=1e-5)
            assert abs(found.patched[0, s, r] - found.original[0]) > 1e-4
    assert int(np.isnan(found.patched).sum()) == 3
