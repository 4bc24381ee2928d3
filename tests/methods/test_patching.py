"""Activation patching: what must hold of any correct patch, planted heads, and what is refused.

Agreement with TransformerLens and nnsight is in `oracles/test_patching_agrees.py`.
"""

from collections.abc import Callable
from typing import Any

import circuits
import numpy as np
import pytest
import toys
import xarray as xr
from circuits import Circuit, made
from numpy.testing import assert_allclose, assert_array_equal
from oracles.plain import plain_run

from mechlab.errors import Cancelled, OptionError, PromptError, SiteError
from mechlab.hooks import Patch, Site
from mechlab.methods import activation_patch, attribution_patch, path_patch
from mechlab.models import Model
from mechlab.progress import Progress
from mechlab.prompts import PromptPair, PromptSet
from mechlab.store import Store

ToyModel = Callable[..., Model]
PARIS = PromptPair(
    "Paris is the capital of France w1", "Rome was by tower near Italy w7", "Paris", "Rome"
)
ANN = PromptPair("Ann was born in", "Bob speaks from in", "Madrid", "Cairo")
PAIRS = [PARIS, ANN]
RAGGED = [PARIS, PromptPair("Ann was born in", "When Bob was born in Spain", "Madrid", "Cairo")]
LAST = toys.N_LAYERS - 1


def site_of(family: str) -> dict[str, Any]:
    """A site that every family has one of, and how it is swept."""
    if family in toys.ATTENTION_FAMILIES:
        return {"site": "z", "by": "head"}
    return {"site": "mixer_out", "by": "layer"}


def expected_grid(circuit: Circuit, values: dict[str, Any]) -> np.ndarray:
    """Effects `[pair, layer, head]`: those given by role, exactly 0 elsewhere."""
    shape = (len(circuit.pairs), circuits.N_LAYERS, circuits.N_HEADS)
    grid = np.zeros(shape, np.float32)
    for role, numbers in values.items():
        head = circuit.heads[role]
        grid[:, head.layer, head.head] = numbers
    return grid


# theorems -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("direction", ["denoising", "noising"])
def test_a_run_patched_into_itself_changes_nothing_at_all(
    family: str, direction: Any, toy_model: ToyModel
) -> None:
    same = [PromptPair(p.clean, p.clean, p.answer, p.wrong_answer) for p in PAIRS]
    for method in (activation_patch, attribution_patch):
        ours = method(toy_model(family), same, direction=direction, **site_of(family))
        assert float(np.abs(ours.effect).max()) == 0
        assert np.isnan(ours.recovered).all(), "nothing was lost that could be recovered"


@pytest.mark.parametrize("site", ["resid_pre", "resid_post"])
def test_the_whole_residual_stream_restores_the_clean_metric(
    family: str, site: str, toy_model: ToyModel
) -> None:
    ours = activation_patch(toy_model(family), PAIRS, site=site, by="layer")
    assert ours.effect.dims == ("prompt", "layer")
    assert_allclose(ours.recovered, 1, atol=1e-4)
    gap = ours.clean_metric - ours.corrupted_metric
    assert_allclose(ours.effect, gap.broadcast_like(ours.effect), atol=1e-5)
    assert float(np.abs(gap).min()) > 1e-2
    back = activation_patch(toy_model(family), PAIRS, site=site, by="layer", direction="noising")
    assert_allclose(back.recovered, 0, atol=1e-4)


def test_denoising_a_pair_is_noising_the_pair_turned_round(
    family: str, toy_model: ToyModel
) -> None:
    """The patched run is the same; the metric has the other sign, and recovery counts down."""
    model, options = toy_model(family), site_of(family)
    turned = [PromptPair(p.corrupted, p.clean, p.wrong_answer, p.answer) for p in PAIRS]
    there = activation_patch(model, PAIRS, direction="denoising", **options)
    back = activation_patch(model, turned, direction="noising", **options)
    assert_allclose(back.effect, -there.effect.values, atol=1e-6)
    assert_allclose(back.recovered, 1 - there.recovered.values, atol=1e-4)
    assert_allclose(back.clean_metric, -there.corrupted_metric.values, atol=1e-6)


def test_in_the_last_layer_only_the_last_position_counts(family: str, toy_model: ToyModel) -> None:
    model, options = toy_model(family), {**site_of(family), "layers": [LAST]}
    each = activation_patch(model, ANN, positions="each", **options).effect.isel(layer=0)
    assert each.dims[-1] == "pos"
    assert float(np.abs(each.isel(pos=slice(0, -1))).max()) == 0
    for positions in ("last", "all", [-1]):
        ours = activation_patch(model, ANN, positions=positions, **options).effect.isel(layer=0)
        assert_allclose(ours, each.isel(pos=-1), atol=1e-6)
    assert float(np.abs(each).max()) > 1e-3


@pytest.mark.parametrize("direction", ["denoising", "noising"])
@pytest.mark.parametrize(
    ("name", "family"),
    [(name, "gpt2") for name in ("copy_head", "fact_head", "anti_copy", "name_mover")]
    + [("conflict", "llama")],
)
@pytest.mark.parametrize("method", [activation_patch, attribution_patch])
def test_planted_heads_have_their_planted_effects_and_all_others_none(
    method: Any, name: str, family: str, direction: Any
) -> None:
    """Without a nonlinearity between a head and the logits the estimate is the exact effect."""
    circuit = made(name, family)
    sign = 1 if direction == "denoising" else -1
    writers = {r: v for r, v in circuit.direct.items() if r not in ("duplicate", "inhibition")}
    ours = method(circuit.model, circuit.pairs, direction=direction)
    grid = expected_grid(circuit, {role: sign * np.array(v) for role, v in writers.items()})
    indirect = [circuit.heads[role] for role in circuit.heads if role not in writers]
    for head in indirect:  # part of the chain before the name mover, not a writer
        grid[:, head.layer, head.head] = ours.effect[:, head.layer, head.head]
    assert_allclose(ours.effect, grid, atol=2e-5)
    assert_allclose(ours.clean_metric, circuit.clean, atol=1e-4)
    quiet = ours.effect.values[grid == 0]
    assert len(quiet) > 0
    assert_array_equal(quiet, 0)


def test_a_two_hop_composition_is_found_at_the_position_where_it_happens() -> None:
    circuit = made("two_hop", "gpt2")
    ours = activation_patch(circuit.model, circuit.pairs, positions="each")
    (writer, _) = circuit.edges
    first, pos = circuit.heads["first"], writer.pos
    effect = ours.effect.mean("prompt").values.copy()
    gain = circuit.clean[0] - circuit.corrupted[0]
    assert effect[first.layer, first.head, pos] == pytest.approx(gain, abs=1e-4)
    second = circuit.heads["second"]
    assert effect[second.layer, second.head, -1] == pytest.approx(gain, abs=1e-4)
    effect[first.layer, first.head, pos] = effect[second.layer, second.head, -1] = 0
    assert_array_equal(effect, 0)
    assert float(ours.recovered[0, first.layer, first.head, pos]) == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("direction", ["denoising", "noising"])
def test_a_divergence_is_that_from_the_unpatched_run_here_and_in_path_patching(
    direction: Any, toy_model: ToyModel
) -> None:
    """In the last layer, with the MLP live, the path to the logits is the whole of the patch."""
    model, options = toy_model("llama"), {"direction": direction, "metric": "kl_divergence"}
    ours = activation_patch(model, PAIRS, layers=[LAST], **options)
    theirs = path_patch(model, PAIRS, **options)
    grid = theirs.effect.isel(receiver=0).values.reshape(len(PAIRS), toys.N_LAYERS, toys.N_HEADS)
    assert_allclose(ours.effect[:, 0], grid[:, LAST], atol=1e-6)
    assert_allclose(ours.clean_metric, theirs.clean_metric, atol=1e-6)
    assert_allclose(ours.corrupted_metric, theirs.corrupted_metric, atol=1e-6)
    names = ["corrupted_metric", "clean_metric"]
    unpatched, source = names if direction == "denoising" else names[::-1]
    assert_array_equal(ours[unpatched], 0)
    assert (ours[source] > 1e-3).all() and (ours.effect > 0).all()


def test_divergence_recovers_from_zero_to_one(family: str, toy_model: ToyModel) -> None:
    model: Any = toy_model(family)
    for direction, end in (("denoising", 1), ("noising", 0)):
        options: Any = {"direction": direction, "metric": "kl_divergence", "positions": "each"}
        ours = activation_patch(model, RAGGED[:1], site="resid_post", by="layer", **options)
        final = ours.recovered.isel(layer=-1)
        assert_allclose(final.isel(pos=-1), end, atol=1e-5)
        assert_allclose(final.isel(pos=slice(0, -1)), 1 - end, atol=1e-5)


# engine -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", ["gpt2", "llama", "mamba"])
def test_batches_company_and_the_way_of_running_change_nothing(
    family: str, toy_model: ToyModel
) -> None:
    model, options = toy_model(family), {**site_of(family), "positions": "each"}
    together = activation_patch(model, PAIRS, **options)
    for other in ({"max_batch": 2}, {"mode": "packed"}, {"mode": "plain", "layers": [1]}):
        ours = activation_patch(model, PAIRS, **{**options, **other})
        assert_allclose(ours.effect, together.effect.sel(layer=ours.layer), atol=1e-5)
    alone = activation_patch(model, ANN, **options)
    width = alone.sizes["pos"]
    inside = together.effect[1, ..., :width]
    assert_allclose(alone.effect[0], inside, atol=1e-5)
    assert np.isnan(together.effect[1, ..., width:]).all(), "positions it does not have"
    assert not np.isnan(inside).any()


@pytest.mark.parametrize("positions", ["last", [-1, -2]])
def test_prompts_of_different_length_correspond_from_the_end(
    positions: Any, toy_model: ToyModel
) -> None:
    model = toy_model("llama")
    ours = activation_patch(model, RAGGED, positions=positions, heads=["L1H2"])
    pair = RAGGED[1]
    source = plain_run(model, pair.clean, keep=True)
    length = len(model.token_strings(pair.corrupted))
    listed = [-1] if positions == "last" else positions
    steps = [Patch(Site("z", 1, 2, length + pos), 0, len(source.logits) + pos) for pos in listed]
    logits = plain_run(model, pair.corrupted, steps, [source]).logits[-1]
    word = model.tokenizer.convert_tokens_to_ids
    patched = float(logits[word("Madrid")] - logits[word("Cairo")])
    expected = patched - float(ours.corrupted_metric[1])
    assert float(ours.effect.sel(layer=1, head=2)[1]) == pytest.approx(expected, abs=1e-5)
    assert abs(expected) > 1e-3


def test_chosen_heads_are_the_same_cells_and_the_others_are_nan(toy_model: ToyModel) -> None:
    model = toy_model("neox")
    every = activation_patch(model, PAIRS).effect
    some = activation_patch(model, PAIRS, heads=["L2H1", "L0H3"]).effect
    assert some.layer.values.tolist() == [0, 2]
    assert int(some.notnull().sum()) == 2 * len(PAIRS)
    for layer, head in ((2, 1), (0, 3)):
        assert_allclose(
            some.sel(layer=layer, head=head), every.sel(layer=layer, head=head), atol=1e-6
        )


@pytest.mark.parametrize("site", ["k", "v"])
def test_keys_and_values_have_their_own_axis_under_grouped_queries(
    site: str, toy_model: ToyModel
) -> None:
    """Patching all kv_heads one layer at a time leaves no other way in: it is the whole site."""
    model = toy_model("llama")
    ours = activation_patch(model, PAIRS, site=site, by="kv_head")
    assert ours.effect.dims == ("prompt", "layer", "kv_head")
    assert ours.sizes["kv_head"] == toys.N_KV_HEADS < toys.N_HEADS
    assert not np.isnan(ours.effect).any()
    assert float(np.abs(ours.effect).min()) > 0
    with pytest.raises(OptionError, match="by='kv_head'"):
        activation_patch(model, PAIRS, site=site, by="head")


def test_recovery_is_nan_where_there_is_nothing_to_recover(toy_model: ToyModel) -> None:
    model = toy_model("gpt2")
    ours = activation_patch(model, PAIRS, epsilon=0.0)
    gaps = np.abs(ours.clean_metric - ours.corrupted_metric).values
    between = float(gaps.mean())
    strict = activation_patch(model, PAIRS, epsilon=between)
    small = gaps < between
    assert small.any() and not small.all()
    assert_array_equal(np.isnan(strict.recovered).all(("layer", "head")), small)
    expected = (ours.effect / (ours.clean_metric - ours.corrupted_metric)).transpose(
        *ours.effect.dims
    )
    assert_allclose(ours.recovered, expected, rtol=1e-5)


def test_the_result_says_what_was_measured(toy_model: ToyModel) -> None:
    model = toy_model("gpt2")
    ours = activation_patch(model, PAIRS, metric="log_probability", positions="each")
    assert ours.effect.attrs["units"] == "nats"
    assert ours.answer_token.values.tolist() == ["Paris", "Madrid"]
    assert ours.token.values[1].tolist() == ["<bos>", *ANN.corrupted.split(), "", "", ""]
    assert ours.attrs["method"] == "activation_patch"
    assert '"direction":"denoising"' in ours.attrs["options"]
    assert "progress" not in ours.attrs["options"]


def test_the_store_puts_single_prompts_together_to_the_same_result(
    toy_model: ToyModel, tmp_path: Any
) -> None:
    model, pairs = toy_model("gpt2"), PromptSet(tuple(PAIRS))
    direct = activation_patch(model, pairs, positions="each")
    stored = Store(tmp_path).run(activation_patch, model, pairs, positions="each")
    for name in direct.data_vars:
        xr.testing.assert_allclose(stored[name], direct[name], atol=1e-5)


def test_progress_shows_what_is_known_and_can_stop(toy_model: ToyModel) -> None:
    model, seen = toy_model("gpt2"), list[Progress]()

    def stop_at_the_second(report: Progress) -> None:
        seen.append(report)
        if len(seen) == 2:
            raise Cancelled("enough")

    with pytest.raises(Cancelled):
        activation_patch(model, PAIRS, max_batch=4, progress=stop_at_the_second)
    partial = seen[0].partial
    assert partial is not None
    assert 0 < int(partial.effect.notnull().sum()) < partial.effect.size


# what is refused ----------------------------------------------------------------------------------


def test_pairs_that_do_not_align_are_all_named(toy_model: ToyModel) -> None:
    model = toy_model("gpt2")
    longer = PromptPair("Ann was born in Spain", "Bob was born in", "Madrid", "Cairo")
    for method in (activation_patch, attribution_patch):
        with pytest.raises(PromptError, match="2 of 4 pairs do not align") as refused:
            method(model, [PARIS, RAGGED[1], ANN, longer])
        assert "#1" in str(refused.value) and "#3" in str(refused.value)
        assert "#0" not in str(refused.value)


@pytest.mark.filterwarnings("ignore:.* answers have several tokens")  # said once per model
def test_answers_that_share_their_first_token_are_all_named(toy_model: ToyModel) -> None:
    model = toy_model("gpt2", "bpe")
    clean, corrupted = "The capital of France is", "The capital of France is"
    alike = PromptPair(clean, corrupted, "Zanzibar", "Zanzib")
    other = PromptPair(clean, corrupted, "Paris", "London")
    with pytest.raises(PromptError, match="1 of 2 pairs") as refused:
        activation_patch(model, [other, alike])
    assert "#1 'Zanzibar'" in str(refused.value)


@pytest.mark.parametrize(
    ("options", "error", "reason"),
    [
        ({"site": "z", "heads": ["L9H0", "L0H9"]}, SiteError, "L9H0, L0H9"),
        ({"heads": ["nine", "L1H1"]}, OptionError, "not a head: 'nine'"),
        ({"heads": ["L1H1", "L1H1"]}, OptionError, "more than once: L1H1"),
        ({"heads": []}, OptionError, "names no head"),
        ({"heads": ["L1H1"], "layers": [1]}, OptionError, "not both"),
        ({"layers": [3, 7]}, SiteError, r"layers \[3, 7\]"),
        ({"site": "resid_pre"}, SiteError, "has no heads"),
        ({"site": "nowhere"}, SiteError, "unknown site"),
        ({"site": "embed", "by": "layer"}, SiteError, "no layers"),
        ({"site": "mixer_out", "by": "layer"}, SiteError, "mixer_out"),
        ({"by": "set", "heads": ["L1H1"]}, OptionError, "by='set'"),
        ({"by": "kv_head"}, OptionError, "query heads"),
        ({"direction": "sideways"}, OptionError, "direction='sideways'"),
        ({"positions": "first"}, OptionError, "positions='first'"),
        ({"positions": [99]}, PromptError, "do not exist in 2 of 2 prompts"),
        ({"positions": [1.5]}, OptionError, "positions="),
        ({"metric": "vibes"}, OptionError, "unknown metric"),
        ({"epsilon": -1}, OptionError, "epsilon=-1"),
        ({"mode": "fast"}, OptionError, "mode='fast'"),
        ({"max_batch": 0}, OptionError, "max_batch=0"),
    ],
)
def test_options_that_mean_nothing_are_refused_before_anything_runs(
    options: dict[str, Any], error: type[Exception], reason: str, toy_model: ToyModel
) -> None:
    with pytest.raises(error, match=reason):
        activation_patch(toy_model("gpt2"), PAIRS, **options)


def test_models_without_attention_have_no_heads(toy_model: ToyModel) -> None:
    with pytest.raises(SiteError, match="no attention heads"):
        activation_patch(toy_model("mamba"), PAIRS)
