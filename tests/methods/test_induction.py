"""Induction scores, attention by lag and copying: planted heads, exact laws, independent routes."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import induction_models as planted
import numpy as np
import pytest
import torch
import toys
from numpy.testing import assert_allclose, assert_array_equal
from transformer_lens.head_detector import (
    compute_head_attention_similarity_score,
    get_duplicate_token_head_detection_pattern,
    get_induction_head_detection_pattern,
    get_previous_token_head_detection_pattern,
)

import mechlab as ml
from mechlab.models import Model
from mechlab.prompts import (
    PromptSet,
    TokenList,
    as_token_ids,
    repeated_tokens,
    single_probe_lists,
    without_repeats,
)

ToyModel = Callable[..., Model]
N = 10
LISTS = repeated_tokens(4, N, pool=planted.words())
FOUR = repeated_tokens(3, 7, copies=4, pool=planted.words())
PROBES = single_probe_lists(4, 20, pool=planted.words(), draw="new", pool_size=30)
UNIFORM = (0, 3)  # in `planted.patterns()`, after previous, duplicate and recency


def rows_of(model: Model, lists: PromptSet[TokenList]) -> list[list[int]]:
    bos = model.tokenizer.bos_token_id
    return [[bos, *one.numbers] for one in as_token_ids(model, list(lists))]


def eager_patterns(family: str, rows: list[list[int]]) -> np.ndarray:
    """Attention of plain transformers, `[prompt, layer, head, query, key]`."""
    with torch.no_grad():
        found = toys.make_hf(family)(torch.tensor(rows), output_attentions=True, use_cache=False)
    return torch.stack(found.attentions, dim=1).double().numpy()


def looped(pattern: np.ndarray, row: list[int]) -> tuple[float, float, float]:
    """Prefix matching, previous and duplicate token of one head, by the words of the definition."""
    prefix, duplicate = [], []
    for query, token in enumerate(row):
        earlier = [p for p in range(query) if row[p] == token]
        if earlier:
            prefix.append(sum(pattern[query, p + 1] for p in earlier))
            duplicate.append(sum(pattern[query, p] for p in earlier))
    previous = [pattern[q, q - 1] for q in range(1, len(row))]
    return float(np.mean(prefix)), float(np.mean(previous)), float(np.mean(duplicate))


# ------------------------------------------------------------------------------------- the scores


def test_planted_heads_score_one_and_uniform_heads_score_by_what_they_see():
    scores = ml.induction_scores(planted.induction(), LISTS)
    seen = np.arange(N + 2, 2 * N + 2)  # keys that the queries of the second copy see
    assert_allclose(scores.prefix_matching[:, 1, 0], 1, atol=1e-6)
    assert_allclose(scores.prefix_matching[:, 1, 1], np.mean(1 / seen), rtol=1e-6)
    assert_allclose(scores.previous_token[:, 0, 0], 1, atol=1e-6)
    found = ml.induction_scores(planted.patterns(), LISTS)
    assert_allclose(found.duplicate_token[:, 0, 1], 1, atol=1e-6)
    assert ml.top_heads(scores.prefix_matching.mean("prompt"), at_least=0.3) == [planted.INDUCTION]


def test_with_four_copies_earlier_occurrences_add_up():
    uniform = ml.induction_scores(planted.patterns(), FOUR).prefix_matching[:, 0, 3]
    expected = [(q // 7) / (q + 2) for q in range(7, 28)]  # occurrences over visible keys
    assert_allclose(uniform, np.mean(expected), rtol=1e-6)
    perfect = ml.induction_scores(planted.induction(), FOUR).prefix_matching[:, 1, 0]
    assert_allclose(perfect, 1, atol=1e-6)


def test_scores_equal_plain_loops_over_the_attention_of_transformers(
    toy_model: ToyModel, attention_family: str
):
    """Also under grouped queries, where heads share keys."""
    model = toy_model(attention_family)
    lists = repeated_tokens(2, 9, copies=3)
    rows = rows_of(model, lists)
    scores = ml.induction_scores(model, lists)
    patterns = eager_patterns(attention_family, rows)
    expected = np.array(
        [[[looped(h, row) for h in layer] for layer in prompt]
         for prompt, row in zip(patterns, rows, strict=True)]
    )  # fmt: skip
    names = ("prefix_matching", "previous_token", "duplicate_token")
    found = np.stack([scores[name].values for name in names], axis=-1)
    assert_allclose(found, expected, atol=1e-5)
    assert scores.sizes["head"] == toys.N_HEADS


def test_scores_agree_with_the_head_detector_of_transformer_lens(toy_model: ToyModel):
    model = toy_model("gpt2")
    (row,) = rows_of(model, repeated_tokens(1, N))
    scores = ml.induction_scores(model, repeated_tokens(1, N))
    tokens = torch.tensor([row])
    patterns = torch.from_numpy(eager_patterns("gpt2", [row]))[0].float()
    detectors = {
        "prefix_matching": (get_induction_head_detection_pattern, N),
        "previous_token": (get_previous_token_head_detection_pattern, 2 * N),
        "duplicate_token": (get_duplicate_token_head_detection_pattern, N),
    }
    for name, (detector, queries) in detectors.items():
        # Theirs is a share of all attention, of which there is 1 per position.
        theirs = [
            [
                compute_head_attention_similarity_score(
                    head, detector(tokens), exclude_bos=False, exclude_current_token=False,
                    error_measure="mul",
                ) for head in layer
            ] for layer in patterns
        ]  # fmt: skip
        ours = scores[name].values[0] * queries / len(row)
        assert_allclose(ours, theirs, atol=2e-5, err_msg=name)


def test_the_edge_is_the_last_token_of_a_copy_and_matters_by_one_part_in_n():
    model = planted.patterns()
    with_edge = ml.induction_scores(model, LISTS).prefix_matching
    without = ml.induction_scores(model, LISTS, edge="exclude").prefix_matching
    last = 1 / (2 * N + 1)
    assert_allclose(without[:, 0, 3], (with_edge[:, 0, 3] * N - last) / (N - 1), rtol=1e-6)
    lag = ml.attention_by_lag(model, LISTS, source="pattern", max_lag=2)
    assert_allclose(without.mean("prompt"), lag.curve.sel(lag=1), atol=1e-7)


def test_scores_do_not_depend_on_batches_names_of_tokens_or_other_prompts(toy_model: ToyModel):
    model = toy_model("llama")
    lists = repeated_tokens(3, N)
    together = ml.induction_scores(model, lists)
    alone = ml.induction_scores(model, lists, max_batch=1)
    assert_allclose(together.prefix_matching, alone.prefix_matching, atol=1e-6)
    one = ml.induction_scores(model, lists[1:2])
    assert_allclose(one.prefix_matching[0], together.prefix_matching[1], atol=1e-6)
    renamed = repeated_tokens(4, N, pool=[*planted.words()][::-1])
    first, second = (ml.induction_scores(planted.induction(), x) for x in (LISTS, renamed))
    assert_allclose(first.prefix_matching, second.prefix_matching, atol=1e-6)


def test_permuted_heads_permute_scores(words_tokenizer):
    order = [2, 0, 3, 1]
    before, after = toys.make_hf("gpt2", n_layers=1), toys.make_hf("gpt2", n_layers=1)
    attention = after.transformer.h[0].attn
    with torch.no_grad():
        for part in (attention.c_attn.weight, attention.c_attn.bias):
            shaped = part.view(*part.shape[:-1], 3, toys.N_HEADS, toys.D_HEAD)
            shaped.copy_(shaped[..., order, :].clone())
        shaped = attention.c_proj.weight.view(toys.N_HEADS, toys.D_HEAD, -1)
        shaped.copy_(shaped[order].clone())
    models = [ml.wrap_model(hf, words_tokenizer, name="permuted") for hf in (before, after)]
    for function in (ml.induction_scores, ml.attention_by_lag, ml.copying_scores):
        prompts = [None] if function is ml.copying_scores else [repeated_tokens(2, N)]
        first, second = (function(model, *prompts) for model in models)
        name = {"induction_scores": "prefix_matching", "copying_scores": "copying"}.get(
            function.__name__, "curve"
        )
        assert_allclose(second[name], first[name].isel(head=order), atol=1e-5)


def test_deterministic_patterns_have_no_standard_error():
    found = ml.induction_scores(planted.induction(), LISTS)
    for name in ("prefix_matching_sem_prompts", "prefix_matching_sem_tokens"):
        assert found[name][1, 0] < 1e-9
    assert found.prefix_matching_sem_tokens[1, 1] > 1e-4  # uniform: 1 / keys differs by token
    seen = 1 / np.arange(N + 2, 2 * N + 2)
    pooled = np.tile(seen, len(LISTS))
    expected = pooled.std(ddof=1) / np.sqrt(len(pooled))
    assert_allclose(found.prefix_matching_sem_tokens[1, 1], expected, rtol=1e-5)


# --------------------------------------------------------------------------------------- the lags


def test_synthetic_patterns_have_the_lag_curves_of_their_definition():
    found = ml.attention_by_lag(
        planted.patterns(), PROBES, source="pattern", baseline="no_repeat"
    ).sel(layer=0)
    lags = found.lag.values
    previous, duplicate, recency, uniform = (found.sel(head=head) for head in range(4))
    assert_allclose(duplicate.curve, lags == 0, atol=1e-6)
    assert_allclose(uniform.curve, 1 / 22, atol=1e-6)
    assert_allclose(uniform.normalised, 1, atol=1e-5)
    # One probe: everything on the last item, which is the lag 5 of the last probed place alone.
    assert_allclose(previous.curve, np.where(lags == 5, 1 / 10, 0), atol=1e-6)
    assert_allclose(previous.serial_position, np.arange(20) == 19, atol=1e-6)
    assert_allclose(previous.recency, 1, atol=1e-6)
    assert (recency.recency > 0).all() and (recency.primacy < 0).all()
    assert_allclose(recency.corrected, 0, atol=1e-6)
    for name in ("contiguity", "asymmetry"):
        for head in (previous, recency, uniform):
            assert_allclose(head[name], 0, atol=1e-6)
    assert_allclose(found.isel(head=1).asymmetry, 0, atol=1e-6)


def test_a_perfect_induction_head_attends_to_lag_one_alone_and_fits_serial_recall():
    found = ml.attention_by_lag(planted.induction(), LISTS, source="pattern")
    curve = found.curve.sel(layer=1, head=0)
    assert_allclose(curve, found.lag == 1, atol=1e-6)
    assert_allclose(found.asymmetry.sel(layer=1, head=0), 1, atol=1e-6)
    assert_allclose(found.contiguity.sel(layer=1, head=0), 0.5, atol=1e-6)  # lags 1 and 2
    fit = ml.fit_cmr(found.curve.sel(layer=[1], head=[0]))
    assert fit.distance.item() < 0.01 and fit.peak_lag.item() == 1
    assert fit.attrs["source"] == "pattern"


def test_curves_equal_plain_loops_over_scores_and_patterns(toy_model: ToyModel):
    model = toy_model("llama")
    lists = single_probe_lists(2, 9, probes="concatenated")
    rows = rows_of(model, lists)
    names = {"scores": "attn.hook_attn_scores", "pattern": "attn.hook_pattern"}
    for source, hook in names.items():
        found = ml.attention_by_lag(model, lists, source=source, max_lag=3, far=3)
        cells: dict[int, list[np.ndarray]] = {lag: [] for lag in range(-3, 4)}
        for row in rows:
            with torch.no_grad():
                _, cache = model.bridge.run_with_cache(torch.tensor([row]))
            whole = np.stack(
                [cache[f"blocks.{n}.{hook}"][0].double().numpy() for n in range(model.n_layers)]
            )
            for query in range(10, 19):
                place = row.index(row[query])
                for lag, kept in cells.items():
                    if 1 <= place + lag <= 9:
                        kept.append(whole[:, :, query, place + lag])
        expected = np.stack([np.mean(kept, axis=0) for kept in cells.values()], axis=-1)
        spread = [np.std(k, axis=0, ddof=1) / np.sqrt(len(k)) for k in cells.values()]
        assert_allclose(found.curve, expected, atol=1e-5)
        assert_allclose(found.sem_tokens, np.stack(spread, axis=-1), atol=1e-5)


def test_only_chosen_heads_are_measured_and_they_measure_the_same():
    every = ml.attention_by_lag(planted.induction(), LISTS)
    some = ml.attention_by_lag(planted.induction(), LISTS, heads=["L1H0"])
    assert_array_equal(some.curve[1, 0], every.curve[1, 0])
    assert some.curve.notnull().any("lag").sum() == 1 and some.recency.notnull().sum() == 4


def test_intervals_need_four_independent_lists_and_say_so():
    model = planted.patterns()
    few = ml.attention_by_lag(model, PROBES.select(range(25)), source="pattern")  # three lists
    assert few.recency_low.isnull().all() and "3 independent" in few.attrs["interval_status"]
    enough = ml.attention_by_lag(model, PROBES, source="pattern")
    assert enough.attrs["interval_status"] == "ok"
    assert (enough.recency_low <= enough.recency.mean("prompt") + 1e-9).all()


# ------------------------------------------------------------------------------------ the copying


def circuit(matrix: torch.Tensor) -> Model:
    """A head whose full OV circuit on words is the matrix."""
    return planted.planted({"L0H0": ("previous", "out", matrix)}, n_layers=1)


@pytest.mark.parametrize(
    ("matrix", "score"),
    [
        (2 * torch.eye(planted.N_VOCAB), 1.0),
        (-torch.eye(planted.N_VOCAB), -1.0),
        ("antisymmetric", 0.0),
        ("gaussian", 0.0),
    ],
)
def test_the_eigenvalue_score_of_known_circuits(matrix: Any, score: float):
    draws = torch.randn(
        planted.N_VOCAB, planted.N_VOCAB, generator=torch.Generator().manual_seed(0)
    )
    named = {"antisymmetric": draws - draws.T, "gaussian": draws}
    known = matrix if isinstance(matrix, torch.Tensor) else named[matrix]
    found = ml.copying_scores(circuit(known))
    assert abs(found.copying[0, 0].item() - score) < (0.3 if matrix == "gaussian" else 1e-5)
    assert np.isnan(found.copying[0, 1]) and "zero" in str(found.status[0, 1].item())


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_small_eigenvalues_equal_those_of_the_whole_matrix(toy_model: ToyModel, family: str):
    """Worked out from the weights of transformers; llama has one W_V for two heads."""
    found = ml.copying_scores(toy_model(family)).copying
    hf, d, e = toys.make_hf(family).double(), toys.D_MODEL, toys.D_HEAD
    for layer in (0, toys.N_LAYERS - 1):
        if family == "gpt2":
            block, final = hf.transformer.h[layer], hf.transformer.ln_f
            value = block.attn.c_attn.weight[:, 2 * d :].reshape(d, -1, e)
            output, gain = block.attn.c_proj.weight.reshape(-1, e, d), block.ln_1.weight
            centre = torch.eye(d).double() - 1 / d
        else:
            block, final = hf.model.layers[layer], hf.model.norm
            value = block.self_attn.v_proj.weight.T.reshape(d, -1, e).repeat_interleave(2, 1)
            output = block.self_attn.o_proj.weight.T.reshape(-1, e, d)
            gain, centre = block.input_layernorm.weight, torch.eye(d).double()
        embed = hf.get_input_embeddings().weight
        unembed = centre @ (final.weight[:, None] * hf.get_output_embeddings().weight.T)
        unembed = unembed - unembed.mean(1, keepdim=True)
        for head in range(toys.N_HEADS):
            read = centre @ (gain[:, None] * value[:, head])
            whole = torch.linalg.eigvals(embed @ read @ output[head] @ unembed)
            expected = (whole.sum().real / whole.abs().sum()).item()
            assert abs(found[layer, head].item() - expected) < 1e-4


def test_a_head_that_copies_what_it_attends_to_has_olssons_score_one_and_a_suppressor_zero():
    control = without_repeats(LISTS)
    found = ml.copying_scores(planted.patterns(), control, kind="olsson")
    assert_allclose(found.copying[0, 0], 1, atol=1e-6)
    assert np.isnan(found.copying[0, 3]) and found.status[0, 3].item() != "ok"
    suppressor = ml.copying_scores(circuit(-torch.eye(planted.N_VOCAB)), control, kind="olsson")
    assert_allclose(suppressor.copying[0, 0], 0, atol=1e-6)


def test_the_behavioural_score_is_the_planted_logit():
    found = ml.copying_scores(planted.induction(), LISTS, kind="behavioural")
    expected = 30 * (1 - 1 / planted.N_VOCAB)  # against the mean over the vocabulary
    assert_allclose(found.copying_by_prompt[:, 1, 0], expected, rtol=1e-4)
    assert_allclose(found.copying[0], 0, atol=1e-4)


def test_results_are_kept_in_a_store(tmp_path):
    store = ml.Store(tmp_path)
    first = store.run(ml.attention_by_lag, planted.induction(), LISTS, max_lag=3, far=3)
    again = store.run(ml.attention_by_lag, planted.induction(), LISTS, max_lag=3, far=3)
    assert_array_equal(first.curve, again.curve)
    renamed = replace(LISTS, name="other")
    assert renamed.digest == LISTS.digest


def test_a_method_over_checkpoints_is_the_method_at_each():
    lists = repeated_tokens(2, 20)
    found = ml.over_checkpoints(ml.induction_scores, "echo", lists, checkpoints=[4000, 0])
    assert found.prefix_matching.dims == ("checkpoint", "prompt", "layer", "head")
    assert found.checkpoint.values.tolist() == [0, 4000]
    direct = ml.induction_scores(ml.load_model("echo", checkpoint=4000), lists)
    assert_array_equal(found.prefix_matching.sel(checkpoint=4000), direct.prefix_matching)
    best = found.prefix_matching.mean("prompt").max(["layer", "head"])
    assert best.sel(checkpoint=4000) > 3 * best.sel(checkpoint=0)
