"""The option `positions` wherever there is one: words, numbers, places, a list per prompt."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from oracles.plain import plain_run

import mechlab as ml
from mechlab.hooks import Patch, Site
from mechlab.prompts import Fact, PromptPair, PromptSet

ToyModel = Callable[..., ml.Model]


def at(text: str, word: str) -> tuple[str, int, int]:
    start = text.index(word)
    return "name", start, start + len(word)


def pair(clean: str, corrupted: str, names: tuple[str, str]) -> PromptPair:
    places = ((at(clean, names[0]),), (at(corrupted, names[1]),))
    return PromptPair(clean, corrupted, "Madrid", "Cairo", None, None, *places)


PAIRS = PromptSet(
    (
        pair("Paris is the capital of France", "Rome was by tower near Italy", ("France", "Italy")),
        pair("When Ann was born in Spain", "When Bob speaks Rome from in", ("Ann", "Bob")),
    )
)
RAGGED = PromptSet((pair("Ann was born in Spain", "When Bob was born in Rome w1", ("Ann", "Bob")),))
METHODS: list[tuple[Any, dict[str, Any]]] = [
    (ml.activation_patch, {}),
    (ml.attribution_patch, {"direction": "noising"}),
    (ml.ablate, {}),
    (ml.ablate, {"kind": "mean", "reference": PAIRS}),
    (ml.ablate, {"kind": "resample", "reference": PAIRS, "draws": 1}),
    (ml.scale_heads, {"heads": ["L1H1"], "alpha": [2.0]}),
]
methods = pytest.mark.parametrize(
    ("method", "options"), METHODS, ids=lambda one: getattr(one, "__name__", "")
)


@methods
def test_a_place_a_list_per_prompt_and_each_prompt_alone_are_one_thing(
    method: Any, options: dict[str, Any], toy_model: ToyModel
) -> None:
    model = toy_model("gpt2")
    lists = ml.prompts.named_positions(model, PAIRS, "name")
    assert lists[0] != lists[1]
    named = method(model, PAIRS, positions="name", **options)
    for given in (lists, np.array(lists), [["name"], ["name"]], ["name"]):
        xr.testing.assert_allclose(
            method(model, PAIRS, positions=given, **options).effect, named.effect
        )
    for index, own in enumerate(lists):
        alone = method(model, PAIRS[index : index + 1], positions=own, **options).effect
        np.testing.assert_allclose(named.effect[index], alone[0], atol=1e-5)
    everywhere = method(model, PAIRS, **options).effect
    assert float(abs(everywhere - named.effect).max()) > 1e-3


@methods
def test_the_store_keeps_lists_per_prompt_as_they_are(
    method: Any, options: dict[str, Any], toy_model: ToyModel, tmp_path: Path
) -> None:
    model, store = toy_model("gpt2"), ml.Store(tmp_path)
    for positions in ([[1], [2, 3]], "name"):
        direct = method(model, PAIRS, positions=positions, **options)
        stored = store.run(method, model, PAIRS, positions=positions, **options)
        xr.testing.assert_allclose(stored.effect, direct.effect, atol=1e-5)


@pytest.mark.parametrize("direction", ["denoising", "noising"])
def test_a_place_corresponds_to_itself_in_a_prompt_of_another_length(
    direction: Any, toy_model: ToyModel
) -> None:
    model = toy_model("llama")
    texts = [RAGGED[0].corrupted, RAGGED[0].clean]
    texts = texts if direction == "denoising" else texts[::-1]
    (here,), (there,) = (
        ml.prompts.named_positions(model, RAGGED, "name", corrupted=side)
        for side in ((True, False) if direction == "denoising" else (False, True))
    )
    assert here != there
    run = plain_run(model, texts[1], keep=True)
    patch = Patch(Site("z", 1, 2, here[0]), 0, there[0])
    word = model.tokenizer.convert_tokens_to_ids
    logits = [plain_run(model, texts[0], steps, [run]).logits[-1] for steps in ([patch], [])]
    patched, before = (float(one[word("Madrid")] - one[word("Cairo")]) for one in logits)
    ours = ml.activation_patch(
        model, RAGGED, heads=["L1H2"], positions="name", direction=direction
    ).effect
    assert float(ours.sel(layer=1, head=2)[0]) == pytest.approx(patched - before, abs=1e-5)
    assert abs(patched - before) > 1e-4
    whole: Any = {"site": "attn_out", "by": "layer", "positions": "name", "direction": direction}
    exact = ml.activation_patch(model, RAGGED, **whole).effect
    guess = ml.attribution_patch(model, RAGGED, steps=16, **whole).effect
    np.testing.assert_allclose(guess, exact, rtol=0.02, atol=1e-4)


def test_facts_have_the_places_of_their_subject(toy_model: ToyModel) -> None:
    model = toy_model("gpt2")
    facts = PromptSet((Fact("The Eiffel Tower is located in", "Eiffel Tower", "Paris"),))
    first, last = model.subject_positions(facts[0])
    assert last == first + 1
    options: Any = {"metric": "log_probability"}
    for name, numbers in {"subject": [first, last], "last_subject": [last], "end": [-1]}.items():
        named = ml.ablate(model, facts, positions=name, **options)
        xr.testing.assert_equal(
            named.effect, ml.ablate(model, facts, positions=numbers, **options).effect
        )


def test_edges_are_cut_from_places_of_pairs_and_from_lists_per_prompt(
    toy_model: ToyModel, tmp_path: Path
) -> None:
    model = toy_model("gpt2")
    lists = ml.prompts.named_positions(model, PAIRS, "name")
    named = ml.knockout(model, PAIRS, keys=["name", "end"], cut="zero", metric="logit_diff")
    assert named.source.values.tolist() == ["name", "end"]
    for given in (lists, np.array(lists)):
        keys: Any = {"name": given, "end": [-1]}
        ours = ml.Store(tmp_path).run(
            ml.knockout, model, PAIRS, keys=keys, cut="zero", metric="logit_diff"
        )
        xr.testing.assert_allclose(ours.effect, named.effect, atol=1e-5)
    asking = ml.knockout(model, PAIRS, keys="bos", queries="name", metric="logit_diff")
    assert asking.query_positions.values.tolist() == [" ".join(map(str, one)) for one in lists]
    with pytest.raises(ml.OptionError, match="3 lists for 2 prompts"):
        ml.knockout(model, PAIRS, keys={"a": [[1], [2], [3]]})
    with pytest.raises(ml.OptionError, match="(?s)'nowhere' is not a group.*Allowed: last.*name"):
        ml.knockout(model, PAIRS, keys="nowhere")
    with pytest.raises(ml.PromptError, match="(?s)#1 .*'name': it has no such place"):
        ml.knockout(model, [PAIRS[0], BARE], keys="name")


BARE = PromptPair("Ann was born in", "Bob speaks from in", "Madrid", "Cairo")
UNEVEN = pair("Ann was born in Spain", "Bob was by tower in", ("Ann was", "Bob"))
UNPLACED = replace(RAGGED[0], corrupted_places=())


@pytest.mark.parametrize(
    ("pairs", "positions", "error", "reason"),
    [
        (
            PAIRS,
            "nowhere",
            ml.OptionError,
            r"'nowhere'.*the places of these prompts: 'end', 'name'",
        ),
        ([PAIRS[0], BARE], "name", ml.PromptError, "(?s)1 of 2 prompts.*#1 .*lacks 'name'"),
        (PAIRS, [[1]], ml.OptionError, "1 lists for 2 prompts"),
        (PAIRS, [[1], [2], [3]], ml.OptionError, "3 lists for 2 prompts"),
        (PAIRS, [[1], [99]], ml.PromptError, r"1 of 2 prompts: #1 .*\[99\]"),
        (PAIRS, [[1], []], ml.OptionError, "no position in the list of prompt #1"),
        (PAIRS, ["name", 1], ml.OptionError, "numbers and names"),
        (PAIRS, [1, 1], ml.OptionError, "1 named twice"),
        (PAIRS, np.array([True, False]), ml.OptionError, "truth values"),
        (PAIRS, [0.5], ml.OptionError, "0.5 cannot be used"),
        (PAIRS, 2, ml.OptionError, "positions=2"),
        ([UNEVEN], "name", ml.PromptError, "(?s)#0 .*name: 1 and 2 tokens"),
        ([UNPLACED], "name", ml.PromptError, r"(?s)#0 .*'name' \(8 and 6\)"),
    ],
)
def test_positions_that_no_prompt_has_are_refused(
    pairs: Any, positions: Any, error: type[Exception], reason: str, toy_model: ToyModel
) -> None:
    with pytest.raises(error, match=reason):
        ml.activation_patch(toy_model("gpt2"), pairs, positions=positions)
