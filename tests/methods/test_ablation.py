"""Ablation: planted heads, references that change nothing, draws that depend on nothing else."""

from collections.abc import Callable
from typing import Any

import circuits
import numpy as np
import pytest
import toys
from circuits import made
from numpy.testing import assert_allclose, assert_array_equal
from oracles.plain import plain_run

from mechlab.axes import Head
from mechlab.errors import OptionError, PromptError, SiteError
from mechlab.hooks import Ablate, FrozenArray, Site
from mechlab.methods import ablate, activation_patch
from mechlab.models import Model
from mechlab.prompts import Fact, PromptPair, PromptSet
from mechlab.store import Store

ToyModel = Callable[..., Model]
PARIS = PromptPair(
    "Paris is the capital of France w1", "Rome was by tower near Italy w7", "Paris", "Rome"
)
ANN = PromptPair("Ann was born in", "Bob speaks from in", "Madrid", "Cairo")
PAIRS = [PARIS, ANN]
OTHERS = [
    Fact("Rome was by tower near Italy w7", "Rome"),
    Fact("w1 w2 w3 w4 w5 w6 w7", "w1"),
    Fact("Bob speaks from in", "Bob"),
    Fact("w9 w8 w7 w6", "w9"),
]
FACTS = [
    Fact("The Eiffel Tower is located in the city of", "Eiffel Tower", "Paris"),
    Fact("Paris is the capital of", "Paris", "France"),
]


def site_of(family: str) -> dict[str, Any]:
    if family in toys.ATTENTION_FAMILIES:
        return {"site": "z", "by": "head"}
    return {"site": "mixer_out", "by": "layer"}


def plain_difference(model: Model, pair: PromptPair, *steps: Any) -> float:
    logits = plain_run(model, pair.clean, steps).logits[-1]
    word = model.tokenizer.convert_tokens_to_ids
    return float(logits[word(pair.answer)] - logits[word(pair.wrong_answer)])


@pytest.mark.parametrize(
    ("name", "family"),
    [("conflict", "llama"), ("copy_head", "gpt2"), ("anti_copy", "gpt2"), ("name_mover", "gpt2")],
)
def test_without_a_planted_head_its_contribution_is_gone_and_nothing_else(
    name: str, family: str
) -> None:
    circuit = made(name, family)
    effect = ablate(circuit.model, circuit.pairs).effect
    upstream = {"duplicate", "inhibition"}
    grid = np.zeros(effect.shape, np.float32)
    for role, head in circuit.heads.items():
        measured = effect[:, head.layer, head.head]
        grid[:, head.layer, head.head] = (
            measured if role in upstream else -np.array(circuit.direct[role])
        )
    assert_allclose(effect, grid, atol=2e-5)
    assert_array_equal(effect.values[grid == 0], 0)


@pytest.mark.parametrize(("c", "family"), [(0.0, "gpt2"), (0.5, "llama"), (1.0, "gpt2")])
def test_a_backup_head_hides_the_loss_until_both_are_removed(c: float, family: str) -> None:
    """TE of the primary is (1 - c) of its size; removing the set removes all of it."""
    circuit = made("backup", family, c=c)
    primary, backup = circuit.heads["primary"], circuit.heads["backup"]
    sets = {"primary": [primary], "backup": [str(backup)], "both": [primary, backup]}
    effect = ablate(circuit.model, circuit.pairs, by="set", heads=sets).effect
    assert effect.dims == ("prompt", "head_set")
    size = np.array(circuit.direct["primary"])
    assert_allclose(effect.sel(head_set="primary"), -(1 - c) * size, atol=1e-4)
    assert_allclose(effect.sel(head_set="backup"), 0, atol=1e-6)
    assert_allclose(effect.sel(head_set="both"), -size, atol=1e-4)
    alone = ablate(circuit.model, circuit.pairs, by="set", heads=[primary, backup]).effect
    assert alone.head_set.values.tolist() == ["L0H1+L1H2"]
    assert_allclose(alone[:, 0], effect.sel(head_set="both"), atol=1e-6)


def test_the_mean_over_the_prompt_itself_changes_nothing(family: str, toy_model: ToyModel) -> None:
    model, options = toy_model(family), site_of(family)
    for positions in ("all", "each", "last", [-1, -2]):
        ours = ablate(model, PARIS, kind="mean", reference=[PARIS], positions=positions, **options)  # type: ignore[arg-type]
        assert float(np.abs(ours.effect).max()) <= 5e-6
    zero = ablate(model, PARIS, **options)
    assert float(np.abs(zero.effect).max()) > 1e-2


@pytest.mark.parametrize("site", ["z", "v", "attn_out", "mlp_out", "resid_mid"])
def test_resampling_from_the_prompt_itself_changes_nothing_at_all(
    site: str, toy_model: ToyModel
) -> None:
    by: Any = {"z": "head", "v": "kv_head"}.get(site, "layer")
    same = {"kind": "resample", "reference": [PARIS], "draws": 1}
    ours = ablate(toy_model("llama"), PARIS, site=site, by=by, **same)  # type: ignore[arg-type]
    assert float(np.abs(ours.effect).max()) == 0


def test_the_mean_is_that_of_the_reference_prompts_of_equal_length(toy_model: ToyModel) -> None:
    """Written by hand: the mean of two recorded values, position by position."""
    model, head = toy_model("gpt2"), Head(1, 2)
    ours = ablate(model, PAIRS, kind="mean", reference=OTHERS, heads=[head])
    for index, (pair, chosen) in enumerate(zip(PAIRS, (OTHERS[:2], OTHERS[2:]), strict=True)):
        runs = [plain_run(model, other.prompt, keep=True) for other in chosen]
        mean = sum(run.values["z", 1][:, 2] for run in runs) / 2
        steps = [
            Ablate(Site("z", 1, 2, pos), "mean", FrozenArray(value.numpy()))
            for pos, value in enumerate(mean)
        ]
        expected = plain_difference(model, pair, *steps) - plain_difference(model, pair)
        found = float(ours.effect.sel(layer=1, head=2)[index])
        assert found == pytest.approx(expected, abs=1e-5)
        assert abs(expected) > 1e-3


def test_the_mean_over_positions_is_one_vector_for_prompts_of_any_length(
    toy_model: ToyModel,
) -> None:
    model = toy_model("neox")
    ours = ablate(
        model, PAIRS, kind="mean", reference=FACTS, average="over_positions", heads=["L0H1"]
    )
    runs = [plain_run(model, fact.prompt, keep=True) for fact in FACTS]
    values = [value for run in runs for value in run.values["z", 0][:, 1]]
    mean = FrozenArray((sum(values) / len(values)).numpy())  # type: ignore[union-attr]
    for index, pair in enumerate(PAIRS):
        step = Ablate(Site("z", 0, 1), "mean", mean)
        expected = plain_difference(model, pair, step) - plain_difference(model, pair)
        assert float(ours.effect.sel(layer=0, head=1)[index]) == pytest.approx(expected, abs=1e-5)


def test_resampling_is_patching_from_the_reference(toy_model: ToyModel) -> None:
    model = toy_model("llama")
    reference = [Fact(pair.corrupted, pair.corrupted.split()[0]) for pair in PAIRS]
    drawn = ablate(model, PAIRS, kind="resample", reference=reference, draws=1)
    patched = activation_patch(model, PAIRS, direction="noising")
    assert_allclose(drawn.effect, patched.effect, atol=1e-5)
    assert float(np.abs(drawn.effect).max()) > 1e-2


def test_draws_depend_on_the_seed_and_the_prompt_alone(toy_model: ToyModel) -> None:
    model = toy_model("gpt2")
    options: Any = {"kind": "resample", "reference": OTHERS, "draws": 2, "positions": "last"}
    many = ablate(model, [ANN, PARIS, ANN], **options)
    assert many.patched.dims[-1] == "draw" and many.sizes["draw"] == 2
    assert_allclose(many.effect, many.patched.mean("draw") - many.unpatched, atol=1e-6)
    alone = ablate(model, ANN, **options)
    assert_allclose(many.patched[0], alone.patched[0], atol=1e-5)
    assert_allclose(many.patched[2], alone.patched[0], atol=1e-5)
    other = ablate(model, ANN, **{**options, "seed": 3})
    assert float(np.abs(other.patched - alone.patched).max()) > 1e-3
    # Two draws are two different prompts, so that all four together give the mean of the set.
    every = ablate(model, ANN, **{**options, "draws": 4}).patched[0]
    assert len(np.unique(every.sel(layer=0, head=0).values.round(4))) == 4


@pytest.mark.parametrize("family", ["llama", "mamba"])
@pytest.mark.parametrize("kind", ["zero", "mean", "resample"])
def test_batches_and_company_change_nothing(kind: Any, family: str, toy_model: ToyModel) -> None:
    model, options = toy_model(family), dict(site_of(family), kind=kind, positions="last")
    if kind != "zero":
        options |= {"reference": OTHERS, "draws": 2}
    together = ablate(model, PAIRS, **options)
    small = ablate(model, PAIRS, max_batch=2, **options)
    assert_allclose(small.effect, together.effect, atol=1e-5)
    for index, pair in enumerate(PAIRS):
        alone = ablate(model, pair, **options)
        assert_allclose(alone.effect[0], together.effect[index], atol=1e-5)
    plain = ablate(model, PAIRS, mode="plain", **options)
    assert_allclose(plain.effect, together.effect, atol=1e-5)


@pytest.mark.parametrize("metric", ["log_probability", "probability", "rank", "kl_divergence"])
def test_facts_can_be_scored_by_one_answer(metric: str, toy_model: ToyModel) -> None:
    ours = ablate(toy_model("gpt2"), FACTS, metric=metric)
    assert not np.isnan(ours.effect).any()
    assert float(np.abs(ours.effect).max()) > 0
    if metric == "kl_divergence":
        assert_array_equal(ours.unpatched, 0)
        assert float(ours.effect.min()) >= -1e-6
    with pytest.raises(OptionError, match="compares two answers"):
        ablate(toy_model("gpt2"), FACTS)


def test_the_reference_is_fingerprinted_and_stored(toy_model: ToyModel, tmp_path: Any) -> None:
    model, reference = toy_model("gpt2"), PromptSet(tuple(OTHERS), "others")
    options: Any = {"kind": "mean", "reference": reference}
    direct = ablate(model, PAIRS, **options)
    assert direct.attrs["reference_digest"] == reference.digest
    assert direct.attrs["reference_prompts"] == len(OTHERS)
    assert ablate(model, PAIRS).attrs["reference_digest"] == "none"
    store = Store(tmp_path)
    stored = store.run(ablate, model, PAIRS, **options)
    assert_allclose(stored.effect, direct.effect, atol=1e-5)
    fewer = {"kind": "mean", "reference": reference[:1]}
    keys = {store.key(ablate, model, PAIRS, **given) for given in (options, fewer, {})}
    assert len(keys) == 3


@pytest.mark.parametrize(
    ("options", "error", "reason"),
    [
        ({"kind": "mean"}, OptionError, "need reference"),
        ({"kind": "resample"}, OptionError, "need reference"),
        ({"kind": "zero", "reference": OTHERS}, OptionError, "reads no reference"),
        ({"kind": "none"}, OptionError, "kind='none'"),
        ({"kind": "mean", "reference": FACTS}, PromptError, r"#0 \(8 tokens\), #1 \(5 tokens\)"),
        ({"kind": "resample", "reference": OTHERS, "draws": 3}, PromptError, r"#0 \(2\), #1 \(2\)"),
        ({"draws": 0}, OptionError, "draws=0"),
        ({"average": "both"}, OptionError, "average='both'"),
        ({"site": "scores"}, OptionError, "ml.knockout"),
        ({"site": "pattern", "kind": "mean", "reference": OTHERS}, OptionError, "equal positions"),
        ({"by": "set"}, OptionError, "by='set' needs heads"),
        ({"by": "set", "heads": {"a": []}}, OptionError, "sets without heads: 'a'"),
        ({"by": "set", "heads": {"a": ["L7H0"], "b": ["L0H7"]}}, SiteError, "L7H0, L0H7"),
        ({"by": "layer", "heads": ["L0H1"]}, OptionError, "Leave heads out"),
        ({"site": "mlp_out"}, SiteError, "has no heads"),
    ],
)
def test_options_that_mean_nothing_are_refused(
    options: dict[str, Any], error: type[Exception], reason: str, toy_model: ToyModel
) -> None:
    with pytest.raises(error, match=reason):
        ablate(toy_model("gpt2"), PAIRS, **options)


def test_quiet_heads_of_a_circuit_have_no_effect_under_any_kind() -> None:
    circuit = made("conflict", "llama")
    planted = set(circuit.heads.values())
    for kind in ("mean", "resample"):
        effect = ablate(
            circuit.model, circuit.pairs, kind=kind, reference=circuit.pairs, draws=3
        ).effect  # type: ignore[arg-type]
        for layer in range(circuits.N_LAYERS):
            for head in range(circuits.N_HEADS):
                moved = float(np.abs(effect[:, layer, head]).max())
                assert (moved > 0.1) == (Head(layer, head) in planted)
