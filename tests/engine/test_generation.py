"""The generation engine's contract: shared weights, masks, stops, memory, and what it refuses."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
import toys
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from mechlab.axes import Head
from mechlab.engine import DecodeRow, HeadMask, continuation_logits, decode
from mechlab.engine.generation import proof
from mechlab.engine.generation.masks import Factors
from mechlab.engine.generation.path import Path, _Chunk
from mechlab.engine.generation.prefixes import Part, parts_of
from mechlab.engine.generation.steps import Steps
from mechlab.engine.generation.twin import Twin
from mechlab.errors import (
    Cancelled,
    MechlabError,
    ModelError,
    OptionError,
    PromptError,
    SiteError,
)
from mechlab.models import Model
from mechlab.models.model import Origin
from mechlab.models.wrapping import wrap
from mechlab.progress import Progress

ToyModel = Callable[..., Model]
PROMPTS = [[4, 5, 6, 7], [4, 5, 9], [11, 12, 13, 14, 15]]
ROWS = [[DecodeRow(0)], [DecodeRow(1)], [DecodeRow(2)]]


def scripted(*tokens: int) -> Any:
    """Return a `choose` that gives every row the same tokens, step by step."""
    return lambda logits, step, rows: torch.full((len(rows),), tokens[step])


def logits_of(model: Model) -> Tensor:
    return next(continuation_logits(model, PROMPTS[:1], [[8, 9]], [None]))


# --- the twin -------------------------------------------------------------------------------------


def test_the_model_is_bitwise_as_found(attention_family: str, fresh_model: ToyModel) -> None:
    model = fresh_model(attention_family)
    before = copy.deepcopy((model.hf.config.to_dict(), model.hf.state_dict()))
    names = [name for name, _ in model.hf.named_modules()]
    buffers = {name: buffer.clone() for name, buffer in model.hf.named_buffers()}
    mask = HeadMask((Head(1, 2),), phase="all")
    list(decode(model, PROMPTS, [[DecodeRow(0), DecodeRow(0, mask)]], max_new_tokens=3))
    assert model.hf.config.to_dict() == before[0]
    assert model.hf.config._attn_implementation == "eager"
    assert [name for name, _ in model.hf.named_modules()] == names
    now = model.hf.state_dict()
    assert list(now) == list(before[1])
    assert all(torch.equal(now[name], value) for name, value in before[1].items())
    assert all(torch.equal(buffers[name], b) for name, b in model.hf.named_buffers())
    assert not any(parameter.requires_grad for parameter in model.hf.parameters())


def test_edits_in_place_are_seen_and_no_weight_is_copied(
    attention_family: str, fresh_model: ToyModel
) -> None:
    model = fresh_model(attention_family)
    first = logits_of(model)
    twin = proof.proven_twin(model)
    ours = {p.data_ptr() for p in twin.module.parameters()}
    assert ours <= {p.data_ptr() for p in model.hf.parameters()}
    weight = max(model.bridge.blocks[1].mlp.parameters(), key=Tensor.numel)
    kept = weight.clone()
    with torch.no_grad():
        weight.mul_(1.5)
        changed = logits_of(model)
        plain = model.bridge(torch.tensor([[*PROMPTS[0], 8, 9]]), use_cache=False)[0, 3:-1]
        weight.copy_(kept)
    torch.testing.assert_close(changed, plain, atol=1e-4, rtol=1e-5)
    assert (changed - first).abs().max() > 1e-3
    assert torch.equal(logits_of(model), first)


def test_weights_changed_between_two_results_are_not_mixed_with_old_keys(
    fresh_model: ToyModel,
) -> None:
    model = fresh_model("llama")
    prompts = [[4, 5, 6, 7, 8, 9], [4, 5, 6, 7, 8, 10]]
    both = continuation_logits(model, prompts, [[1], [1]], [None, None])
    next(both)
    with torch.no_grad():
        model.bridge.blocks[0].mlp.out.weight.mul_(2)
    alone = next(continuation_logits(model, prompts[1:], [[1]], [None]))
    torch.testing.assert_close(next(both), alone)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_other_precisions_are_proven_too(
    attention_family: str, dtype: torch.dtype, fresh_model: ToyModel
) -> None:
    model = fresh_model(attention_family, dtype=dtype)
    (_, (row,)) = next(decode(model, PROMPTS[:1], ROWS[:1], max_new_tokens=2, attention=True))
    assert row.attended is not None and row.attended.shape == (2, 3, 4)


def test_models_that_disagree_or_have_no_attention_are_refused(fresh_model: ToyModel) -> None:
    tokenizer = toys.make_tokenizer()
    origin = Origin("processed", "memory", weights="processed")
    folded = wrap(toys.make_hf("gpt2"), tokenizer, origin, prepend_bos=None)
    with pytest.raises(ModelError, match="differ from the bridge's"):
        logits_of(folded)
    with pytest.raises(ModelError, match="no attention"):
        logits_of(fresh_model("mamba"))


def test_attention_that_is_not_the_bridges_is_refused(
    fresh_model: ToyModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = _Chunk.attend
    monkeypatch.setattr(
        _Chunk, "attend", lambda self, layer, q, *rest: right(self, layer, 1.01 * q, *rest)
    )
    with pytest.raises(ModelError, match="logits of chunks differ"):
        logits_of(fresh_model("llama"))


def test_steps_whose_heads_are_swapped_are_refused(
    fresh_model: ToyModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = Steps._read
    monkeypatch.setattr(Steps, "_read", lambda self, layer, w: read(self, layer, w.flip(1)))
    with pytest.raises(ModelError, match="not the bridge's"):
        logits_of(fresh_model("llama"))


# --- masks ----------------------------------------------------------------------------------------


def random_attention(width: int) -> tuple[Tensor, Tensor, Tensor]:
    draw = torch.Generator().manual_seed(0)
    shapes = [(1, 4, width, 8), (1, 2, width, 8), (1, 2, width, 8)]
    return tuple(torch.randn(shape, generator=draw) for shape in shapes)  # type: ignore[return-value]


@pytest.mark.parametrize("kind", ["uniform", "zero"])
def test_uniform_is_the_mean_of_visible_values_and_zero_is_nothing(
    kind: Any, toy_model: ToyModel
) -> None:
    model = toy_model("llama")
    query, key, value = random_attention(6)
    mask = HeadMask((Head(0, 1), Head(0, 2)), kind)
    factors = Factors([mask], n_heads=4, device=torch.device("cpu"))
    path = Path(model, proof.proven_twin(model), 6, 6)
    out = [
        _Chunk(path, 0, factors).attend(0, *(x[:, :, :4] for x in (query, key, value)), 0.5),
        _Chunk(path, 4, factors).attend(0, *(x[:, :, 4:5] for x in (query, key, value)), 0.5),
    ]
    steps = Steps([Part(path.keys, path.values, [5], [0], [0])], factors)
    out.append(steps.attend(0, *(x[:, :, 5:] for x in (query, key, value)), 0.5))
    found = torch.cat(out, dim=2)[0]
    means = value[0].cumsum(1) / torch.arange(1, 7)[:, None]
    expected = means if kind == "uniform" else torch.zeros_like(means)
    torch.testing.assert_close(found[1], expected[0])  # heads 0 and 1 read key head 0
    torch.testing.assert_close(found[2], expected[1])
    scores = query[0, [0, 3]] @ key[0].transpose(1, 2) * 0.5
    later = torch.ones(6, 6, dtype=torch.bool).triu(1)
    plain = scores.masked_fill(later, -torch.inf).softmax(-1) @ value[0]
    torch.testing.assert_close(found[[0, 3]], plain, atol=1e-5, rtol=1e-5)


def test_no_masked_head_is_no_mask(toy_model: ToyModel) -> None:
    model = toy_model("gpt2")
    masks = [None, HeadMask(()), HeadMask((), "zero", "all")]
    one, *others = continuation_logits(model, PROMPTS[:1] * 3, [[8, 9]] * 3, masks)
    assert all(torch.equal(one, other) for other in others)


def test_prompts_of_similar_length_share_a_tensor() -> None:
    assert parts_of([1000, 10, 30, 1190, 2000]) == [[1, 2], [0, 3], [4]]


# --- stopping and choosing ------------------------------------------------------------------------


def test_rows_of_a_group_stop_together_and_others_go_on(toy_model: ToyModel) -> None:
    def choose(logits: Tensor, step: int, rows: Any) -> Tensor:
        return torch.tensor([1 if (row, step) in {(1, 1), (3, 3)} else 20 + row for row in rows])

    groups = [[DecodeRow(0), DecodeRow(1)], [DecodeRow(2)], [DecodeRow(1)]]
    found = dict(
        decode(toy_model("gpt2"), PROMPTS, groups, max_new_tokens=5, stop=[1], choose=choose)
    )
    assert [row.tokens for row in found[0]] == [(20,), (21,)]
    assert [row.stopped for row in found[0]] == [True, True]
    assert (found[1][0].tokens, found[1][0].stopped) == ((22,) * 5, False)
    assert (found[2][0].tokens, found[2][0].stopped) == ((23,) * 3, True)


def test_log_probabilities_belong_to_each_rows_own_logits(toy_model: ToyModel) -> None:
    model = toy_model("llama")
    mask = HeadMask((Head(0, 0), Head(1, 1), Head(2, 2)))
    pair = [DecodeRow(0), DecodeRow(0, mask)]
    ((_, rows),) = decode(model, PROMPTS, [pair], max_new_tokens=3, choose=scripted(30, 31, 32))
    expected = continuation_logits(model, PROMPTS[:1] * 2, [[30, 31, 32]] * 2, [None, mask])
    for row, logits in zip(rows, expected, strict=True):
        right = logits.log_softmax(-1)[range(3), [30, 31, 32]]
        assert row.logprob == pytest.approx(right.numpy(), abs=1e-5)
    assert abs(rows[0].logprob - rows[1].logprob).max() > 1e-3


def test_generation_ends_where_the_context_does(toy_model: ToyModel) -> None:
    model = toy_model("gpt2")
    assert model.n_ctx is not None
    prompts = [[4] * (model.n_ctx - 2), [4, 5]]
    found = dict(decode(model, prompts, [[DecodeRow(0)], [DecodeRow(1)]], max_new_tokens=4))
    assert (len(found[0][0].tokens), found[0][0].stopped) == (2, False)
    assert len(found[1][0].tokens) == 4


def test_a_row_that_stops_at_once_has_empty_readings(toy_model: ToyModel) -> None:
    options: dict[str, Any] = {"choose": scripted(1), "stop": {1}, "watch": [[0]] * 3}
    ((_, (row,)),) = decode(
        toy_model("gpt2"), PROMPTS, ROWS[:1], max_new_tokens=4, attention=True, **options
    )
    assert (row.tokens, row.stopped) == ((), True)
    assert row.logprob.shape == (0,)
    assert row.attended is not None and row.attended.shape == (0, 3, 4)
    assert row.mass is not None and row.mass.shape == (0, 3, 4)


# --- memory and interruption ----------------------------------------------------------------------


class _Largest(TorchDispatchMode):
    """Notes tensors with two axes that are both as long as the prompt."""

    def __init__(self, length: int) -> None:
        super().__init__()
        self.length, self.found, self.seen = length, [], 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for tensor in out if isinstance(out, tuple | list) else [out]:
            if isinstance(tensor, Tensor):
                self.seen += 1
                if sum(size >= self.length for size in tensor.shape) > 1:
                    self.found.append((str(func), tuple(tensor.shape)))
        return out


def test_no_tensor_has_queries_by_keys(attention_family: str, toy_model: ToyModel) -> None:
    model = toy_model(attention_family)
    length = 110  # longer than any width of the toys but their vocabulary and MLP
    prompts = [[4 + n % 40 for n in range(length)]] * 2
    prompts[1] = [5, *prompts[1][1:]]
    groups = [[DecodeRow(0), DecodeRow(0, HeadMask((Head(1, 1),), phase="all"))], [DecodeRow(1)]]
    proof.proven_twin(model)
    with _Largest(length - 1) as seen:
        list(decode(model, prompts, groups, max_new_tokens=2, attention=True, chunk=16))
    assert seen.seen > 100
    assert not seen.found
    with _Largest(length - 1) as seen, torch.no_grad():
        model.bridge(torch.tensor(prompts[:1]), use_cache=False)
    assert seen.found, "the bridge builds patterns, so the check can fail"


def test_a_batch_that_does_not_fit_is_halved(
    toy_model: ToyModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = toy_model("llama")
    whole = dict(decode(model, PROMPTS, ROWS, max_new_tokens=3))
    sizes: list[int] = []
    run = Twin.run

    def small(self: Twin, ids: Tensor, *args: Any, **options: Any) -> Tensor:
        if isinstance(args[1], Steps):
            sizes.append(len(ids))
            if len(ids) > 1:
                raise torch.OutOfMemoryError("out of memory")
        return run(self, ids, *args, **options)

    monkeypatch.setattr(Twin, "run", small)
    halved = dict(decode(model, PROMPTS, ROWS, max_new_tokens=3))
    assert sizes[0] == 3 and sizes.count(1) == 9
    assert {g: rows[0].tokens for g, rows in halved.items()} == {
        g: rows[0].tokens for g, rows in whole.items()
    }
    pair = [[DecodeRow(0), DecodeRow(1)]]
    with pytest.raises(MechlabError, match="single group"):
        list(decode(model, PROMPTS, pair, max_new_tokens=3))


def test_progress_counts_groups_and_may_cancel(toy_model: ToyModel) -> None:
    model = toy_model("gpt2")
    seen: list[Progress] = []
    list(decode(model, PROMPTS, ROWS, max_new_tokens=2, at_once=1, progress=seen.append))
    assert [(report.done, report.total) for report in seen] == [(1, 3), (2, 3), (3, 3)]

    def stop(report: Progress) -> None:
        raise Cancelled("enough")

    with pytest.raises(Cancelled):
        list(decode(model, PROMPTS, ROWS, max_new_tokens=2, progress=stop))
    with pytest.raises(Cancelled):
        list(continuation_logits(model, PROMPTS[:1], [[8]], [None], progress=stop))
    assert torch.is_grad_enabled()
    assert proof.proven_twin(model)._slot.reader is None
    assert model.lock.acquire(blocking=False)
    model.lock.release()


def test_the_lock_is_free_and_gradients_are_on_between_results(toy_model: ToyModel) -> None:
    results = decode(toy_model("gpt2"), PROMPTS, ROWS, max_new_tokens=1, at_once=1)
    next(results)
    assert torch.is_grad_enabled()
    results.close()  # type: ignore[attr-defined]
    assert list(decode(toy_model("gpt2"), PROMPTS, [], max_new_tokens=1)) == []
    assert list(continuation_logits(toy_model("gpt2"), [], [], [])) == []


# --- refusals -------------------------------------------------------------------------------------


def test_prompts_that_cannot_run_are_named_together(toy_model: ToyModel) -> None:
    model = toy_model("gpt2")
    prompts = [[4], [], [4] * 128, [4, 999], [4] * 127]
    groups = [[DecodeRow(index)] for index in range(5)]
    with pytest.raises(PromptError) as caught:
        decode(model, prompts, groups, max_new_tokens=2)  # before the first result is asked for
    for text in ("prompt 1: no token", "prompt 2: 128 tokens", "prompt 3: no token ids: [999]"):
        assert text in str(caught.value)
    assert "prompt 0" not in str(caught.value) and "prompt 4" not in str(caught.value)
    with pytest.raises(PromptError, match="continuation 0: no token"):
        continuation_logits(model, [[4]], [[]], [None])


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"max_new_tokens": 0}, "max_new_tokens=0"),
        ({"at_once": 0}, "at_once=0"),
        ({"chunk": 0}, "chunk=0"),
        ({"stop": [1, 400]}, r"\[400\] are no token ids"),
        ({"stop": 1}, "stop=1"),
        ({"watch": [[0]] * 3}, "attention=True"),
        ({"watch": [[0], [7], [0]], "attention": True}, r"prompt 1: \[7\]"),
    ],
)
def test_options_outside_their_range_are_refused(
    options: dict[str, Any], match: str, toy_model: ToyModel
) -> None:
    with pytest.raises(OptionError, match=match):
        decode(toy_model("gpt2"), PROMPTS, ROWS, **({"max_new_tokens": 2} | options))


def test_masks_and_groups_that_do_not_fit_are_refused(toy_model: ToyModel) -> None:
    model = toy_model("llama")

    def run(mask: HeadMask, prompt: int = 0) -> object:
        return decode(model, PROMPTS, [[DecodeRow(prompt, mask)]], max_new_tokens=1)

    with pytest.raises(SiteError, match="L0H4, L9H0"):
        run(HeadMask((Head(0, 4), Head(9, 0))))
    with pytest.raises(OptionError, match="more than once: L0H1"):
        run(HeadMask((Head(0, 1), Head(0, 1))))
    with pytest.raises(OptionError, match="'L0H1'"):
        run(HeadMask(("L0H1",)))  # type: ignore[arg-type]
    with pytest.raises(OptionError, match="mask='even'"):
        HeadMask((), "even")  # type: ignore[arg-type]
    with pytest.raises(OptionError, match="phase='prompt'"):
        HeadMask((), phase="prompt")  # type: ignore[arg-type]
    with pytest.raises(OptionError, match=r"rows of prompts \[3\]"):
        run(HeadMask(()), prompt=3)
    with pytest.raises(OptionError, match=r"groups \[0\] without rows"):
        decode(model, PROMPTS, [[]], max_new_tokens=1)
    with pytest.raises(OptionError, match="1 prompts, 2 continuations"):
        continuation_logits(model, [[4]], [[5], [6]], [None])


def test_a_rotation_that_switches_with_length_ends_the_context_early(
    toy_model: ToyModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = toy_model("llama")
    rope = {"rope_type": "longrope", "original_max_position_embeddings": 16}
    monkeypatch.setattr(model.hf.config, "rope_parameters", rope)
    with pytest.raises(PromptError, match="a context of 16 tokens"):
        decode(model, [[4] * 16], [[DecodeRow(0)]], max_new_tokens=1)


def test_a_prompt_of_one_token_is_continued_among_others(toy_model: ToyModel) -> None:
    """Its shared prefix is empty; memory that nobody wrote must not be read for it."""
    model = toy_model("gpt2")
    prompts = [[5], [7, 8, 9, 10]]
    torch.use_deterministic_algorithms(True)  # fills new memory with NaN
    try:
        together = dict(decode(model, prompts, ROWS[:2], max_new_tokens=3))
        alone = dict(decode(model, prompts[:1], ROWS[:1], max_new_tokens=3))
    finally:
        torch.use_deterministic_algorithms(False)
    assert together[0][0].tokens == alone[0][0].tokens
    assert together[0][0].logprob.tolist() == pytest.approx(alone[0][0].logprob.tolist(), abs=1e-5)
