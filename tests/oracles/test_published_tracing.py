"""`causal_trace` equals the published procedure, cell by cell and sample by sample."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
import toys
import xarray as xr
from oracles import published_trace
from oracles.modules import embedding_path, part

from mechlab.hooks import noise
from mechlab.methods.tracing import causal_trace, subject_embedding_std
from mechlab.models import Model
from mechlab.prompts import Fact

ToyModel = Callable[..., Model]
STD, SAMPLES, SEED = 0.6, 3, 4
FACTS = [
    Fact("The Eiffel Tower is located in the city of", "Eiffel Tower"),
    Fact("Paris is the capital of", "Paris"),
    Fact("w1 w2 born in Space Needle", "Space Needle"),  # the subject ends the prompt
]
"""Three lengths in one batch, so that every trace below is of left-padded rows."""
SITES = {
    "gpt2": ["resid_pre", "resid_mid", "resid_post", "mlp_out", "attn_out"],
    "neox": ["resid_pre", "resid_post", "mlp_out", "attn_out"],
    "llama": ["resid_pre", "resid_mid", "resid_post", "mlp_out", "attn_out"],
    "mamba": ["resid_pre", "resid_post", "mixer_out"],
    "mamba2": ["resid_pre", "resid_post", "mixer_out"],
}
WRITERS = [(f, s) for f in toys.FAMILIES for s in SITES[f] if not s.startswith("resid")]
SEVERED = [(f, how) for f in toys.ATTENTION_FAMILIES for how in ("mlp", "attn")]
SEVERED += [(f, "mixer") for f in toys.RECURRENT_FAMILIES]


def draws_of(model: Model, fact: Fact) -> tuple[int, torch.Tensor]:
    """First noised position, and the noise [sample, span, d_model] mechlab draws."""
    first, last = model.subject_positions(fact)
    n = last - first + 1
    unit = [noise(SEED, fact.prompt, draw, n, model.d_model) for draw in range(SAMPLES)]
    return first, torch.stack(unit) * STD


def trace(model: Model, **options: object) -> xr.Dataset:
    return causal_trace(
        model,
        FACTS,
        noise_std=STD,
        samples=SAMPLES,
        seed=SEED,
        **options,  # type: ignore[arg-type]
    )


def assert_equal_to_published(
    model: Model,
    family: str,
    ours: xr.Dataset,
    *,
    window: int = 1,
    sever: str | None = None,
) -> None:
    hf = toys.make_hf(family)
    for index, fact in enumerate(FACTS):
        tokens = model.tokenize([fact.prompt]).row(0)
        first, draws = draws_of(model, fact)
        row = ours.isel(prompt=index)
        scored, baseline = published_trace.corrupted_probabilities(hf, family, tokens, first, draws)
        assert str(row.scored_token.item()) == model.token_string(scored)
        assert float(row.clean_probability) == pytest.approx(float(baseline[0]), abs=1e-6)
        np.testing.assert_allclose(row.corrupted_probability, baseline[1:], atol=1e-6)
        for site in ours.site.values:
            expected = published_trace.restored_probabilities(
                hf,
                family,
                tokens,
                first,
                draws,
                site=str(site),
                scored=scored,
                window=window,
                sever=sever,
            ).numpy()
            got = row.restored_probability.sel(site=site).transpose("layer", "pos", "sample").values
            np.testing.assert_allclose(got[:, : len(tokens)], expected, atol=2e-6)
            assert np.isnan(got[:, len(tokens) :]).all(), "cells beyond the prompt must be NaN"
            moved = np.abs(expected - baseline[1:].numpy()).max()
            if sever is not None and site == published_trace.SEVERED[sever]:
                assert moved <= 1e-6, "what is restored is held at its corrupted value again"
            else:
                assert moved > 1e-3, "this trace shows nothing"


def test_every_site_of_every_family(family: str, toy_model: ToyModel) -> None:
    model = toy_model(family)
    ours = trace(model, sites=SITES[family], window=1)
    assert_equal_to_published(model, family, ours)


@pytest.mark.parametrize("window", [3, 10])
@pytest.mark.parametrize(("family", "site"), WRITERS)
def test_windows(family: str, site: str, window: int, toy_model: ToyModel) -> None:
    model = toy_model(family)
    ours = trace(model, sites=[site], window=window)
    assert_equal_to_published(model, family, ours, window=window)


@pytest.mark.parametrize(("family", "sever"), SEVERED)
def test_severed_variants(family: str, sever: str, toy_model: ToyModel) -> None:
    model = toy_model(family)
    sites = [site for site in SITES[family] if site not in ("resid_pre", "resid_mid")]
    ours = trace(model, sites=sites, sever=sever, window=2)
    assert_equal_to_published(model, family, ours, window=2, sever=sever)


@pytest.mark.parametrize("options", [{"mode": "packed"}, {"mode": "plain"}, {"max_batch": 2}])
def test_every_way_of_running(options: dict[str, object], toy_model: ToyModel) -> None:
    model = toy_model("llama")
    ours = trace(model, sites=["attn_out"], window=2, **options)
    assert_equal_to_published(model, "llama", ours, window=2)


def test_names_of_several_tokens(toy_model: ToyModel) -> None:
    """Byte-level pieces: the subject's span comes from offsets, leading space and all."""
    model, fact = toy_model("llama", "bpe"), Fact("In Zanzibar the river is", "Zanzibar")
    first, last = model.subject_positions(fact)
    assert last - first >= 3
    draws = torch.stack([noise(SEED, fact.prompt, 0, last - first + 1, model.d_model)]) * STD
    ours = causal_trace(model, fact, noise_std=STD, samples=1, seed=SEED)
    tokens, hf = model.tokenize([fact.prompt]).row(0), toys.make_hf("llama")
    scored, _ = published_trace.corrupted_probabilities(hf, "llama", tokens, first, draws)
    expected = published_trace.restored_probabilities(
        hf, "llama", tokens, first, draws, site="resid_post", scored=scored
    )
    got = ours.restored_probability.isel(prompt=0, site=0).transpose("layer", "pos", "sample")
    np.testing.assert_allclose(got, expected, atol=2e-6)


@pytest.mark.parametrize(("site", "window"), [("resid_post", 1), ("writer", 2)])
@pytest.mark.parametrize("sever", [False, True])
def test_interchange(family: str, site: str, window: int, sever: bool, toy_model: ToyModel) -> None:
    """Another subject instead of noise, of another length, aligned at the subject's end."""
    model, hf, fact = toy_model(family), toys.make_hf(family), FACTS[0]
    attention = family in toys.ATTENTION_FAMILIES
    site = site if site != "writer" else ("attn_out" if attention else "mixer_out")
    how = ("mlp" if attention else "mixer") if sever else None
    others = {fact.subject: ["Big Ben", "river", "Ann Bob Mary"]}
    ours = causal_trace(
        model,
        fact,
        sites=[site],
        window=window,
        samples=3,
        corruption="interchange",
        other_subjects=others,
        sever=how or "none",  # type: ignore[arg-type]
    ).isel(prompt=0, site=0)
    tokens = model.tokenize([fact.prompt]).row(0)
    scored = int(hf(tokens[None], use_cache=False).logits[0, -1].argmax())
    for sample, name in enumerate(others[fact.subject]):
        other = model.tokenize([fact.prompt.replace(fact.subject, name)]).row(0)
        shift = len(other) - len(tokens)  # BOS The | Eiffel Tower | is located ...
        aligned = {pos: pos if pos < 2 else pos + shift for pos in range(len(tokens))}
        if name == "river":
            del aligned[2]  # its only token stands for the subject's last one
        expected = published_trace.interchanged_probabilities(
            hf, family, tokens, other, aligned, site=site, scored=scored, window=window, sever=how
        )
        got = ours.restored_probability.isel(sample=sample).transpose("layer", "pos")
        np.testing.assert_allclose(got, expected, atol=2e-6)
        plain = published_trace.final_probabilities(hf, other, 0)[0, scored]
        assert float(ours.corrupted_probability[sample]) == pytest.approx(float(plain), abs=1e-6)


def test_the_noise_scale_is_that_of_the_subjects_embeddings(
    family: str, toy_model: ToyModel
) -> None:
    model, names = toy_model(family), ["Paris", "Eiffel Tower", "Big Ben"]
    embedding = part(toys.make_hf(family), embedding_path(family))
    ids = [toys.make_tokenizer()(name, add_special_tokens=False).input_ids for name in names]
    std = float(torch.cat([embedding.weight[row].detach().flatten() for row in ids]).std())
    assert subject_embedding_std(model, names) == pytest.approx(std, rel=1e-5)
    traced = causal_trace(model, FACTS[1], reference=names, noise_scale=2.0, samples=1)
    assert traced.attrs["noise_std"] == pytest.approx(2 * std, rel=1e-5)
