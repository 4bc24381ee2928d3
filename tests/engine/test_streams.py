"""Streams and receivers: what a change brings along, and that nothing else moves."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from oracles.plain import plain_run
from torch import Tensor

import mechlab as ml
from mechlab.engine import Base, PathPrompt, run_paths
from mechlab.engine.forward import run_bases, tokenize_bases
from mechlab.engine.paths.edges import edge_exists, edges_of
from mechlab.engine.paths.receivers import Live, attention_inputs
from mechlab.engine.paths.streams import Cells, DirectStream, LiveStream, PairRuns, StreamRow
from mechlab.engine.paths.tails import ReadOut
from mechlab.errors import ModelError
from mechlab.hooks import AddNoise, Freeze, Patch, Site
from mechlab.metrics import logit_diff
from mechlab.models import Model

ORIGINAL, NEW = "Paris is the capital of France w1", "Rome was by tower near Italy w7"
LAST = 7
ToyModel = Callable[..., Model]


@torch.no_grad()
def pair_runs(model: Model) -> PairRuns:
    ml.verify(model)
    bases = [Base(ORIGINAL), Base(NEW)]
    sites = ("z", "attn_out", "mlp_out", "q", "k", "v")
    places = [(name, layer) for name in sites for layer in range(model.n_layers)]
    runs = run_bases(
        model,
        bases,
        [0, 1],
        tokenize_bases(model, bases),
        entries=range(model.n_layers + 1),
        places=places,
        keep_cache=True,
    )
    return PairRuns(model, runs, 1)


def changes(stream: DirectStream | LiveStream) -> dict[int, Tensor]:
    with torch.no_grad():
        return {layer: change.clone() for layer, change in stream}


ROWS = [
    StreamRow(0, ((Site("z", 1, 2), (3, LAST)),), 0),
    StreamRow(0, ((Site("embed"), (2,)), (Site("mlp_out", 1), (2, 5))), 1),
    StreamRow(0, ((Site("mlp_out", 0), tuple(range(8))),), 2),
    StreamRow(0, ((Site("attn_out", 0), (LAST,)), (Site("z", 2, 0), (LAST,))), 3),
]


def test_a_live_stream_is_a_run_with_every_head_held(
    attention_family: str, toy_model: ToyModel
) -> None:
    model = toy_model(attention_family)
    cells = Cells(pair_runs(model), ROWS)
    final = changes(LiveStream(cells))[model.n_layers]
    sources = [plain_run(model, text, keep=True) for text in (ORIGINAL, NEW)]
    last = ("resid_post", model.n_layers - 1)
    held = Freeze(tuple(Site("z", layer) for layer in range(model.n_layers)), 0)
    for number, row in enumerate(cells.rows):
        steps = [
            Patch(Site("z" if s.name == "attn_out" else s.name, s.layer, s.head, pos), 1)
            for s, positions in row.writes
            for pos in positions
        ]
        run = plain_run(model, ORIGINAL, [held, *steps], sources, keep=True)
        moved = run.values[last] - sources[0].values[last]
        mine = final[cells.offsets[number] : cells.offsets[number + 1]]
        torch.testing.assert_close(mine, moved[list(row.positions)], atol=2e-5, rtol=0)
        others = [pos for pos in range(8) if pos not in row.positions]
        assert float(moved[others].abs().max() if others else 0) < 2e-5
        assert float(mine.abs().max()) > 1e-2


def test_a_direct_stream_is_the_sum_of_the_writes_so_far(
    attention_family: str, toy_model: ToyModel
) -> None:
    model = toy_model(attention_family)
    pairs = pair_runs(model)
    cells = Cells(pairs, ROWS)
    for layer, change in changes(DirectStream(cells)).items():
        for number, row in enumerate(cells.rows):
            at = range(cells.offsets[number], cells.offsets[number + 1])
            for cell, pos in zip(at, row.positions, strict=True):
                expected = torch.zeros(model.d_model)
                for site, positions in row.writes:
                    if pos in positions and (-1 if site.layer is None else site.layer) < layer:
                        expected += write_of(pairs, site)[pos]
                mine = change[cell] if cell < len(change) else torch.zeros(model.d_model)
                torch.testing.assert_close(mine, expected, atol=1e-5, rtol=0)


@torch.no_grad()
def write_of(pairs: PairRuns, site: Site) -> Tensor:
    """What a node's write changes, through the output projection of the model itself."""
    if site.name in ("embed", "mlp_out"):
        place = ("resid_pre", 0) if site.layer is None else ("mlp_out", site.layer)
        return pairs.change(*place)[0]
    z = pairs.change("z", site.layer)[0]
    if site.head is not None:
        alone = torch.zeros_like(z)
        alone[:, site.head] = z[:, site.head]
        z = alone
    project = pairs.model.bridge.blocks[site.layer].attn.o.original_component
    flat = z.flatten(1)
    return project(flat) - project(torch.zeros_like(flat))


def test_a_change_at_one_position_leaves_earlier_ones_alone(
    attention_family: str, toy_model: ToyModel
) -> None:
    model = toy_model(attention_family)
    cells = Cells(pair_runs(model), [StreamRow(0, ((Site("mlp_out", 0), (4,)),))])
    change = changes(DirectStream(cells))[1]
    for name in ("q", "k", "v"):
        with torch.no_grad():
            _, found = attention_inputs(cells, Live(1, ((name, None),)), change, "recompute")
        moved = (found["z"][0] - cells.pairs.original("z", 1)[0]).abs().amax((1, 2))
        assert float(moved[:4].max()) < 1e-5 and float(moved[4]) > 1e-3
        # A query changes its own position alone, a key or value those from its own on.
        assert (float(moved[5:].max()) < 1e-5) == (name == "q")


def test_inputs_that_are_held_see_nothing(attention_family: str, toy_model: ToyModel) -> None:
    model = toy_model(attention_family)
    cells = Cells(pair_runs(model), [StreamRow(0, ((Site("mlp_out", 0), tuple(range(8))),))])
    change = changes(DirectStream(cells))[1]
    live = Live(1, (("q", (2,)),))
    with torch.no_grad():
        _, found = attention_inputs(cells, live, change, "recompute")
        _, whole = attention_inputs(cells, Live(1, (("q", None),)), change, "recompute")
    moved = (found["z"][0] - cells.pairs.original("z", 1)[0]).abs().amax((0, 2))
    assert [bool(m > 1e-4) for m in moved] == [False, False, True, False]
    torch.testing.assert_close(found["z"][..., 2, :], whole["z"][..., 2, :], atol=1e-6, rtol=0)


def test_with_a_frozen_norm_changes_of_an_input_add_up(
    attention_family: str, toy_model: ToyModel
) -> None:
    model = toy_model(attention_family)
    every = tuple(range(8))
    one, two = (Site("z", 0, 1), every), (Site("mlp_out", 0), every)
    rows = [StreamRow(0, writes, n) for n, writes in enumerate([(one,), (two,), (one, two)])]
    cells = Cells(pair_runs(model), rows)
    change = changes(DirectStream(cells))[1]
    gaps = {}
    for ln in ("frozen", "recompute"):
        with torch.no_grad():
            _, found = attention_inputs(cells, Live(1, (("k", None),)), change, ln, raw=True)
        moved = found["k"] - cells.pairs.original("k", 1)
        gaps[ln] = float((moved[0] + moved[1] - moved[2]).abs().max())
    assert gaps["frozen"] < 1e-5 < 1e-2 < gaps["recompute"]


# --- which edges exist ----------------------------------------------------------------------------


def test_the_order_of_nodes_is_that_of_the_forward_pass() -> None:
    def names(sender: Site, *, parallel: bool) -> list[str]:
        receivers = [Site(n, layer) for layer in (0, 1, 2) for n in ("q", "mlp_out")]
        found = [r for r in receivers if edge_exists(sender, r, parallel=parallel)]
        return [f"{r.name}{r.layer}" for r in found]

    after = ["q2", "mlp_out2"]
    assert names(Site("z", 1), parallel=False) == ["mlp_out1", *after]
    assert names(Site("z", 1), parallel=True) == after
    assert names(Site("mlp_out", 1), parallel=False) == after
    assert len(names(Site("embed"), parallel=True)) == 6
    assert edge_exists(Site("mlp_out", 9), None, parallel=False)


def test_edges_need_a_position_in_common() -> None:
    senders = [(Site("z", 0, 0),), (Site("z", 0, 0, pos=1),)]
    receivers = [(Site("q", 1, 0, pos=1),), (Site("q", 1, 0),), ()]
    edges = edges_of(senders, receivers, [None, (2,), (1, 4)], [5, 5, 5], parallel=False)
    assert edges[0].tolist() == [[True, True, True], [True, True, False]]
    assert edges[1].tolist() == [[False, True, False], [True, True, False]]
    assert edges[2].tolist() == [[True, True, True], [True, True, False]]


# --- running --------------------------------------------------------------------------------------


def test_the_other_run_may_be_the_same_prompt_with_noise(toy_model: ToyModel) -> None:
    model = toy_model("gpt2")
    noise = (AddNoise(Site("embed"), 2, 4, 1.0, seed=0, draw=0),)
    senders = [(Site("z", 0, head),) for head in range(4)]
    everything = [(Site("embed"), *(Site(n, i) for i in range(3) for n in ("z", "mlp_out")))]
    noised = PathPrompt(ORIGINAL, ORIGINAL, (12, 40), changes=noise)
    found = run_paths(model, [noised], senders + everything, [()], freeze="heads")
    logits = plain_run(model, ORIGINAL, noise).logits[-1]
    expected = float(logits[12] - logits[40])
    assert found.new[0] == pytest.approx(expected, abs=1e-5)
    assert found.patched[0, -1, 0] == pytest.approx(expected, abs=1e-5)
    # Before the noise nothing differs, so that sender and receiver there need no run.
    early = run_paths(
        model, [noised], [(Site("z", 0, 1, pos=1),)], [(Site("v", 1, 0),)], freeze="heads"
    )
    assert early.patched[0, 0, 0] == early.original[0] and early.rows == 0
    assert found.rows == 0, "logits need no last pass"


def test_a_difference_of_logits_reads_two_columns_only_where_that_is_the_same(
    toy_model: ToyModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = toy_model("gpt2")
    with torch.no_grad():
        pairs = pair_runs(model)
        fast = ReadOut(pairs, logit_diff, [(12, 40)], "recompute")
        assert fast._columns is not None
        whole = ReadOut(pairs, logit_diff, [(12, 40)], "recompute")
        whole._columns = None
        rows = pairs.runs.kept.values["resid_pre", model.n_layers].flatten(0, 1)
        which = torch.zeros(len(rows), dtype=torch.long)
        np.testing.assert_allclose(fast.rows(rows, which), whole.rows(rows, which), atol=1e-5)
        head = model.hf.lm_head

        def capped(hidden: Tensor) -> Tensor:
            return 2 * torch.tanh(type(head).forward(head, hidden) / 2)

        monkeypatch.setitem(head.__dict__, "forward", capped)
        assert ReadOut(pairs, logit_diff, [(12, 40)], "recompute")._columns is None


def test_models_that_cannot_be_resumed_inside_a_block_are_refused(fresh_model: ToyModel) -> None:
    model = fresh_model("gpt2")
    model.checks = replace(ml.verify(model), resumes_inside=False)
    with pytest.raises(ModelError, match="with their attention held"):
        ml.path_patch(model, ml.prompts.PromptPair(ORIGINAL, NEW, "w5", "w9"))
