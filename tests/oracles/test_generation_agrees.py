"""The generation engine against full attention: untouched eager modules, `generate`, and hooks.

Prompts are ragged and share beginnings, so that one batch holds copies of different length and one
path serves several prompts.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import torch
import toys
from torch import Tensor

from mechlab.axes import Head
from mechlab.engine import Decoded, DecodeRow, HeadMask, continuation_logits, decode
from mechlab.models import Model

ToyModel = Callable[..., Model]
DRAW = np.random.default_rng(7)
LONG = DRAW.integers(4, toys.N_VOCAB, 40).tolist()
PROMPTS = [LONG, [*LONG[:25], *LONG[3:9]], LONG[:1], [*LONG[:31], 5], [9, *LONG[:12]]]
CONTINUATIONS = [[5, 6, 7, 8], [300], [9, 9, 9], [11, 12], [44, 45, 46, 47, 48]]
ROWS = [[DecodeRow(index)] for index in range(len(PROMPTS))]
STEPS = 6
HEADS = (Head(0, 1), Head(1, 3), Head(2, 0))


def decoded(model: Model, groups: Sequence[Sequence[DecodeRow]], **options: Any) -> list[Decoded]:
    """Return the rows of all groups, one after the other."""
    options = {"max_new_tokens": STEPS, "attention": True} | options
    found = dict(decode(model, PROMPTS, groups, **options))
    return [row for group in range(len(groups)) for row in found[group]]


def alike(ours: Decoded, theirs: Decoded) -> None:
    assert ours.tokens == theirs.tokens
    assert ours.logprob == pytest.approx(theirs.logprob, abs=1e-5)
    np.testing.assert_array_equal(ours.attended, theirs.attended)


@contextmanager
def masked(model: Model, mask: HeadMask, first: int) -> Iterator[None]:
    """Write what a mask means onto the bridge's patterns and head outputs, from a query on."""

    def even(pattern: Tensor, hook: Any, head: int) -> Tensor:
        out, length = pattern.clone(), pattern.shape[-1]
        visible = torch.ones(length, length, dtype=out.dtype).tril()
        out[:, head, first:] = (visible / visible.sum(-1, keepdim=True))[first:]
        return out

    def silent(z: Tensor, hook: Any, head: int) -> Tensor:
        out = z.clone()
        out[:, first:, head] = 0
        return out

    name, write = ("pattern", even) if mask.mask == "uniform" else ("z", silent)
    hooks = [
        (f"blocks.{at.layer}.attn.hook_{name}", lambda x, hook, h=at.head: write(x, hook, h))
        for at in mask.heads
    ]
    with model.bridge.hooks(fwd_hooks=hooks):
        yield


def bridge_logits(model: Model, prompt: list[int], after: list[int], mask: HeadMask) -> Tensor:
    first = 0 if mask.phase == "all" else len(prompt) - 1
    with torch.no_grad(), masked(model, mask, first):
        logits = model.bridge(torch.tensor([[*prompt, *after]]), use_cache=False)
    return logits[0, len(prompt) - 1 : -1]


def test_tokens_and_attention_are_those_of_full_eager_passes(
    attention_family: str, toy_model: ToyModel
) -> None:
    plain = toys.make_hf(attention_family)
    watch = [sorted({0, len(prompt) // 2, len(prompt) - 1}) for prompt in PROMPTS]
    model = toy_model(attention_family)
    for prompt, places, ours in zip(PROMPTS, watch, decoded(model, ROWS, watch=watch), strict=True):
        with torch.no_grad():
            full = plain(torch.tensor([[*prompt, *ours.tokens]]), output_attentions=True)
        producing = slice(len(prompt) - 1, -1)
        logprobs = full.logits[0, producing].log_softmax(-1)
        patterns = torch.stack([layer[0, :, producing] for layer in full.attentions])
        patterns = patterns.permute(2, 0, 1, 3)  # step, layer, head, key
        assert logprobs.argmax(-1).tolist() == list(ours.tokens)
        assert ours.logprob == pytest.approx(logprobs.amax(-1).numpy(), abs=1e-5)
        np.testing.assert_array_equal(ours.attended, patterns.argmax(-1))
        np.testing.assert_allclose(ours.mass, patterns[..., places].sum(-1), atol=1e-5)


def test_tokens_are_those_of_generate(attention_family: str, toy_model: ToyModel) -> None:
    plain = toys.make_hf(attention_family)
    free = decoded(toy_model(attention_family), ROWS)
    stop = free[0].tokens[3]  # so that the rows end at different steps
    for prompt, ours in zip(
        PROMPTS, decoded(toy_model(attention_family), ROWS, stop=[stop]), strict=True
    ):
        theirs = plain.generate(
            torch.tensor([prompt]),
            attention_mask=torch.ones(1, len(prompt)),
            max_new_tokens=STEPS,
            do_sample=False,
            eos_token_id=stop,
            pad_token_id=2,
        )[0, len(prompt) :].tolist()
        assert ours.stopped == (theirs[-1] == stop)
        assert list(ours.tokens) == (theirs[:-1] if ours.stopped else theirs)


def test_chunks_batches_and_shared_beginnings_change_nothing(
    attention_family: str, toy_model: ToyModel
) -> None:
    model = toy_model(attention_family)
    together = decoded(model, ROWS)
    ways: list[dict[str, Any]] = [{"chunk": 3}, {"at_once": 2, "chunk": 16}]
    for options in ways:
        for one, other in zip(together, decoded(model, ROWS, **options), strict=True):
            alike(one, other)
    for index, row in enumerate(together):  # nothing is shared between calls
        alike(decoded(model, [[DecodeRow(index)]])[0], row)


@pytest.mark.parametrize("kind", ["uniform", "zero"])
def test_logits_under_a_mask_are_those_of_a_full_pass_with_hooks(
    attention_family: str, kind: Any, toy_model: ToyModel
) -> None:
    model = toy_model(attention_family)
    phases: list[Any] = ["decode", "all", "decode", "all", "all"]
    masks = [HeadMask(HEADS[: 1 + i % 3], kind, phase) for i, phase in enumerate(phases)]
    found = continuation_logits(model, PROMPTS, CONTINUATIONS, masks, chunk=4)
    for prompt, after, mask, ours in zip(PROMPTS, CONTINUATIONS, masks, found, strict=True):
        theirs = bridge_logits(model, prompt, after, mask)
        torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-5)
        unmasked = bridge_logits(model, prompt, after, HeadMask(()))
        if len(prompt) > 1:
            assert (ours - unmasked).abs().max() > 1e-3, "the mask must matter"


def test_rows_masked_differently_in_one_batch_are_what_they_are_alone(
    attention_family: str, toy_model: ToyModel
) -> None:
    model = toy_model(attention_family)
    masks = [
        None,
        HeadMask(HEADS),
        HeadMask(HEADS, "zero"),
        HeadMask(HEADS, phase="all"),
        HeadMask(HEADS[1:], "zero", "all"),
    ]
    rows = [DecodeRow(prompt, mask) for prompt in (0, 1, 3) for mask in masks]
    together = decoded(model, [rows], stop=())
    for row, ours in zip(rows, together, strict=True):
        if row.prompt == 1:
            alike(decoded(model, [[row]])[0], ours)
        again = continuation_logits(model, [PROMPTS[row.prompt]], [ours.tokens], [row.mask])
        assert next(again).argmax(-1).tolist() == list(ours.tokens)
    assert len({row.tokens for row in together[:5]}) > 1, "masks must matter"


@pytest.mark.parametrize(("n_layers", "same"), [(1, True), (2, False)])
def test_masking_the_prompt_reaches_decoding_through_a_second_layer_only(
    attention_family: str, n_layers: int, same: bool, fresh_model: ToyModel
) -> None:
    """In the first layer keys and values depend on no head."""
    model = fresh_model(attention_family, n_layers=n_layers)
    heads = (Head(0, 0), Head(0, 2))
    masks = [HeadMask(heads, phase="decode"), HeadMask(heads, phase="all")]
    alone, whole = continuation_logits(model, PROMPTS[:1] * 2, CONTINUATIONS[:1] * 2, masks)
    assert bool((alone - whole).abs().max() < 1e-5) == same
    first, second = decoded(model, [[DecodeRow(0, masks[0])], [DecodeRow(0, masks[1])]])
    assert bool(np.abs(first.logprob[:1] - second.logprob[:1]).max() < 1e-5) == same


def test_masking_one_head_leaves_others_of_its_group_alone(toy_model: ToyModel) -> None:
    model = toy_model("llama")  # heads 0 and 1 share keys and values
    free, alone = decoded(
        model, [[DecodeRow(0)], [DecodeRow(0, HeadMask((Head(0, 1),)))]], max_new_tokens=1
    )
    assert free.attended is not None and alone.attended is not None
    others = [0, 2, 3]
    np.testing.assert_array_equal(free.attended[:, 0, others], alone.attended[:, 0, others])
    assert free.attended[0, 0, 1] > 0 == alone.attended[0, 0, 1]  # even attention: the first of all
