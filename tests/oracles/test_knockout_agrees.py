"""Attention knockout against attention written out anew inside the Hugging Face model.

Nothing of mechlab or TransformerLens takes part: `eager_attention_forward` of the model's own file
is exchanged for one that computes scores, mask, softmax and sum itself and cuts edges on the way.
"""

import importlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import pytest
import torch
import toys
from torch import Tensor

import mechlab as ml
from mechlab.prompts import Fact

ToyModel = Callable[..., ml.Model]
FACTS = [
    Fact("The Eiffel Tower is located in the city of", "Eiffel Tower", "Paris"),
    Fact("When Ann went to Spain", "Ann", "Cairo"),
    Fact("Paris is the capital of", "Paris", "France"),
]
KEYS = [(2, 3), (2,), (1,)]
FILES = {"gpt2": "gpt2", "neox": "gpt_neox", "llama": "llama"}
Edges = Mapping[int, tuple[Sequence[int] | None, Sequence[int], Sequence[int]]]
"""Layer -> heads (`None` for all), queries, keys."""


def attention(cut: str, edges: Edges) -> Callable[..., tuple[Tensor, Tensor]]:
    """Return plain causal attention with some edges cut."""

    def forward(module: Any, query: Tensor, key: Tensor, value: Tensor, *_: Any, **__: Any) -> Any:
        shared = query.shape[1] // key.shape[1]
        key, value = (part.repeat_interleave(shared, dim=1) for part in (key, value))
        scores = query @ key.transpose(2, 3) / query.shape[-1] ** 0.5
        width = scores.shape[-1]
        future = torch.ones(width, width, dtype=torch.bool).triu(1)
        gone = torch.zeros(scores.shape[1:], dtype=torch.bool)
        if module.layer_idx in edges:
            heads, queries, keys = edges[module.layer_idx]
            for head in range(len(gone)) if heads is None else heads:
                for at in queries:
                    gone[head, at, list(keys)] = True
        hidden = future | gone if cut == "mask" else future
        weights = scores.masked_fill(hidden, -torch.inf).softmax(-1)
        weights = weights.masked_fill(gone, 0) if cut == "zero" else weights
        return (weights @ value).transpose(1, 2), weights

    return forward


@pytest.mark.parametrize("cut", ["mask", "zero"])
@pytest.mark.parametrize("heads", [None, ["L0H1", "L1H0", "L1H3"]])
def test_a_knockout_is_attention_without_its_edges(
    cut: Literal["mask", "zero"],
    heads: list[str] | None,
    attention_family: str,
    toy_model: ToyModel,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Prompts of three lengths in one call; layers 0 and 1 are the window around layer 1."""
    model = toy_model(attention_family)
    ours = ml.knockout(model, FACTS, keys="subject", cut=cut, window=2, layers=[1], heads=heads)
    hf = toys.make_hf(attention_family)
    name = FILES[attention_family]
    file = importlib.import_module(f"transformers.models.{name}.modeling_{name}")
    word = model.tokenizer.convert_tokens_to_ids
    of_layer: dict[int, Any] = {0: None, 1: None} if heads is None else {0: (1,), 1: (0, 3)}
    for index, (fact, keys) in enumerate(zip(FACTS, KEYS, strict=True)):
        ids = torch.tensor([model.tokenizer(fact.prompt)["input_ids"]])
        last = ids.shape[1] - 1
        cuts: Edges = {layer: (some, (last,), keys) for layer, some in of_layer.items()}
        for edges, found in ((cuts, ours.patched[index, 0, 0]), ({}, ours.unpatched[index])):
            monkeypatch.setattr(file, "eager_attention_forward", attention(cut, edges))
            with torch.no_grad():
                logits = hf(ids).logits[0, -1]
            expected = float(logits.softmax(-1)[word(fact.target)])
            assert float(found) == pytest.approx(expected, rel=1e-4, abs=1e-7)
    assert float(abs(ours.relative_change).min()) > 1e-3
