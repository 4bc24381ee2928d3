"""Recorded activations are those of plain runs, and values handed in are written where asked."""

import random
from collections.abc import Callable

import numpy as np
import pytest
import torch
from oracles.plain import plain_run

from mechlab import engine
from mechlab.engine import Base, Row
from mechlab.errors import OptionError, SiteError
from mechlab.hooks import SITES, AddNoise, Insert, Patch, Site, live_sites
from mechlab.models import Model

SHORT, TWIN, LONG = (
    "Paris is the capital of France w1",
    "Rome was by tower near Italy w7",
    "w4 w9 Oslo is in w5 the river of Norway w2 w3",
)
ToyModel = Callable[..., Model]


def places_of(model: Model) -> list[tuple[str, int | None]]:
    return [
        (name, layer)
        for name in live_sites(model)
        for layer in (range(model.n_layers) if SITES[name].per_layer else (None,))
    ]


def test_recordings_of_ragged_prompts_equal_plain_runs(family: str, toy_model: ToyModel) -> None:
    model = toy_model(family)
    noisy = (AddNoise(Site("embed"), 2, 3, 0.7, seed=0, draw=0),)
    bases = [Base(SHORT), Base(LONG, noisy), Base(TWIN, read_pos=3)]
    places = places_of(model)
    seen = list(engine.record(model, bases, places, at_once=2))
    assert [one.base for one in seen] == [0, 1, 2]
    for base, one in zip(bases, seen, strict=True):
        plain = plain_run(model, base.prompt, base.interventions, keep=True)
        read = -1 if base.read_pos is None else base.read_pos
        torch.testing.assert_close(one.logits, plain.logits[read], atol=2e-5, rtol=0)
        last = plain.values["resid_post", model.n_layers - 1]
        torch.testing.assert_close(one.final, last[read], atol=2e-5, rtol=0)
        for place in places:
            if place[0] != "scores":  # minus infinity above the diagonal, as the model likes it
                torch.testing.assert_close(
                    one.values[place], plain.values[place], atol=2e-5, rtol=0, msg=str(place)
                )


def test_a_place_that_does_not_exist_is_refused_before_a_forward(toy_model: ToyModel) -> None:
    with pytest.raises(SiteError, match="resid_mid"):
        list(engine.record(toy_model("neox"), [Base(SHORT)], [("resid_mid", 0)]))
    with pytest.raises(SiteError, match="layer 9"):
        list(engine.record(toy_model("gpt2"), [Base(SHORT)], [("mlp_out", 9)]))


@pytest.mark.parametrize("mode", ["wavefront", "packed", "plain"])
def test_inserting_what_another_run_had_is_patching_from_it(
    family: str, mode: str, toy_model: ToyModel
) -> None:
    model = toy_model(family)
    names = [name for name in live_sites(model) if SITES[name].axes != "bhqk"]
    bases = [Base(SHORT), Base(LONG), Base(TWIN)]
    draw = random.Random(0)
    patched, inserted, banks = [], [], {}
    recorded = list(engine.record(model, bases, places_of(model)))
    for number in range(24):
        name = draw.choice(names)
        layer = draw.randrange(model.n_layers) if SITES[name].per_layer else None
        heads = model.n_kv_heads if name in ("k", "v") else model.n_heads
        head = draw.randrange(heads or 1) if SITES[name].has_heads and draw.random() < 0.7 else None
        pos = draw.choice([None, 0, 3, 6])
        site = Site(name, layer, head, pos)
        value = recorded[2].values[name, layer]  # the twin, as long as the first prompt
        value = value if head is None else value[:, head]
        banks[f"bank {number}"] = torch.stack([torch.zeros_like(value), value])
        patched.append(Row(0, (Patch(site, 2),)))
        inserted.append(Row(0, (Insert(site, f"bank {number}", 1),)))
    options = {"read": "logits", "mode": mode}
    expected = engine.run(model, bases, patched, **options)
    found = engine.run(model, bases, inserted, banks=banks, **options)
    np.testing.assert_allclose(found.rows, expected.rows, atol=2e-5, rtol=0)
    assert np.abs(found.rows - found.bases[:1]).max() > 1e-2


def test_banks_that_do_not_fit_are_refused(toy_model: ToyModel) -> None:
    model = toy_model("llama")
    row = [Row(0, (Insert(Site("k", 1, head=0), "keys", 2),))]
    with pytest.raises(OptionError, match="Banks: 'values'"):
        engine.run(model, [Base(SHORT)], row, read="logits", banks={"values": torch.zeros(1)})
    length = len(model.token_strings(SHORT))
    good = torch.zeros(3, length, model.d_head)
    for bank in (good[:2], good[:, :-1], good[..., 1:], good[:, :, None]):
        with pytest.raises(OptionError, match="bank 'keys' is"):
            engine.run(model, [Base(SHORT)], row, read="logits", banks={"keys": bank})
    engine.run(model, [Base(SHORT)], row, read="logits", banks={"keys": good})
    with pytest.raises(SiteError, match="cannot write 'pattern'"):
        Insert(Site("pattern", 0), "x", 0)
