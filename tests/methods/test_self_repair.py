"""Self-repair: effects add up, and planted backups are found with their slope."""

from typing import Any

import circuits
import numpy as np
import pytest
import torch
import toys
import xarray as xr
from oracles.plain import plain_run

import mechlab as ml

FACTS = [
    ml.prompts.Fact("The capital of France is", "France", "Paris"),
    ml.prompts.Fact("The capital of Spain is", "Spain", "Madrid"),
    ml.prompts.Fact("The Eiffel Tower is located in the city of", "Eiffel Tower", "Paris"),
]
OTHERS = [
    ml.prompts.Fact("The river of Egypt is", "Egypt"),
    ml.prompts.Fact("The river of Norway is", "Norway"),
    ml.prompts.Fact("Mary and John went to the store of Bob in Cairo", "John"),
]
KINDS: list[dict[str, Any]] = [
    {"kind": "zero"},
    {"kind": "mean", "reference": OTHERS},
    {"kind": "resample", "reference": OTHERS, "draws": 2},
]


def repaired(c: float, dtype: torch.dtype = torch.float64, **options: Any) -> xr.Dataset:
    circuit = circuits.backup(c=c, dtype=dtype, **options)
    return ml.self_repair(circuit.model, circuit.pairs, token="answer")


# --- completeness ---------------------------------------------------------------------------------


def test_parts_add_up_to_the_logit_of_every_family(family, toy_model):
    result = ml.self_repair(toy_model(family), FACTS)
    total = result.component_logit.sum("component")
    np.testing.assert_allclose(total, result.clean_logit, atol=2e-4)


@pytest.mark.parametrize("options", KINDS, ids=lambda options: str(options["kind"]))
def test_effects_add_up_to_the_total_effect(options, family, toy_model):
    result = ml.self_repair(toy_model(family), FACTS, **options)
    assert float(abs(result.total_effect).max()) > 1e-2
    np.testing.assert_allclose(result.unexplained, 0, atol=5e-4)


@pytest.mark.parametrize("family", ["gpt2", "neox"])  # RMS norms are float32 inside
def test_with_the_norm_held_the_total_effect_is_direct_minus_compensatory(family, fresh_model):
    result = ml.self_repair(fresh_model(family, dtype=torch.float64), FACTS)
    left = result.frozen_total_effect - (result.direct_effect - result.compensatory_effect)
    np.testing.assert_allclose(left, 0, atol=1e-9)
    norm = result.total_effect - (result.direct_effect - result.compensatory_effect)
    np.testing.assert_allclose(norm, result.norm_effect, atol=1e-9)
    assert float(abs(result.norm_effect).max()) > 1e-3


def centred(logits: torch.Tensor, answers: torch.Tensor) -> torch.Tensor:
    return logits.gather(1, answers[:, :1])[:, 0] - logits.mean(-1)


def test_the_total_effect_is_that_of_ablate(attention_family, toy_model):
    model = toy_model(attention_family)

    for site in ("attn_out", "mlp_out"):
        other = ml.ablate(model, FACTS, site=site, by="layer", positions="last", metric=centred)
        own = ml.self_repair(model, FACTS, sites=[site], token="answer").total_effect
        np.testing.assert_allclose(own.sel(site=site), -other.effect.squeeze(), atol=2e-4)


# --- planted repair -------------------------------------------------------------------------------


@pytest.mark.parametrize("family", ["gpt2", "llama"])
@pytest.mark.parametrize("c", [0.0, 0.5, 1.0])
def test_the_slope_is_the_share_that_a_planted_backup_puts_back(c, family):
    # transformers works RMS norms out in float32 always, too little for an epsilon of 1e8
    precise = family == "gpt2"
    result = repaired(c, torch.float64 if precise else torch.float32, family=family)
    close = 1e-6 if precise else 1e-4
    slope = ml.repair_slope(result).sel(site="attn_out", layer=0)
    for name in ("slope", "slope_low", "slope_high", "slope_through_origin"):
        assert float(slope[name]) == pytest.approx(c, abs=close), name
    cell = result.sel(site="attn_out", layer=0)
    size = cell.direct_effect
    assert float(size.min()) > 0.9
    np.testing.assert_allclose(cell.total_effect, (1 - c) * size, atol=close)
    back = cell.compensation.sel(component="L1.attn")
    np.testing.assert_allclose(back, c * size, atol=close)
    others = cell.compensation.drop_sel(component="L1.attn").fillna(0)
    np.testing.assert_allclose(others, 0, atol=close)
    if c:
        assert float(slope.r_squared) == pytest.approx(1)


def test_an_erasing_mlp_erases_less_of_what_is_gone():
    result = repaired(0.0, erase=0.4).sel(site="attn_out", layer=0)
    np.testing.assert_allclose(
        result.compensation.sel(component="L2.mlp"), 0.4 * result.direct_effect, atol=1e-6
    )
    assert float(result.component_logit.sel(component="L2.mlp").max()) < -0.3


def test_nothing_is_repaired_where_no_module_reads_another():
    circuit = circuits.conflict(dtype=torch.float64)
    result = ml.self_repair(circuit.model, circuit.pairs, token="answer")
    assert float(abs(result.compensatory_effect).max()) == 0
    np.testing.assert_allclose(result.total_effect, result.direct_effect, atol=1e-6)
    assert float(abs(result.direct_effect).max()) > 1


def test_repair_by_the_norm_alone_is_told_from_repair_by_modules():
    circuit = circuits.conflict(norm="real", dtype=torch.float64)
    result = ml.self_repair(circuit.model, circuit.pairs, token="answer")
    cell = result.sel(site="attn_out", layer=1)
    np.testing.assert_allclose(cell.compensatory_effect, 0, atol=1e-9)
    gap = cell.total_effect - cell.direct_effect
    assert float(abs(gap).min()) > 1e-3
    np.testing.assert_allclose(gap, cell.norm_effect, atol=1e-9)


# --- what cannot be repaired ----------------------------------------------------------------------


def test_nothing_comes_after_the_last_module(family, toy_model):
    model = toy_model(family)
    result = ml.self_repair(model, FACTS)
    last = result.isel(site=-1, layer=-1)
    assert last.compensation.isnull().all()
    assert (last.compensatory_effect == 0).all()
    assert float(abs(last.direct_effect).min()) > 1e-6


def test_modules_beside_one_another_do_not_react(toy_model):
    found = {
        family: ml.self_repair(toy_model(family), FACTS).compensation.sel(
            site="attn_out", layer=1, component="L1.mlp"
        )
        for family in ("gpt2", "neox")
    }
    assert found["neox"].isnull().all(), "parallel blocks: both read the same state"
    assert float(abs(found["gpt2"]).min()) > 1e-6


@pytest.mark.parametrize("positions", ["last", "all"])
def test_a_prompt_in_its_own_place_changes_nothing(positions, attention_family, toy_model):
    one = [FACTS[0]]
    result = ml.self_repair(
        toy_model(attention_family), one, kind="resample", reference=one, draws=1,
        positions=positions,
    )  # fmt: skip
    for name in ("direct_effect", "compensatory_effect", "total_effect"):
        np.testing.assert_allclose(result[name], 0, atol=1e-4, err_msg=name)


def test_ablating_all_positions_is_another_experiment(toy_model):
    model = toy_model("gpt2")
    last, whole = (ml.self_repair(model, FACTS, positions=p) for p in ("last", "all"))
    np.testing.assert_allclose(last.direct_effect, whole.direct_effect, atol=1e-4)
    assert float(abs(last.total_effect - whole.total_effect).max()) > 1e-2


# --- options --------------------------------------------------------------------------------------


def test_prompts_do_not_depend_on_their_company(toy_model):
    model = toy_model("llama")
    options: dict[str, Any] = {"kind": "resample", "reference": OTHERS, "draws": 2, "seed": 3}
    whole = ml.self_repair(model, FACTS, max_batch=5, **options)
    for number, fact in enumerate(FACTS):
        alone = ml.self_repair(model, [fact], **options)
        np.testing.assert_allclose(alone.total_effect[0], whole.total_effect[number], atol=1e-4)


def test_the_token_is_the_predicted_one_or_the_answer(toy_model):
    model = toy_model("gpt2")
    tokens = {
        token: ml.self_repair(model, FACTS, token=token, layers=[0]).token.values.tolist()
        for token in ("predicted", "answer")
    }
    assert [token.strip() for token in tokens["answer"]] == ["Paris", "Madrid", "Paris"]
    assert tokens["predicted"] != tokens["answer"]


REFUSED: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"kind": "noise"}, ml.OptionError, "Allowed: 'zero', 'mean', 'resample'"),
    ({"kind": "resample"}, ml.OptionError, "whose outputs stand in"),
    ({"reference": OTHERS}, ml.OptionError, "'zero' without a reference"),
    ({"positions": "each"}, ml.OptionError, "Allowed: 'last', 'all'"),
    ({"token": "wrong_answer"}, ml.OptionError, "Allowed: 'predicted', 'answer'"),
    ({"sites": ["z"]}, ml.SiteError, "Allowed: attn_out, mlp_out"),
    ({"layers": [3]}, ml.SiteError, "layers go from 0 to 2"),
    ({"draws": 0}, ml.OptionError, "draws=0"),
    ({"kind": "resample", "reference": OTHERS, "draws": 4}, ml.PromptError, "draws=4: 3 of 3"),
]


@pytest.mark.parametrize(("options", "error", "match"), REFUSED)
def test_what_makes_no_sense_is_refused_before_any_run(
    options, error, match, toy_model, monkeypatch
):
    def never(*_: object, **__: object) -> None:
        raise AssertionError("a forward pass")

    monkeypatch.setattr("mechlab.engine.record", never)
    with pytest.raises(error, match=match):
        ml.self_repair(toy_model("gpt2"), FACTS, **options)


def test_a_result_can_be_kept(toy_model, tmp_path):
    store, model = ml.Store(tmp_path), toy_model("gpt2")
    first = store.run(ml.self_repair, model, FACTS, kind="mean", reference=OTHERS)
    again = store.run(ml.self_repair, model, FACTS, kind="mean", reference=OTHERS)
    xr.testing.assert_equal(first, again)


# --- the line -------------------------------------------------------------------------------------


def made(x: np.ndarray, y: np.ndarray) -> xr.Dataset:
    cell = ("prompt", "site", "layer")
    return xr.Dataset(
        {
            "direct_effect": (cell, x[:, None, None]),
            "compensatory_effect": (cell, y[:, None, None]),
        },
        {"site": ["attn_out"], "layer": [0]},
    )


def test_the_line_is_that_of_a_least_squares_fit():
    from scipy import stats

    rng = np.random.default_rng(0)
    x = rng.normal(2, 1, 50)
    y = 0.4 * x + rng.normal(0, 0.3, 50)
    line, known = ml.repair_slope(made(x, y)).squeeze(), stats.linregress(x, y)
    assert float(line.slope) == pytest.approx(known.slope)
    assert float(line.intercept) == pytest.approx(known.intercept)
    assert float(line.r_squared) == pytest.approx(known.rvalue**2)
    assert float(line.slope_through_origin) == pytest.approx((x @ y) / (x @ x))


def test_intervals_of_the_slope_cover_it_with_clustered_prompts():
    rng, covered, runs = np.random.default_rng(1), 0, 100
    labels = np.repeat(np.arange(20), 4)
    for _ in range(runs):
        x = np.repeat(rng.normal(size=20), 4) + 0.3 * rng.normal(size=80)
        y = 0.5 * x + np.repeat(rng.normal(size=20), 4)
        line = ml.repair_slope(made(x, y), cluster=labels.tolist(), resamples=300)
        covered += float(line.slope_low.squeeze()) <= 0.5 <= float(line.slope_high.squeeze())
    assert 0.88 <= covered / runs <= 0.99


def test_equal_direct_effects_fix_no_slope():
    line = ml.repair_slope(made(np.full(10, 2.0), np.linspace(0, 2, 10))).squeeze()
    assert np.isnan(line.slope) and np.isnan(line.slope_low)
    assert float(line.slope_through_origin) == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"cluster": "group"}, "is not a coordinate of .prompt"),
        ({"cluster": [1, 2]}, "2 labels for 10 entries of prompt"),
        ({"confidence": 1.0}, "confidence=1.0"),
    ],
)
def test_a_line_that_cannot_be_drawn_is_refused(options, match):
    with pytest.raises(ml.OptionError, match=match):
        ml.repair_slope(made(np.arange(10.0), np.arange(10.0)), **options)


def test_another_result_has_no_slope():
    with pytest.raises(ml.OptionError, match="Allowed: a result of self_repair"):
        ml.repair_slope(xr.Dataset({"effect": ("prompt", [1.0])}))


def test_every_effect_is_that_of_plain_runs_and_the_norm_written_out(toy_model):
    """Direct and compensatory effect from recorded writes, the total from two plain runs."""
    model, text = toy_model("gpt2"), "The Eiffel Tower is located in the city of"
    ours = ml.self_repair(model, ml.prompts.Fact(text, "Eiffel Tower")).isel(prompt=0)
    clean = plain_run(model, text, keep=True)
    last, token = len(clean.logits) - 1, int(clean.logits[-1].argmax())
    head, norm = model.hf.lm_head.weight, model.hf.transformer.ln_f
    final = clean.values["resid_post", toys.N_LAYERS - 1][-1]
    scale = (final.var(unbiased=False) + norm.eps).sqrt()
    read = (head[token] - head.mean(0)) * norm.weight / scale
    modules = [(n, layer) for layer in range(toys.N_LAYERS) for n in ("attn_out", "mlp_out")]
    for place, (site, layer) in enumerate(modules):
        step = ml.Ablate(ml.Site(site, layer, pos=last))
        ablated = plain_run(model, text, [step], keep=True)

        def worth(run, of):
            write = run.values[of][-1]
            return float((write - write.mean()) @ read)

        direct = worth(clean, (site, layer))
        repair = sum(worth(ablated, of) - worth(clean, of) for of in modules[place + 1 :])
        logit = [float(run.logits[-1, token] - run.logits[-1].mean()) for run in (clean, ablated)]
        cell = ours.sel(site=site, layer=layer)
        assert float(cell.direct_effect) == pytest.approx(direct, abs=1e-4)
        assert float(cell.compensatory_effect) == pytest.approx(repair, abs=1e-4)
        assert float(cell.total_effect) == pytest.approx(logit[0] - logit[1], abs=1e-4)
        left = float(cell.total_effect - cell.norm_effect)
        assert left == pytest.approx(direct - repair, abs=1e-4)
