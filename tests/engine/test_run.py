"""What the engine promises besides the numbers: nothing left behind, nothing lost, clear refusals.

Agreement with the plain loop, nnsight and TransformerLens stands in `tests/oracles`.
"""

from collections.abc import Callable

import numpy as np
import pytest
import torch
import toys

from mechlab import engine
from mechlab.engine import Base, Row, batching
from mechlab.errors import Cancelled, MechlabError, OptionError, PromptError, SiteError
from mechlab.hooks import AddNoise, Block, Patch, Scale, Site
from mechlab.models import Model, wrap_model
from mechlab.progress import Progress

ToyModel = Callable[..., Model]
TEXTS = ("w1 w2 w3 w4 w5 w6", "w7 w8 w9 w4 w5 w6", "w1 w2 w3")


def bases(texts: tuple[str, ...] = TEXTS) -> list[Base]:
    return [Base(text) for text in texts]


def sweep(model: Model) -> list[Row]:
    """Every layer and position of the first text, patched from the second."""
    length = len(model.token_strings(TEXTS[0]))
    return [
        Row(0, (Patch(Site("resid_post", layer, pos=pos), 1),))
        for layer in range(model.n_layers)
        for pos in range(length)
    ]


def measure(model: Model, rows: list[Row], **options: object) -> engine.Readings:
    return engine.run(model, bases(), rows, answers=[(5,)] * 3, **options)  # type: ignore[arg-type]


def hooks_on(model: Model) -> int:
    bridge_hooks = sum(len(point.fwd_hooks) for point in model.bridge.hook_dict.values())
    torch_hooks = sum(
        len(block._forward_pre_hooks) + len(block._forward_hooks) for block in model.bridge.blocks
    )
    overrides = sum("forward" in block.__dict__ for block in model.bridge.blocks)
    return bridge_hooks + torch_hooks + overrides


def state(model: Model) -> list[torch.Tensor]:
    return [parameter.clone() for parameter in model.hf.parameters()]


class Trouble(RuntimeError):
    """Something that goes wrong in the middle of a run."""


@pytest.mark.parametrize("how", ["success", "exception", "interrupt", "cancelled"])
def test_the_model_is_bitwise_as_found(how: str, family: str, fresh_model: ToyModel) -> None:
    model = fresh_model(family)
    engine.verify(model)
    before, hooks, logits = state(model), hooks_on(model), measure(model, sweep(model)).bases
    stops = {"exception": Trouble, "interrupt": KeyboardInterrupt, "cancelled": Cancelled}

    def progress(report: Progress) -> None:
        if how != "success":
            raise stops[how]("stop")

    if how == "success":
        measure(model, sweep(model), progress=progress)
    else:
        with pytest.raises(stops[how]):
            measure(model, sweep(model), progress=progress, max_batch=3)
    assert all(torch.equal(a, b) for a, b in zip(before, state(model), strict=True))
    assert hooks_on(model) == hooks
    assert np.array_equal(measure(model, sweep(model)).bases, logits)


def test_nothing_stays_when_a_block_itself_fails(
    family: str, fresh_model: ToyModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = fresh_model(family)
    engine.verify(model)
    hooks = hooks_on(model)
    from mechlab.engine import wavefront

    def fail(*args: object) -> None:
        raise Trouble("inside the forward pass")

    with monkeypatch.context() as patched:
        patched.setattr(wavefront.LiveBlock, "_fit_tensor", fail)
        with pytest.raises(Trouble):
            measure(model, sweep(model))
    assert hooks_on(model) == hooks


def test_batch_size_changes_nothing_but_rounding(family: str, toy_model: ToyModel) -> None:
    model = toy_model(family)
    whole = measure(model, sweep(model)).rows
    for max_batch in (1, 3, 7):
        assert measure(model, sweep(model), max_batch=max_batch).rows == pytest.approx(
            whole, abs=1e-6
        )


def test_order_of_rows_changes_nothing_but_rounding(toy_model: ToyModel) -> None:
    model = toy_model("llama")
    rows = sweep(model)
    order = np.random.default_rng(0).permutation(len(rows))
    shuffled = measure(model, [rows[i] for i in order]).rows
    assert shuffled == pytest.approx(measure(model, rows).rows[order], abs=1e-6)


def test_rows_whose_reading_is_known_are_not_run(toy_model: ToyModel) -> None:
    """Equal rows once; patches into the shared prefix and into the unread last layer never."""
    model = toy_model("gpt2")
    texts = ("w1 w2 w3 w4", "w1 w2 w9 w4")
    shared = 3 if model.prepend_bos else 2  # tokens before the first difference
    last = len(model.token_strings(texts[0])) - 1
    useful = Row(0, (Patch(Site("resid_post", 0, pos=shared), 1),))
    idle = [
        Row(0, (Patch(Site("resid_post", 1, pos=0), 1),)),
        Row(0, (Patch(Site("resid_post", model.n_layers - 1, pos=last - 1), 1),)),
        Row(0, ()),
    ]
    readings = engine.run(
        model, bases(texts), [useful, *idle, useful], answers=[(5,)] * 2, read="log_probability"
    )
    assert readings.executed == 1
    assert (readings.rows[1:4] == readings.bases[0]).all()
    assert readings.rows[4] == readings.rows[0] != readings.bases[0]


def test_a_no_op_patch_that_matters_is_run(toy_model: ToyModel) -> None:
    """Holding a state at its own value is idle, unless an earlier step of the row changes it."""
    model = toy_model("llama")
    last = len(model.token_strings(TEXTS[0])) - 1
    noise = Scale(Site("resid_pre", 0, pos=last), 0.5)
    hold = Patch(Site("resid_post", model.n_layers - 1, pos=last), 0)
    readings = measure(model, [Row(0, (hold,)), Row(0, (noise,)), Row(0, (noise, hold))])
    assert readings.rows[0] == readings.bases[0]
    assert readings.rows[1] != pytest.approx(readings.bases[0], rel=1e-3)
    assert readings.rows[2] == pytest.approx(readings.bases[0], rel=1e-4)


def test_progress_counts_up_to_all_rows_and_shows_what_is_known(toy_model: ToyModel) -> None:
    model = toy_model("neox")
    seen: list[Progress] = []
    readings = measure(model, sweep(model), max_batch=5, progress=seen.append)
    assert [p.done for p in seen] == sorted({p.done for p in seen})
    assert seen[-1].done == seen[-1].total == readings.executed
    assert len(seen) == 3  # 13 rows in batches of at most 5


class Memory:
    """A journal in a dictionary."""

    def __init__(self) -> None:
        self.kept: dict[str, np.ndarray] = {}
        self.read = 0

    def get(self, key: str) -> np.ndarray | None:
        self.read += key in self.kept
        return self.kept.get(key)

    def put(self, key: str, values: np.ndarray) -> None:
        self.kept[key] = values


def test_a_journal_resumes_bitwise_without_repeating_batches(toy_model: ToyModel) -> None:
    model = toy_model("gpt2")
    rows = sweep(model)
    whole = measure(model, rows, max_batch=5).rows
    journal = Memory()

    def stop_early(report: Progress) -> None:
        if report.done > report.total // 2:
            raise Cancelled("enough")

    with pytest.raises(Cancelled):
        measure(model, rows, max_batch=5, journal=journal, progress=stop_early)
    kept = len(journal.kept)
    resumed = measure(model, rows, max_batch=5, journal=journal)
    assert kept > 1 and journal.read == kept
    assert np.array_equal(resumed.rows, whole)


def test_running_out_of_memory_halves_the_batch(
    toy_model: ToyModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mechlab.engine import sweep as module

    model = toy_model("llama")
    rows = sweep(model)
    whole = measure(model, rows).rows
    honest, sizes = module.wave_residuals, []

    def small_memory(model: Model, runs: object, part: tuple[object, ...], first: int) -> object:
        sizes.append(len(part))
        if len(part) > 4:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return honest(model, runs, part, first)  # type: ignore[arg-type]

    monkeypatch.setattr(module, "wave_residuals", small_memory)
    assert measure(model, rows).rows == pytest.approx(whole, abs=1e-6)
    assert max(sizes) > 4 >= min(sizes)


def test_a_single_row_that_does_not_fit_is_refused_clearly() -> None:
    def never(batch: batching.Batch) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    row = engine.rows.PlannedRow(0, 0, (), (), 0, 0)
    with pytest.raises(MechlabError, match="single row"):
        batching.with_back_off(never, batching.Batch((row,), 0), lambda a, b: None)


def test_other_runtime_errors_are_not_taken_for_memory() -> None:
    def wrong(batch: batching.Batch) -> None:
        raise RuntimeError("shapes do not match")

    with pytest.raises(RuntimeError, match="shapes"):
        batching.with_back_off(wrong, batching.Batch((), 0), lambda a, b: None)


def test_noise_depends_on_seed_prompt_and_draw_alone(toy_model: ToyModel) -> None:
    model = toy_model("gpt2")

    def noised(prompt: str, seed: int, draw: int) -> Base:
        return Base(prompt, (AddNoise(Site("embed"), 1, 2, 1.0, seed, draw),))

    here = [noised(TEXTS[0], 0, 0), noised(TEXTS[0], 0, 1), noised(TEXTS[0], 1, 0)]
    alone = engine.run(model, here[:1], [], answers=[(5,)]).bases
    among = engine.run(model, [noised(TEXTS[1], 0, 0), *here[::-1]], [], answers=[(5,)] * 4).bases
    assert among[3] == pytest.approx(alone[0], abs=1e-6)
    assert len({round(float(value), 6) for value in among}) == 4


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([Row(0, (Patch(Site("resid_post", 99, pos=1), 1),))], "layers go from 0 to"),
        ([Row(0, (Patch(Site("mixer_out", 0, pos=1), 1),))], "does not exist on"),
        ([Row(0, (Patch(Site("z", 0, head=99, pos=1), 1),))], "heads go from 0 to"),
        ([Row(0, (Patch(Site("k", 0, head=3, pos=1), 1),))], "kv_heads go from 0 to 1"),
        ([Row(0, (Patch(Site("resid_post", 0, pos=77), 1),))], "position 77 lies outside"),
        ([Row(0, (Block(0, (3,), (1,), heads=(0, 99)),))], "head 99 of a Block: heads go from"),
        ([Row(0, (Patch(Site("resid_post", 0), 2),))], "lengths must agree"),
        ([Row(2, (Patch(Site("resid_post", 0, pos=1), 0, source_pos=50),))], "position 50 lies"),
    ],
)
def test_rows_that_make_no_sense_are_refused_before_any_forward_pass(
    rows: list[Row], message: str, toy_model: ToyModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = toy_model("llama")
    engine.verify(model)
    monkeypatch.setattr(type(model.bridge), "forward", lambda *a, **k: pytest.fail("ran"))
    with pytest.raises(SiteError, match=message):
        measure(model, rows)


def test_all_problems_of_a_call_are_named_at_once(toy_model: ToyModel) -> None:
    rows = [Row(0, (Patch(Site("resid_post", layer, pos=1), 1),)) for layer in (50, 60)]
    with pytest.raises(SiteError, match=r"2 problem\(s\)(.|\n)*layer 50(.|\n)*layer 60"):
        measure(toy_model("gpt2"), rows)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"read": "perplexity"}, "unknown metric"),
        ({"mode": "fast"}, "unknown mode"),
        ({"answers": None}, "needs `answers`"),
        ({"answers": [(1,)]}, "1 answers for 3 base runs"),
        ({"read": "logit_diff"}, "needs an answer and a wrong answer"),
    ],
)
def test_options_out_of_range_are_refused(
    options: dict[str, object], message: str, toy_model: ToyModel
) -> None:
    call = {"answers": [(5,)] * 3, **options}
    with pytest.raises(OptionError, match=message):
        engine.run(toy_model("gpt2"), bases(), [], **call)  # type: ignore[arg-type]


def test_sources_out_of_range_and_bases_that_read_others_are_refused(toy_model: ToyModel) -> None:
    model, patch = toy_model("gpt2"), Patch(Site("resid_post", 0, pos=1), 7)
    with pytest.raises(OptionError, match="reads run 7"):
        measure(model, [Row(0, (patch,))])
    with pytest.raises(OptionError, match="A base run stands alone"):
        engine.run(model, [Base(TEXTS[0], (patch,))], [], answers=[(5,)])
    with pytest.raises(OptionError, match="names base 9"):
        measure(model, [Row(9, ())])


def test_prompts_that_cannot_be_tokenised_are_refused(toy_model: ToyModel) -> None:
    with pytest.raises(PromptError):
        engine.run(toy_model("gpt2"), [Base("")], [], answers=[(5,)])


def test_a_recurrent_model_cannot_skip_positions(toy_model: ToyModel) -> None:
    with pytest.raises(OptionError, match="recurrent"):
        measure(toy_model("mamba"), [], suffix=True)


def test_logits_can_be_read_whole_and_elsewhere(toy_model: ToyModel) -> None:
    model = toy_model("llama")
    with torch.no_grad():
        tokens = model.tokenize(TEXTS[0]).tokens
        whole = model.bridge(tokens)[0]
    read = engine.run(model, [Base(TEXTS[0], (), "", pos) for pos in (1, 3)], [], read="logits")
    assert read.bases == pytest.approx(whole[[1, 3]].numpy(), abs=1e-5)
    assert read.bases.shape == (2, model.d_vocab)


def test_kl_divergence_is_zero_for_no_change_and_positive_for_one(toy_model: ToyModel) -> None:
    model = toy_model("gpt2")
    last = len(model.token_strings(TEXTS[0])) - 1
    rows = [Row(0, (Scale(Site("resid_post", 0, pos=last), factor),)) for factor in (1.0, 0.2)]
    readings = engine.run(model, bases(), rows, read="kl_divergence")
    assert readings.rows[0] == pytest.approx(0.0, abs=1e-6)
    assert readings.rows[1] > 1e-3


def test_bfloat16_agrees_with_plain_runs_to_its_own_precision(attention_family: str) -> None:
    """8 bits of mantissa: log-probabilities agree to a few hundredths, far below the effects."""
    model = wrap_model(
        toys.make_hf(attention_family, dtype=torch.bfloat16), toys.make_tokenizer(), name="half"
    )
    rows = sweep(model)
    fast = measure(model, rows, read="log_probability")
    slow = measure(model, rows, read="log_probability", mode="plain")
    assert fast.mode == "wavefront"
    assert np.abs(fast.rows - slow.rows).max() < 0.1
    assert np.ptp(slow.rows) > 0.5
