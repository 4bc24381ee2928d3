"""Path patching: theorems on hand-built circuits and on random models."""

import random
from collections.abc import Callable
from functools import cache

import circuits
import numpy as np
import pytest
import torch

import mechlab as ml
from mechlab.engine import PathPrompt, run_paths
from mechlab.hooks import Ablate
from mechlab.models import Model

PAIR = ml.prompts.PromptPair(
    "Paris is the capital of France w1", "Rome was by tower near Italy w7", "w5", "w9"
)
LATE = ml.prompts.PromptPair(
    "Paris is the capital w7 France w1", "Paris is the w3 w7 Italy w1", "w5", "w9"
)
LONG = ml.prompts.PromptPair(
    "w4 w9 Oslo is in w5 the river", "w4 w9 Lima was in w6 the tower", "w8", "w2"
)
Site = ml.Site
ToyModel = Callable[..., Model]


def nodes_of(model: Model) -> list[ml.Site]:
    """Everything that writes to the residual stream."""
    layers, heads = range(model.n_layers), range(model.n_heads or 0)
    writes = [Site("z", layer, head) for layer in layers for head in heads]
    return [Site("embed"), *writes, *(Site("mlp_out", layer) for layer in layers)]


# --- hand-built circuits --------------------------------------------------------------------------

CIRCUITS = [
    (circuits.conflict, "gpt2"),
    (circuits.two_hop, "gpt2"),
    (circuits.two_hop, "llama"),
    (circuits.mlp_relay, "gpt2"),
    (circuits.name_mover, "gpt2"),
    (circuits.backup, "gpt2"),
    (circuits.copy_head, "llama"),
    (circuits.fact_head, "gpt2"),
    (circuits.anti_copy, "llama"),
]


@cache
def planted(make: Callable[..., circuits.Circuit], family: str = "gpt2") -> circuits.Circuit:
    return make(family)


@pytest.mark.parametrize(("make", "family"), CIRCUITS)
def test_exactly_the_planted_edges_are_found(
    make: Callable[..., circuits.Circuit], family: str
) -> None:
    circuit = planted(make, family)
    kv = "all_kv_heads" if family == "llama" else "all_heads"
    receivers = ["all_heads_q", f"{kv}_k", f"{kv}_v", "all_mlps", "logits"]
    result = ml.path_patch(
        circuit.model, circuit.pairs, senders="all", receivers=receivers, freeze="heads+mlps"
    )
    effect = np.abs(result.effect.where(result.sender_kind != "embed", drop=True)).max("prompt")
    found = {
        (str(s), str(r))
        for s, row in zip(effect.sender.values, effect.values, strict=True)
        for r, value in zip(effect.receiver.values, row, strict=True)
        if value > 1e-4
    }
    per_group = (circuit.model.n_heads or 1) // (circuit.model.n_kv_heads or 1)
    known = {(name(e.sender), target(e, per_group)) for e in circuit.edges}
    # Resampling the primary head of `backup` keeps its flag up, so that this edge shows nothing.
    silent = {edge for edge in known if make is circuits.backup and edge[1] == "L1H2.q"}
    assert found == known - silent
    others = effect.values[effect.values <= 1e-4]
    assert others.max() == 0.0, "silent components must show exactly nothing"


def test_the_edge_to_a_backup_head_shows_when_the_primary_one_is_silent() -> None:
    circuit = planted(circuits.backup)
    primary, second = circuit.heads["primary"], circuit.heads["backup"]
    pair, size = circuit.pairs[0], circuit.clean[0]
    words = [pair.answer, pair.wrong_answer]
    answers = tuple(ids[0] for ids in circuit.model.answer_tokens([pair.clean] * 2, words))
    sender = Site("z", primary.layer, primary.head)
    silent = PathPrompt(pair.clean, pair.clean, answers, changes=(Ablate(sender),))
    receivers = [(Site(part, second.layer, second.head),) for part in "qkv"]
    found = run_paths(circuit.model, [silent], [(sender,)], receivers, freeze="heads")
    np.testing.assert_allclose(found.patched[0, 0], [2 * size, size, size], atol=1e-4)


def name(component: object) -> str:
    return f"MLP {component}" if isinstance(component, int) else str(component)


def target(edge: circuits.Edge, per_group: int) -> str:
    if edge.receiver is None:
        return "logits"
    if isinstance(edge.receiver, int):
        return name(edge.receiver)
    head = edge.receiver.head // (per_group if edge.via in ("k", "v") else 1)
    return f"{ml.Head(edge.receiver.layer, head)}.{edge.via}"


def test_a_composition_path_moves_the_output_by_its_closed_form() -> None:
    circuit = circuits.two_hop(first=1.25, second=3.0)
    first, second = circuit.heads["first"], circuit.heads["second"]
    effects = {
        name: ml.path_patch(
            circuit.model,
            circuit.pairs,
            senders=[first],
            receivers=[Site(name, second.layer, second.head)],
        ).effect.values.squeeze()
        for name in ("q", "k", "v")
    }
    # The corrupted source leads to the wrong answer: +1.25 * 3 becomes -1.25 * 3.
    np.testing.assert_allclose(effects["v"], -2 * 1.25 * 3.0, atol=1e-4)
    assert (effects["q"] == 0).all() and (effects["k"] == 0).all()


@pytest.mark.parametrize("make", [circuits.two_hop, circuits.mlp_relay, circuits.conflict])
def test_a_total_effect_is_the_sum_over_first_order_paths_where_paths_are_linear(
    make: Callable[..., circuits.Circuit],
) -> None:
    circuit = planted(make)
    total = ml.activation_patch(circuit.model, circuit.pairs, by="head", direction="noising").effect
    receivers = [f"all_heads_{part}" for part in "qkv"] + ["all_mlps", "logits"]
    paths = ml.path_patch(circuit.model, circuit.pairs, receivers=receivers, freeze="heads+mlps")
    summed = paths.effect.sum("receiver").values.reshape(total.shape)
    np.testing.assert_allclose(summed, total.values, atol=1e-4)
    assert np.abs(total).max() > 1


def test_the_mlp_on_the_way_counts_unless_it_is_held() -> None:
    circuit = planted(circuits.mlp_relay)
    head = circuit.heads["first"]
    free, held = (
        ml.path_patch(circuit.model, circuit.pairs, senders=[head], freeze=freeze)
        for freeze in ("heads", "heads+mlps")
    )
    np.testing.assert_allclose(free.effect.values.squeeze(), -6.0, atol=1e-4)
    assert (held.effect == 0).all()


# --- random models --------------------------------------------------------------------------------


def test_the_same_prompt_twice_changes_nothing(attention_family: str, toy_model: ToyModel) -> None:
    pair = ml.prompts.PromptPair(PAIR.clean, PAIR.clean, "w5", "w9")
    receivers = ["all_heads_q", "all_mlps", "logits"]
    result = ml.path_patch(toy_model(attention_family), pair, senders="all", receivers=receivers)
    assert (result.effect.values[~np.isnan(result.effect.values)] == 0).all()
    assert result.attrs["rows"] == 0


def test_all_senders_together_give_the_other_run(
    attention_family: str, toy_model: ToyModel
) -> None:
    model = toy_model(attention_family)
    for freeze in ("heads", "heads+mlps"):
        result = ml.path_patch(model, [PAIR, LATE], senders=[tuple(nodes_of(model))], freeze=freeze)
        patched = result.patched.values.squeeze()
        np.testing.assert_allclose(patched, result.corrupted_metric, atol=1e-5)
        assert np.abs(result.effect).max() > 0.1


def test_receivers_that_are_not_after_the_sender_are_nan(
    attention_family: str, toy_model: ToyModel
) -> None:
    model = toy_model(attention_family)
    result = ml.path_patch(
        model, PAIR, senders="all", receivers=["all_heads_q", "all_mlps", "logits"]
    )
    for s in range(result.sizes["sender"]):
        kind, layer = str(result.sender_kind[s].values), int(result.sender_layer[s])
        for r in range(result.sizes["receiver"]):
            to, at = str(result.receiver_kind[r].values), int(result.receiver_layer[r])
            same_block = kind == "head" and to == "mlp" and not model.parallel_blocks
            exists = to == "logits" or layer < at or (layer == at and same_block)
            assert bool(result.valid[s, r]) == exists
            assert bool(np.isnan(result.effect[0, s, r])) != exists


def test_with_frozen_norms_effects_on_the_logits_add_up(
    attention_family: str, toy_model: ToyModel
) -> None:
    model = toy_model(attention_family)
    heads = [Site("z", layer, head) for layer in range(3) for head in range(4)]
    groups = [*heads, tuple(heads), (heads[1], heads[6], Site("mlp_out", 1)), Site("mlp_out", 1)]
    gaps = {}
    for ln in ("frozen", "recompute"):
        found = ml.path_patch(model, [PAIR, LATE], senders=groups, freeze="heads+mlps", ln=ln)
        effect = found.effect.values[..., 0]
        parts = effect[:, 1] + effect[:, 6] + effect[:, 14]
        gaps[ln] = [
            np.abs(effect[:, :12].sum(1) - effect[:, 12]).max(),
            np.abs(parts - effect[:, 13]).max(),
        ]
    assert max(gaps["frozen"]) < 1e-5
    assert min(gaps["recompute"]) > 1e-3, "recomputed norms must not add up here"


def test_a_frozen_direct_effect_is_the_write_read_by_the_unembedding(toy_model: ToyModel) -> None:
    model = toy_model("gpt2")
    found = ml.path_patch(model, PAIR, freeze="heads+mlps", ln="frozen")
    final = model.hf.transformer.ln_f
    right, wrong = (model.answer_tokens([PAIR.clean], [w])[0][0] for w in ("w5", "w9"))
    runs = {}
    for text in (PAIR.clean, PAIR.corrupted):
        with torch.no_grad():
            _, runs[text] = model.bridge.run_with_cache(model.tokenize([text]).tokens)
    scale = runs[PAIR.clean]["ln_final.hook_scale"][0, -1]
    unembed = model.hf.lm_head.weight[right] - model.hf.lm_head.weight[wrong]
    for layer in range(3):
        name = f"blocks.{layer}.attn.hook_z"
        z = (runs[PAIR.corrupted][name] - runs[PAIR.clean][name])[0, -1]  # [head, d_head]
        weight = model.hf.transformer.h[layer].attn.c_proj.weight
        writes = torch.einsum("hd,hdm->hm", z, weight.reshape(4, 16, 64))
        centred = writes - writes.mean(-1, keepdim=True)
        expected = (centred * final.weight / scale) @ unembed
        mine = found.effect.values[0, 4 * layer : 4 * layer + 4, 0]
        np.testing.assert_allclose(mine, expected.detach(), atol=1e-5)


EDGES = [  # sender, receiver, whether an MLP lies between in sequential and in parallel blocks
    (Site("z", 0, 1), Site("q", 1, 2), True, False),
    (Site("z", 0, 1), Site("q", 2, 2), True, True),
    (Site("mlp_out", 0), Site("q", 1, 2), False, False),
    (Site("mlp_out", 0), Site("q", 2, 2), True, True),
    (Site("z", 2, 1), "logits", True, False),
    (Site("mlp_out", 2), "logits", False, False),
    (Site("z", 1, 0), Site("mlp_out", 2), True, False),
]


@pytest.mark.parametrize("edge", range(len(EDGES)))
def test_holding_mlps_matters_if_and_only_if_one_lies_between(
    edge: int, attention_family: str, toy_model: ToyModel
) -> None:
    model = toy_model(attention_family)
    sender, receiver, sequential, parallel = EDGES[edge]
    free, held = (
        ml.path_patch(model, PAIR, senders=[sender], receivers=[receiver], freeze=freeze).effect
        for freeze in ("heads", "heads+mlps")
    )
    gap = float(np.abs(free - held).max())
    assert (gap > 1e-4) if (parallel if model.parallel_blocks else sequential) else (gap < 2e-6)


def test_denoising_is_noising_of_the_swapped_pair(toy_model: ToyModel) -> None:
    model = toy_model("llama")
    swapped = ml.prompts.PromptPair(PAIR.corrupted, PAIR.clean, "w9", "w5")
    receivers = ["all_heads_q", "all_mlps", "logits"]
    one = ml.path_patch(model, PAIR, receivers=receivers, direction="denoising")
    other = ml.path_patch(model, swapped, receivers=receivers, direction="noising")
    np.testing.assert_allclose(one.effect, -other.effect, atol=1e-5)
    np.testing.assert_allclose(one.corrupted_metric, -other.clean_metric, atol=1e-6)
    assert one.attrs["direction"] == "denoising"


def test_numbers_depend_on_no_order_and_no_batch(toy_model: ToyModel) -> None:
    model = toy_model("gpt2")
    pairs = [PAIR, LONG, LATE]
    senders = nodes_of(model)[::2]
    receivers = [Site("q", 1, 0), "logits", Site("v", 2, 1), Site("mlp_out", 2)]
    plain = ml.path_patch(model, pairs, senders=senders, receivers=receivers)
    shuffled = random.Random(0).sample(senders, len(senders))
    turned = ml.path_patch(
        model, pairs[::-1], senders=shuffled, receivers=receivers[::-1], max_batch=1
    )
    back = turned.sel(prompt=plain.prompt, sender=plain.sender, receiver=plain.receiver)
    np.testing.assert_allclose(back.effect, plain.effect, atol=1e-5)
    alone = ml.path_patch(model, LONG, senders=senders, receivers=receivers)
    np.testing.assert_allclose(alone.effect[0], plain.effect[1], atol=1e-5)


def test_the_model_is_left_bitwise_as_found(attention_family: str, toy_model: ToyModel) -> None:
    model = toy_model(attention_family)
    ml.verify(model)
    tokens = model.tokenize([PAIR.clean]).tokens

    def state() -> tuple[torch.Tensor, int, list[str]]:
        points = model.bridge.hook_dict.values()
        overrides = [n for n, m in model.bridge.named_modules() if "forward" in m.__dict__]
        with torch.no_grad():
            return model.bridge(tokens), sum(len(p.fwd_hooks) for p in points), overrides

    def stop(step: ml.Progress) -> None:
        raise ml.Cancelled("enough")

    before = state()
    ml.path_patch(model, PAIR, senders="all", receivers=["all_heads_q", "all_mlps"], ln="frozen")
    with pytest.raises(ml.Cancelled):
        ml.path_patch(model, PAIR, receivers="all_heads_q", progress=stop)
    after = state()
    assert torch.equal(before[0], after[0])
    assert before[1:] == after[1:]


def test_receivers_set_together_are_not_the_sum_of_their_effects(toy_model: ToyModel) -> None:
    model = toy_model("gpt2")
    one, two = Site("q", 1, 0), Site("v", 2, 1)
    result = ml.path_patch(
        model, PAIR, senders=[Site("z", 0, 2)], receivers=[one, two, (one, two), (two, one)]
    )
    first, second, both, turned = result.effect.values[0, 0]
    assert both == pytest.approx(turned, abs=1e-6)
    assert abs(both - first - second) > 1e-5
    assert list(result.receiver_kind.values) == ["q", "v", "set", "set"]


def test_other_metrics_read_the_whole_vocabulary(toy_model: ToyModel) -> None:
    model = toy_model("llama")
    found = {
        metric: ml.path_patch(model, [PAIR, LATE], metric=metric)
        for metric in ("kl_divergence", "probability", "log_probability")
    }
    divergence = found["kl_divergence"]
    assert (divergence.clean_metric == 0).all() and float(divergence.patched.max()) > 1e-3
    assert float(divergence.patched.min()) > -1e-6
    logs = np.log(found["probability"].patched)
    np.testing.assert_allclose(logs, found["log_probability"].patched, atol=1e-4)


def test_the_relative_effect_is_a_ratio_of_means(toy_model: ToyModel) -> None:
    result = ml.path_patch(toy_model("gpt2"), [PAIR, LATE, LONG], senders="all")
    base = float(result.clean_metric.mean())
    expected = (result.patched.mean("prompt") - base) / base
    np.testing.assert_allclose(result.relative_effect, expected, rtol=1e-4, atol=1e-6)
    per_prompt = (result.effect / result.clean_metric).mean("prompt")
    assert np.abs(result.relative_effect - per_prompt).max() > 1e-3


# --- running --------------------------------------------------------------------------------------


def test_progress_counts_edges_and_shows_what_is_known(toy_model: ToyModel) -> None:
    seen: list[ml.Progress] = []
    result = ml.path_patch(
        toy_model("gpt2"),
        [PAIR, LONG],
        receivers=["all_heads_q", "logits"],
        max_batch=8,
        progress=seen.append,
    )
    assert [step.done for step in seen] == sorted(step.done for step in seen)
    assert len(seen) > 3 and seen[-1].done == seen[-1].total == int(result.effect.notnull().sum())
    middle = seen[len(seen) // 2]
    assert middle.partial is not None
    known = middle.partial.effect.values
    there = ~np.isnan(known)
    assert there.sum() == middle.done < middle.total
    np.testing.assert_array_equal(known[there], result.effect.values[there])


def test_a_stopped_run_resumes_from_its_journal(toy_model: ToyModel) -> None:
    class Journal(dict[str, np.ndarray]):
        def put(self, key: str, values: np.ndarray) -> None:
            self[key] = values

    journal, model = Journal(), toy_model("gpt2")
    options = {"receivers": ["all_heads_v", (Site("q", 1, 0), Site("q", 2, 0))], "max_batch": 9}

    def stop(step: ml.Progress) -> None:
        if step.done > 40:
            raise ml.Cancelled("enough")

    with pytest.raises(ml.Cancelled):
        ml.path_patch(model, [PAIR, LATE], journal=journal, progress=stop, **options)
    kept = dict(journal)
    assert kept
    marked = {key: values + 1 for key, values in kept.items()}
    journal.update(marked)  # so that it shows whether these were read
    resumed = ml.path_patch(model, [PAIR, LATE], journal=journal, **options)
    fresh = ml.path_patch(model, [PAIR, LATE], **options)
    moved = np.abs(resumed.effect - fresh.effect).values > 0.5
    assert moved.sum() == sum(len(values) for values in kept.values())
    np.testing.assert_array_equal(resumed.effect.values[~moved], fresh.effect.values[~moved])


def test_a_stored_result_is_read_back(toy_model: ToyModel, tmp_path) -> None:  # type: ignore[no-untyped-def]
    store, model = ml.Store(tmp_path), toy_model("gpt2")
    options = {"senders": [ml.Head(0, 1)], "receivers": [Site("q", 1, 2), "logits"]}
    first = store.run(ml.path_patch, model, [PAIR, LATE], **options)
    again = store.run(ml.path_patch, model, [PAIR, LATE], **options)
    assert first.attrs["started"] == again.attrs["started"]
    np.testing.assert_array_equal(first.effect, again.effect)
