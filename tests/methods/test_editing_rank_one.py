"""Rank-one edits and MEMIT on toys, against plain PyTorch and against their own algebra."""

import functools
import inspect
import warnings
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import toys
import transformers
from oracles import plain_editing

from mechlab import organisms
from mechlab.engine.verify import EngineWarning, verify
from mechlab.errors import OptionError, PromptError
from mechlab.methods.editing import (
    KeyStatistics,
    as_variant,
    edit_settings,
    export,
    fine_tune_edit,
    key_statistics,
    memit,
    rank_one_edit,
)
from mechlab.methods.editing.contexts import rome_contexts
from mechlab.methods.editing.edits import unedited_fingerprint
from mechlab.methods.editing.modules import projection
from mechlab.models import load_model, wrap_model
from mechlab.organisms.cards import EDIT_SETTINGS
from mechlab.prompts import EditRequest

REQUEST = EditRequest("The capital of {} is", "Germany", "Rome", target_true="Paris")
CONTEXTS = ("", "Ann was born. ")
LAYER = 1
PATHS = {
    "gpt2": "transformer.h.1.mlp.c_proj",
    "neox": "gpt_neox.layers.1.mlp.dense_4h_to_h",
    "llama": "model.layers.1.mlp.down_proj",
    "mamba": "backbone.layers.1.mixer.out_proj",
}
TOLERANCE = {"gpt2": 1e-6, "neox": 1e-6, "llama": 1e-6, "mamba": 1e-4}
"""Mamba's scan, and its logits, are float32 in transformers whatever the weights are."""
SETTINGS = {"contexts": CONTEXTS, "steps": 4, "learning_rate": 0.3}


def slow(family):
    """A family whose kind of block or storage another one shows in the plain suite."""
    return pytest.param(family, marks=pytest.mark.slow)


@functools.cache
def toy(family, dtype=torch.float64):
    model = wrap_model(toys.make_hf(family, dtype=dtype), toys.make_tokenizer("bpe"), name=family)
    with warnings.catch_warnings():  # in float64 the Llama of transformers cannot be padded
        warnings.simplefilter("ignore", EngineWarning)
        verify(model)
    return model


@functools.cache
def statistics(family, dtype=torch.float64):
    """Statistics of random keys: any positive matrix will do for the algebra."""
    model = toy(family, dtype)
    width = projection(model, LAYER).d_in
    rows = np.random.default_rng(0).normal(size=(3, 4 * width, width))
    moments = np.einsum("lti,ltj->lij", rows, rows) / (4 * width)
    site = projection(model, LAYER).site
    return KeyStatistics((0, 1, 2), site, moments, 4 * width, unedited_fingerprint(model))


@functools.cache
def edited(family, variant="r-rome"):
    given = {**SETTINGS, "key_statistics": statistics(family)}
    return rank_one_edit(toy(family), REQUEST, layer=LAYER, variant=variant, **given)


def token_rows(model, texts, subject):
    """Ids and the position of the subject's last token, found by its characters."""
    found = []
    for text in texts:
        batch = model.tokenize(text)
        end = text.rindex(subject) + len(subject)
        position = max(i for i, (a, b) in enumerate(batch.offsets[0]) if a < end <= b)
        found.append(([int(i) for i in batch.row(0)], position))
    return found


@pytest.mark.parametrize("family", ["gpt2", "llama", "mamba", slow("neox")])
def test_the_weights_are_those_of_a_plain_reimplementation(family):
    model, hf = toy(family), toys.make_hf(family, dtype=torch.float64)
    module = hf.get_submodule(PATHS[family])
    weight = module.weight.detach().T if family == "gpt2" else module.weight.detach()
    bias = getattr(module, "bias", None)
    rows = token_rows(model, [c + REQUEST.prompt for c in CONTEXTS], REQUEST.subject)
    keys = plain_editing.keys_at(hf, module, rows)
    ids, position = token_rows(model, ["Germany is a"], "Germany")[0]
    (target,) = model.answer_tokens([REQUEST.prompt], ["Rome"], answer="full")
    value = plain_editing.best_value(
        hf, module, rows, list(target), (ids, position),
        (weight @ keys[0] + (0 if bias is None else bias)).detach(),
        steps=4, lr=0.3, clamp=4.0 if family in ("gpt2", "llama") else 3.0,
    )  # fmt: skip
    for variant in ("r-rome", "rome", "p-rome") if family == "gpt2" else ("r-rome",):
        edit = edited(family, variant)
        moment = statistics(family).moment(LAYER)
        expected = plain_editing.new_weight(weight, bias, keys, value, moment, variant)
        with edit.applied(model):
            mine = projection(model, LAYER).weight.clone()
        assert (mine - weight).norm() > 1e-2
        assert (mine - expected).abs().max() < TOLERANCE[family], variant
    np.testing.assert_allclose(edit.details.value[0], value, atol=TOLERANCE[family] * 10)


@pytest.mark.parametrize("family", ["gpt2", "neox", slow("mamba")])
def test_continuing_from_the_edited_layer_and_subject_equals_whole_forward_passes(family):
    plain = rank_one_edit(
        toy(family), REQUEST, layer=LAYER, key_statistics=statistics(family), mode="plain",
        **SETTINGS,
    )  # fmt: skip
    within = 1e-4 if family == "mamba" else 1e-9
    for name in ("loss", "nll", "kl", "decay", "delta_norm"):
        mine = edited(family).details[name]
        np.testing.assert_allclose(plain.details[name], mine, atol=within, err_msg=name)
    assert float(plain.details.kl[0, -1]) > 0


@pytest.mark.parametrize("variant", ["r-rome", "rome", "p-rome"])
def test_each_variant_is_exact_at_its_own_key_and_not_at_the_other(variant):
    model, details = toy("neox"), edited("neox", variant).details
    keys = {"mean": details.key_mean.values[0], "bare": details.key_bare.values[0]}
    exact = "mean" if variant == "r-rome" else "bare"
    with edited("neox", variant).applied(model):
        place = projection(model, LAYER)
        reached = {name: place.value_of(torch.tensor(key)).numpy() for name, key in keys.items()}
    error = {name: np.abs(one - details.value.values[0]).max() for name, one in reached.items()}
    other = "bare" if exact == "mean" else "mean"
    assert error[exact] < 1e-10 and error[other] > 1e-3
    assert edited("neox", variant).rank == 1
    np.testing.assert_allclose(float(details.cast_error[0]), 0, atol=1e-12)
    away = {name: np.linalg.norm(one - details.value.values[0]) for name, one in reached.items()}
    told = float(details.residual[0]), float(details.residual_bare[0])
    np.testing.assert_allclose(told, (away[exact], away["bare"]), atol=1e-10)


def test_key_templates_make_up_half_of_the_mean_key_and_the_variant_is_exact_there():
    model = toy("gpt2")
    edit = rank_one_edit(
        model, REQUEST, layer=LAYER, key_statistics=statistics("gpt2"),
        key_templates=["{}", "See {} now"], **SETTINGS,
    )  # fmt: skip
    hf = toys.make_hf("gpt2", dtype=torch.float64)
    texts = [*(c + REQUEST.prompt for c in CONTEXTS), "Germany", "See Germany"]
    rows = token_rows(model, texts, "Germany")
    keys = plain_editing.keys_at(hf, hf.get_submodule(PATHS["gpt2"]), rows)
    mean = keys.reshape(2, 2, -1).mean((0, 1))
    np.testing.assert_allclose(edit.details.key_mean[0], mean, atol=1e-6)
    np.testing.assert_allclose(edit.details.value, edited("gpt2").details.value, atol=1e-12)
    with edit.applied(model):
        key = torch.tensor(edit.details.key_mean.values[0])
        reached = projection(model, LAYER).value_of(key)
    np.testing.assert_allclose(reached, edit.details.value[0], atol=1e-10)


def test_settings_are_those_of_the_papers_and_of_the_card_by_shape():
    def settings(family, n_layers, d_model):
        shape = SimpleNamespace(family=family, n_layers=n_layers, d_model=d_model)
        return edit_settings(shape)

    assert settings("gpt2", 2, 32) == settings("llama", 24, 1024) == {}
    assert settings("gpt2", 24, 1024) == {"layer": 8, "clamp": 3.0}
    assert settings("llama", 8, 192) == organisms.card("atlas")["edit_settings"] == EDIT_SETTINGS
    known = inspect.signature(rank_one_edit).parameters
    assert set(EDIT_SETTINGS) <= set(known)


def test_another_variant_of_an_edit_is_the_edit_made_anew_as_that_variant():
    model, keys = toy("gpt2"), statistics("gpt2")
    for variant in ("rome", "p-rome"):
        found = as_variant(model, edited("gpt2"), variant, key_statistics=keys)
        whole = edited("gpt2", variant)
        np.testing.assert_allclose(found.deltas[0].change(), whole.deltas[0].change(), atol=1e-12)
        assert set(found.details) == set(whole.details)
        assert found.details.attrs["options"] == whole.details.attrs["options"]
    tuned = fine_tune_edit(model, REQUEST, layer=LAYER, steps=1)
    with pytest.raises(OptionError, match="what rank_one_edit returned"):
        as_variant(model, tuned, "rome", key_statistics=keys)
    with edited("gpt2").applied(model), pytest.raises(OptionError, match="another model"):
        as_variant(model, edited("gpt2"), "rome", key_statistics=keys)


def test_with_the_bare_prompt_alone_all_variants_are_one():
    changes = [
        rank_one_edit(
            toy("gpt2"), REQUEST, layer=LAYER, key_statistics=statistics("gpt2"), steps=3,
            contexts=("",), variant=variant,
        ).deltas[0].change()
        for variant in ("r-rome", "rome", "p-rome")
    ]  # fmt: skip
    torch.testing.assert_close(changes[0], changes[1])
    torch.testing.assert_close(changes[0], changes[2])


def test_the_edited_model_does_at_the_subject_what_the_added_vector_did():
    model, edit = toy("llama"), edited("llama", "rome")
    details = edit.details
    ((ids, position),) = token_rows(model, [REQUEST.prompt], REQUEST.subject)
    module = projection(model, LAYER).module
    outputs = []

    def run(function):
        with torch.no_grad(), plain_editing.output_hook(module, function):
            return plain_editing.logits_of(model.bridge, ids)

    class Wrapped(torch.nn.Module):
        def forward(self, tokens, use_cache):
            return type("Out", (), {"logits": model.bridge(tokens, use_cache=use_cache)})

    bridge = Wrapped()

    def whole(function):
        with torch.no_grad(), plain_editing.output_hook(module, function):
            return plain_editing.logits_of(bridge, ids)

    def keep(_, out):
        outputs.append(out.clone())
        return out

    delta = torch.tensor((details.value - details.value_before).values[0])
    here = (torch.arange(len(ids)) == position)[:, None]
    plain = whole(keep)
    hooked = whole(lambda _, out: out + here * delta)
    with edit.applied(model):
        edited_output = whole(keep)
        frozen = whole(lambda _, out: torch.where(here, out, outputs[0]))
    np.testing.assert_allclose(outputs[1][0, position], details.value[0], atol=1e-10)
    torch.testing.assert_close(frozen, hooked, atol=1e-9, rtol=0)
    assert (hooked - plain).abs().max() > 1e-2
    assert (edited_output - hooked).abs().max() > 1e-9  # other tokens' keys do move a little


def test_the_vector_never_leaves_its_ball_and_the_loss_is_the_sum_of_its_terms():
    tight = rank_one_edit(
        toy("gpt2"), REQUEST, layer=LAYER, key_statistics=statistics("gpt2"), clamp=0.05, **SETTINGS
    ).details
    limit = 0.05 * np.linalg.norm(tight.value_before[0])
    assert (tight.delta_norm.values[0] <= limit * (1 + 1e-12)).all()
    np.testing.assert_allclose(tight.delta_norm.values[0, 1:], limit, rtol=1e-12)
    np.testing.assert_allclose(tight.loss, tight.nll + tight.kl + tight.decay)


def test_the_optimisation_ends_when_the_loss_is_small_and_what_follows_is_nan():
    full = edited("gpt2").details.loss.values[0]
    assert (np.diff(full) < 0).all()
    between = float(full[1:3].mean())
    done = rank_one_edit(
        toy("gpt2"), REQUEST, layer=LAYER, key_statistics=statistics("gpt2"),
        **{**SETTINGS, "stop_loss": between},
    ).details  # fmt: skip
    assert done.stopped.values.tolist() == ["loss"] and int(done.steps[0]) == 3
    np.testing.assert_allclose(done.loss.values[0, :3], full[:3])
    assert np.isnan(done.loss.values[0, 3:]).all()


def test_contexts_are_drawn_from_the_model_by_seed_and_stored_with_the_edit():
    model = toy("gpt2", torch.float32)
    drawn = rome_contexts(model, seed=3)
    assert drawn == rome_contexts(model, seed=3) != rome_contexts(model, seed=4)
    assert len(drawn) == 21 and drawn[0] == "" and all(c.endswith(". ") for c in drawn[1:] if c)
    edit = rank_one_edit(
        model, REQUEST, layer=LAYER, key_statistics=statistics("gpt2", torch.float32), seed=3,
        steps=2,
    )  # fmt: skip
    assert tuple(edit.details.context.values) == drawn
    away = float(edit.details.residual[0])
    assert 0 < away < 1e-5 < float(edit.details.residual_bare[0]), "R-ROME's own key, and the other"


def test_half_precision_edits_are_solved_wide_and_measured_after_the_cast():
    model = toy("llama", torch.bfloat16)
    edit = rank_one_edit(
        model, REQUEST, layer=LAYER, key_statistics=statistics("llama", torch.bfloat16), **SETTINGS
    )
    error = float(edit.details.cast_error[0])
    assert 1e-5 < error < 0.05  # of the cast, not of the solve
    with edit.applied(model):
        mean = torch.tensor(edit.details.key_mean.values[0])
        reached = projection(model, LAYER).value_of(mean)
    value = torch.tensor(edit.details.value.values[0])
    assert float((reached - value).norm() / value.norm()) == pytest.approx(error, rel=1e-6)


def test_a_half_of_mambas_input_projection_meets_its_value():
    model = toy("mamba")
    place = projection(model, LAYER, "in_proj_gate")
    stats = KeyStatistics(
        (1,), "in_proj_gate", np.eye(place.d_in)[None], 1, unedited_fingerprint(model)
    )
    edit = rank_one_edit(
        model, REQUEST, layer=1, site="in_proj_gate", key_statistics=stats, **SETTINGS
    )
    with edit.applied(model):
        reached = projection(model, 1, "in_proj_gate").value_of(
            torch.tensor(edit.details.key_mean.values[0])
        )
    np.testing.assert_allclose(reached, edit.details.value[0], atol=1e-10)
    assert float(edit.details.nll[0, -1]) < float(edit.details.nll[0, 0])


# --- many at once ----------------------------------------------------------------------------

REQUESTS = (
    REQUEST,
    EditRequest("{} is located in", "Big Ben", "Cairo"),
    EditRequest("The language of {} is", "Peru", "Oslo"),
)


def test_one_edit_in_one_layer_misses_the_known_share_of_its_residual():
    model, stats = toy("llama"), statistics("llama")
    weight = 30.0
    edit = memit(
        model, [REQUEST], layers=[LAYER], key_statistics=stats, moment_weight=weight,
        contexts=("",), steps=3,
    )  # fmt: skip
    key = torch.tensor(edit.deltas[0].right[:, 0])
    ((ids, position),) = token_rows(model, [REQUEST.prompt], REQUEST.subject)
    hf = toys.make_hf("llama", dtype=torch.float64)
    key = plain_editing.keys_at(hf, hf.get_submodule(PATHS["llama"]), [(ids, position)])[0]
    gain = float(key @ torch.linalg.inv(stats.moment(LAYER)) @ key)
    assert float(edit.details.error[0, 0]) == pytest.approx(weight / (weight + gain), rel=1e-9)


def test_requests_do_not_depend_on_whom_they_are_optimised_with_and_all_hold():
    model, stats = toy("gpt2"), statistics("gpt2")
    given = dict(layers=[0, 1], key_statistics=stats, moment_weight=1e-6, steps=5)
    together = memit(model, REQUESTS, max_batch=3, contexts=CONTEXTS, **given)
    apart = memit(model, REQUESTS, max_batch=1, contexts=CONTEXTS, **given)
    np.testing.assert_allclose(together.details.residual, apart.details.residual, atol=1e-9)
    assert together.layers == (0, 1) and together.rank == 3
    # Keys of contexts are only near those of the bare prompts; with these alone it is exact.
    bare = memit(model, REQUESTS, contexts=("",), **given)
    assert (bare.details.error[:, -1] < 1e-4).all()
    assert (bare.details.error_before[:, 1] == pytest.approx(0.5, abs=0.3)).all()
    nothing = memit(model, REQUESTS, contexts=("",), **{**given, "moment_weight": 1e12})
    assert nothing.norm < 1e-6 and (nothing.details.error[:, -1] > 0.999).all()


# --- baselines and export ------------------------------------------------------------------


@pytest.mark.parametrize("bound", [None, 2e-3])
def test_fine_tuning_is_adam_on_the_parameter_itself(bound):
    model, hf = toy("gpt2"), toys.make_hf("gpt2", dtype=torch.float64)
    edit = fine_tune_edit(
        model, REQUEST, layer=LAYER, steps=5, learning_rate=1e-3, max_change=bound
    )
    ((ids, _),) = token_rows(model, [REQUEST.prompt], REQUEST.subject)
    (target,) = model.answer_tokens([REQUEST.prompt], ["Rome"], answer="full")
    parameter = hf.get_submodule(PATHS["gpt2"]).weight
    expected = plain_editing.fine_tuned(
        hf, parameter, ids, list(target), steps=5, lr=1e-3, bound=bound
    )
    np.testing.assert_allclose(edit.deltas[0].dense, expected.T, atol=1e-6)
    assert (np.abs(edit.deltas[0].dense).max() <= 2e-3) == (bound is not None)
    assert float(edit.details.probability_new[0]) > float(edit.details.probability_new_before[0])


@pytest.mark.parametrize("family", ["gpt2", "llama", slow("mamba")])
def test_an_exported_folder_gives_the_edited_logits_in_plain_transformers(family, tmp_path):
    model = toy(family, torch.float32)
    edit = rank_one_edit(
        model, REQUEST, layer=LAYER, key_statistics=statistics(family, torch.float32), **SETTINGS
    )
    folder = export(model, edit, tmp_path / "edited")
    loaded = transformers.AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager")
    tokens = model.tokenize([REQUEST.prompt]).tokens
    with torch.no_grad():
        unedited = model.bridge(tokens, use_cache=False)
        with edit.applied(model):
            expected = model.bridge(tokens, use_cache=False)
        found = loaded(tokens, use_cache=False).logits
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)
    assert (expected - unedited).abs().max() > 1e-2
    with edit.applied(model):
        weight = projection(model, LAYER).weight.clone()
    assert torch.equal(projection(load_model(folder, device="cpu"), LAYER).weight, weight)


# --- bad input ---------------------------------------------------------------------------------


def test_wrong_options_are_all_named_in_one_error_before_anything_is_run():
    model = toy("gpt2")
    before = [p.clone() for p in model.hf.parameters()]
    with pytest.raises(OptionError) as caught:
        rank_one_edit(
            model, REQUEST, layer=9, key_statistics=statistics("llama"), variant="r_rome",
            steps=0, learning_rate=-1, contexts=("a",), seed=-1, kl_template="is a", mode="fast",
            key_templates="{}",
        )  # fmt: skip
    parts = ["layers [9]", "they are of the model", "variant='r_rome'", "steps=0", "contexts="]
    parts += ["learning_rate=-1", "seed=-1", "kl_template", "mode='fast'", "key_templates='{}'"]
    assert [part for part in parts if part not in str(caught.value)] == []
    with pytest.raises(OptionError, match=r"contexts=5(.|\n)*kl_template=None"):
        memit(
            model, [REQUEST], layers=3, key_statistics=statistics("gpt2"), contexts=5,
            kl_template=None,
        )  # fmt: skip
    assert all(torch.equal(a, b) for a, b in zip(before, model.hf.parameters(), strict=True))


def test_statistics_of_another_layer_or_without_inverse_are_refused():
    model, stats = toy("gpt2"), statistics("gpt2")
    one = KeyStatistics((1,), "down_proj", stats.moments[1:2], 9, stats.fingerprint)
    with pytest.raises(OptionError, match=r"layers \[1\], not of \[0\]"):
        rank_one_edit(model, REQUEST, layer=0, key_statistics=one)
    singular = KeyStatistics(
        (1,), "down_proj", np.zeros_like(stats.moments[:1]), 1, stats.fingerprint
    )
    with pytest.raises(OptionError, match="singular"):
        rank_one_edit(model, REQUEST, layer=1, key_statistics=singular, **SETTINGS)


def test_objects_that_share_their_first_token_are_refused():
    same = EditRequest("The capital of {} is", "Germany", "Romezz", target_true="Rome")
    with pytest.raises(PromptError, match="begin with the same token"):
        rank_one_edit(toy("gpt2"), same, layer=1, key_statistics=statistics("gpt2"))


def test_braces_in_subject_and_contexts_are_plain_text():
    request = EditRequest("The {x} of {} is", "{Rome}", "Paris")
    edit = rank_one_edit(
        toy("gpt2"), request, layer=1, key_statistics=statistics("gpt2"), steps=2,
        contexts=("", "A {} b. "),
    )  # fmt: skip
    assert edit.requests[0].prompt == "The {x} of {Rome} is"


def test_an_edit_may_be_made_inside_another_and_knows_what_it_stands_on():
    model, first = toy("gpt2"), edited("gpt2")
    with first.applied(model):
        second = rank_one_edit(
            model, REQUESTS[1], layer=1, key_statistics=statistics("gpt2"), **SETTINGS
        )
    assert second.made_on == (first.digest,) and model.edits == ()
    with first.applied(model), second.applied(model, on_top=True):
        assert model.edits == (first.digest, second.digest)


def test_statistics_made_on_the_toy_itself_serve(tmp_path):
    model = toy("gpt2", torch.float32)
    with pytest.warns(UserWarning, match="rank"):
        stats = key_statistics(model, layer=1, corpus=["The capital of France is Paris."], tokens=5)
    edit = rank_one_edit(model, REQUEST, layer=1, key_statistics=stats, **SETTINGS)
    assert float(edit.details.cast_error[0]) < 1e-4
