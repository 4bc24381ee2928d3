"""Path patching: what options mean, and what is refused with its reason."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import toys
from oracles import post_norm
from typer.testing import CliRunner

import mechlab as ml
from mechlab.cli import app
from mechlab.engine import EngineWarning
from mechlab.models import Model, wrap_model

PAIR = ml.prompts.PromptPair(
    "Paris is the capital of France w1", "Rome was by tower near Italy w7", "w5", "w9"
)
SHORT = ml.prompts.PromptPair("Oslo is in w5 the river", "Lima was in w6 the tower", "w8", "w2")
Site = ml.Site
ToyModel = Callable[..., Model]


# --- positions ------------------------------------------------------------------------------------


def test_the_logits_read_the_last_position_only(toy_model: ToyModel) -> None:
    model = toy_model("gpt2")
    everywhere, last = (ml.path_patch(model, PAIR, positions=p) for p in ("all", "last"))
    np.testing.assert_allclose(everywhere.effect, last.effect, atol=1e-6)
    assert np.abs(last.effect).max() > 1e-2


def test_positions_per_pair_are_those_of_sites_that_name_them(toy_model: ToyModel) -> None:
    model = toy_model("gpt2")
    receivers = ["all_heads_v"]
    per_pair = ml.path_patch(
        model,
        [PAIR, SHORT],
        senders=["L0H1"],
        receivers=receivers,
        positions=[[3, -1], [5]],
    )
    one, two = (
        ml.path_patch(model, pair, senders=[sender], receivers=receivers)
        for pair, sender in (
            (PAIR, (Site("z", 0, 1, pos=3), Site("z", 0, 1, pos=7))),
            (SHORT, Site("z", 0, 1, pos=5)),
        )
    )
    np.testing.assert_allclose(per_pair.effect[0], one.effect[0], atol=1e-5)
    np.testing.assert_allclose(per_pair.effect[1], two.effect[0], atol=1e-5)
    assert np.nanmax(np.abs(one.effect)) > 1e-3 and np.nanmax(np.abs(two.effect)) > 1e-3


def test_one_list_of_positions_holds_for_every_pair(toy_model: ToyModel) -> None:
    model = toy_model("gpt2")
    options = {"senders": ["L0H1"], "receivers": "all_heads_k"}
    shared = ml.path_patch(model, [PAIR, SHORT], positions=[2, -1], **options)
    each = ml.path_patch(model, [PAIR, SHORT], positions=[[2, 7], [2, 6]], **options)
    np.testing.assert_array_equal(shared.effect, each.effect)


SPELLINGS = [
    (np.array([2, -1]), [2, -1]),
    ((np.int64(2), 3), [2, 3]),
    (range(2, 4), [2, 3]),
    (iter([2, 3]), [2, 3]),
    (np.int64(-1), "last"),
    (np.array([[2, -1], [3, 5]]), [[2, -1], [3, 5]]),
    ([range(2), np.array([3])], [[0, 1], [3]]),
    ("end", "last"),
    (["city", "end"], [[1, -1], [1, 2, -1]]),
    ([["city"], [4]], [[1], [4]]),
]


def test_positions_mean_the_same_however_they_are_spelled(toy_model: ToyModel) -> None:
    model = toy_model("gpt2")
    pairs = [
        ml.prompts.PromptPair(PAIR.clean, PAIR.corrupted, "w5", "w9", places=(("city", 0, 5),)),
        ml.prompts.PromptPair(SHORT.clean, SHORT.corrupted, "w8", "w2", places=(("city", 0, 7),)),
    ]
    options = {"senders": ["L0H1"], "receivers": [Site("v", 1, 0)]}
    for given, plain in SPELLINGS:
        one, other = (
            ml.path_patch(model, pairs, positions=spelled, **options) for spelled in (given, plain)
        )
        np.testing.assert_array_equal(one.effect, other.effect, err_msg=str(plain))
        assert np.abs(one.effect).max() > 1e-4


def test_places_at_other_tokens_of_a_prompt_are_refused_for_all_pairs(toy_model: ToyModel) -> None:
    model = toy_model("gpt2")
    here = {"places": (("a", 0, 5), ("b", 6, 8)), "corrupted_places": (("a", 5, 8),)}
    pairs = [
        ml.prompts.PromptPair(PAIR.clean, PAIR.corrupted, "w5", "w9", **here),
        SHORT,
        ml.prompts.PromptPair(SHORT.clean, SHORT.corrupted, "w8", "w2", **here),
    ]
    refused(model, ml.OptionError, "no prompt has such a place.*'a', 'b', 'end'", pairs=pairs,
            positions=["a", "c"])  # fmt: skip
    refused(
        model, ml.PromptError, "1 of 3 prompts .*\n  #1 .* lacks 'b'", pairs=pairs, positions="b"
    )
    message = refused(model, ml.PromptError, "2 of 2 pairs", pairs=pairs[::2], positions="a")
    assert "a at [1] and [2]" in message and "#1" in message


def test_places_are_named_on_the_command_line_too(
    model_folder: Callable[..., Path], tmp_path: Path
) -> None:
    file = tmp_path / "pairs.json"
    texts = {"clean": PAIR.clean, "corrupted": PAIR.corrupted}
    file.write_text(json.dumps([{**texts, "answer": "w5", "wrong_answer": "w9"}]))
    words = ["paths", "--model", str(model_folder("gpt2", "words")), "--file", str(file)]
    words += ["--cache", str(tmp_path / "store"), "--json", "--positions"]
    runs = [CliRunner().invoke(app, [*words, at]) for at in ("end", "-1", "end,nowhere", "2,x")]
    end, last = (json.loads(run.stdout) for run in runs[:2])
    assert end["strongest"] == last["strongest"] and end["options"]["positions"] == ["end"]
    assert [run.exit_code for run in runs[2:]] == [2, 2]
    assert "no prompt has such a place" in runs[2].output and "'2,x'" in runs[3].output


def test_a_sender_and_a_receiver_at_different_positions_have_no_edge(toy_model: ToyModel) -> None:
    senders = [Site("z", 0, 1, pos=4), Site("z", 0, 1, pos=5)]
    receivers = [Site("q", 2, 0, pos=4), Site("q", 2, 0), "logits"]
    result = ml.path_patch(toy_model("gpt2"), PAIR, senders=senders, receivers=receivers)
    missing = np.isnan(result.effect.values[0])
    assert missing.tolist() == [[False, False, True], [True, False, True]]
    assert (result.valid.values == ~missing).all()


def test_an_edge_that_only_some_pairs_have_is_nan_in_the_others(toy_model: ToyModel) -> None:
    # Position 6 is the last of the short prompts and inside the long ones.
    result = ml.path_patch(toy_model("gpt2"), [PAIR, SHORT], senders=[Site("z", 1, 0, pos=6)])
    effect = result.effect.values[:, 0, 0]
    assert np.isnan(effect[0]) and not np.isnan(effect[1]) and bool(result.valid[0, 0])
    expected = effect[1] / float(result.clean_metric[1])
    assert float(result.relative_effect[0, 0]) == pytest.approx(expected, rel=1e-5)


# --- names ----------------------------------------------------------------------------------------


def test_heads_may_be_named_in_three_ways(toy_model: ToyModel) -> None:
    model = toy_model("gpt2")
    effects = [
        ml.path_patch(model, PAIR, senders=sender).effect.values
        for sender in (["L1H2"], [ml.Head(1, 2)], [Site("z", 1, 2)], "L1H2")
    ]
    assert all((effect == effects[0]).all() for effect in effects)


def test_coordinates_say_kind_layer_head_and_position(toy_model: ToyModel) -> None:
    result = ml.path_patch(
        toy_model("gpt2"),
        PAIR,
        senders=["embed", "L0H1", Site("mlp_out", 1, pos=7), ("L0H1", "L1H1"), Site("attn_out", 1)],
        receivers=[Site("q", 2, 3), Site("mlp_out", 2), "logits", Site("z", 2, 0), Site("v", 2)],
    )
    assert result.sender.values.tolist() == [
        "embed",
        "L0H1",
        "MLP 1 at 7",
        "L0H1+L1H1",
        "attention 1",
    ]
    assert result.sender_kind.values.tolist() == ["embed", "head", "mlp", "set", "attn"]
    assert result.sender_layer.values.tolist() == [-1, 0, 1, -1, 1]
    assert result.sender_head.values.tolist() == [-1, 1, -1, 1, -1]
    assert result.sender_pos.values.tolist() == [-1, -1, 7, -1, -1]
    assert result.receiver.values.tolist() == [
        "L2H3.q",
        "MLP 2",
        "logits",
        "L2H0",
        "attention 2.v",
    ]
    assert result.receiver_kind.values.tolist() == ["q", "mlp", "logits", "head", "v"]


def test_a_head_as_receiver_is_its_queries_keys_and_values_together(toy_model: ToyModel) -> None:
    model = toy_model("neox")
    parts = tuple(Site(name, 2, 1) for name in "qkv")
    receivers = [Site("z", 2, 1), parts, Site("pattern", 2, 1), parts[:2]]
    effect = ml.path_patch(model, PAIR, senders=["L0H0"], receivers=receivers).effect.values[0, 0]
    assert effect[0] == pytest.approx(effect[1], abs=1e-6)
    assert effect[2] == pytest.approx(effect[3], abs=1e-6)
    assert abs(effect[0] - effect[2]) > 1e-5


@pytest.mark.parametrize("freeze", ["heads", "heads+mlps"])
def test_a_head_named_twice_in_a_sender_is_patched_once(freeze: str, toy_model: ToyModel) -> None:
    head, whole = Site("z", 1, 2), Site("attn_out", 1)
    senders = [head, (head, Site("z", 1, 2, pos=7)), whole, (whole, head), (head, whole)]
    found = ml.path_patch(toy_model("gpt2"), PAIR, senders=senders, freeze=freeze)
    one, again, every, *spelled = found.effect.values[0, :, 0]
    assert again == pytest.approx(one, abs=1e-6)
    assert spelled == pytest.approx([every, every], abs=1e-6)
    assert abs(one) > 1e-2 and abs(every - one) > 1e-2


def test_sweeps_cover_every_head_under_grouped_queries(toy_model: ToyModel) -> None:
    model = toy_model("llama")
    receivers = ["all_heads_q", "all_kv_heads_k", "all_kv_heads_v", "all_mlps", "logits"]
    result = ml.path_patch(model, PAIR, senders="all", receivers=receivers)
    assert result.sizes == {"prompt": 1, "sender": 1 + 12 + 3, "receiver": 12 + 6 + 6 + 3 + 1}
    assert "shared by 2 query heads" in result.attrs["kv_heads"]


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_receivers_set_together_do_not_depend_on_how_positions_are_spelled(
    family: str, toy_model: ToyModel
) -> None:
    """Only token 2 differs, so patching it is patching everywhere, also for the later receiver."""
    model = toy_model(family)
    pair = ml.prompts.PromptPair("w3 w4 w5 w9 w10 w11", "w3 w6 w5 w9 w10 w11", "w5", "w9")
    clean, corrupted = model.tokenize([pair.clean, pair.corrupted]).tokens
    at = np.flatnonzero(np.asarray(clean) != np.asarray(corrupted)).tolist()
    assert len(at) == 1
    kv_head = (model.n_kv_heads or 1) - 1
    value, mlp = Site("v", 1, kv_head), Site("mlp_out", 2)
    options = {"freeze": "heads+mlps", "receivers": [(value, mlp), value, mlp]}
    everywhere, there, named = (
        ml.path_patch(model, pair, senders=[sender], positions=positions, **options).effect.values
        for sender, positions in (
            ("embed", "all"),
            ("embed", at),
            (Site("embed", pos=at[0]), "all"),
        )
    )
    np.testing.assert_allclose(there, everywhere, atol=1e-6)
    np.testing.assert_allclose(named, everywhere, atol=1e-6)
    joint, alone, _ = np.abs(everywhere[0, 0])  # the MLP itself is read by nothing at that token
    assert joint > 1e-3 and abs(alone - joint) > 1e-3


# --- refusals -------------------------------------------------------------------------------------


def refused(model: Model, error: type[Exception], match: str, **options: object) -> str:
    options = {"pairs": PAIR, **options}
    with pytest.raises(error, match=match) as caught:
        ml.path_patch(model, **options)  # type: ignore[arg-type]
    return str(caught.value)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"freeze": "mlps"}, "freeze='mlps'.*'heads'"),
        ({"direction": "up"}, "direction='up'"),
        ({"ln": "none"}, "ln='none'"),
        ({"max_batch": 0}, "max_batch=0"),
        ({"metric": "beauty"}, "beauty"),
        ({"positions": "first"}, "positions='first'.*'all', 'last'"),
        ({"positions": [[1], [2]]}, "one such list for each of the 1 pairs"),
        ({"positions": [1, 1]}, "1 named twice.*different whole"),
        ({"positions": np.array([[1, 1]])}, "1 named twice in the list of prompt #0"),
        ({"positions": [1, np.True_]}, "truth values"),
        ({"positions": np.array([True, False])}, "truth values .*flatnonzero"),
        ({"positions": np.array([1.0])}, "1.0 cannot be used"),
        ({"positions": ["end", 3]}, "numbers and names"),
        ({"positions": {"end": 1}}, "cannot be used"),
        ({"senders": "some"}, "senders: 'some'.*'all_heads'"),
        ({"senders": [3, "L9", "L0H1"]}, "senders: 3, 'L9' cannot"),
        ({"senders": []}, "senders: nothing"),
        ({"receivers": ["all_heads_q", Site("q", 1, 1)]}, "L1H1.q|named more than once"),
        ({"receivers": [("logits", "L0H1")]}, "receivers: .*cannot be used"),
    ],
)
def test_options_outside_their_choices_are_refused(
    options: dict[str, object], match: str, toy_model: ToyModel
) -> None:
    refused(toy_model("gpt2"), ml.OptionError, match, **options)


def test_nodes_that_do_not_exist_are_all_named(toy_model: ToyModel) -> None:
    message = refused(
        toy_model("gpt2"),
        ml.SiteError,
        "5 problem",
        senders=["L7H0", "L0H4", Site("q", 0, 1)],
        receivers=[Site("mlp_out", 3), Site("resid_pre", 1), "logits"],
    )
    for part in ("layer 7", "head 4 of 'z'", "'q' cannot send", "layer 3", "'resid_pre' cannot"):
        assert part in message


@pytest.mark.parametrize(
    ("sender", "receiver"),
    [
        (Site("z", 1, 0), Site("q", 1, 1)),
        (Site("z", 2, 0), Site("v", 1, 1)),
        (Site("mlp_out", 1), Site("k", 1, 0)),
        (Site("mlp_out", 1), Site("mlp_out", 1)),
        (Site("z", 1, 0, pos=3), "logits"),
    ],
)
def test_one_impossible_edge_asked_for_alone_is_refused(
    sender: ml.Site, receiver: ml.Site | str, toy_model: ToyModel
) -> None:
    message = refused(
        toy_model("gpt2"), ml.SiteError, "no such path", senders=[sender], receivers=[receiver]
    )
    assert "receivers after the sender" in message


def test_the_mlp_of_a_parallel_block_does_not_see_its_attention(toy_model: ToyModel) -> None:
    edge = {"senders": [Site("z", 1, 0)], "receivers": [Site("mlp_out", 1)]}
    message = refused(toy_model("neox"), ml.SiteError, "no such path", **edge)
    assert "read the same residual" in message
    assert not np.isnan(ml.path_patch(toy_model("gpt2"), PAIR, **edge).effect).any()


@pytest.mark.parametrize(
    "receivers",
    ["all_heads_k", [Site("v", 1, 3)], [Site("pattern", 1, 0)], [Site("z", 2, 1)], "all_heads"],
)
def test_keys_and_values_per_query_head_are_refused_where_groups_share_them(
    receivers: object, toy_model: ToyModel
) -> None:
    message = refused(toy_model("llama"), ml.SiteError, "a group shares them", receivers=receivers)
    assert "2 key and value heads for 4 query heads" in message and "all_kv_heads_k" in message


def test_pairs_that_do_not_align_are_all_named(toy_model: ToyModel) -> None:
    uneven = ml.prompts.PromptPair("Paris is the city", "Paris is in the city", "w5", "w9")
    same = [PAIR, uneven, SHORT, uneven]
    message = refused(toy_model("gpt2"), ml.PromptError, "2 of 4 pairs do not align", pairs=same)
    assert "#1" in message and "#3" in message
    assert "'last'" not in message, "no choice of positions aligns them"


def test_answers_with_one_first_token_are_refused(fresh_model: ToyModel) -> None:
    pair = ml.prompts.PromptPair(PAIR.clean, PAIR.corrupted, "w5 w6", "w5 w7")
    with pytest.warns(UserWarning, match="Only the first"):  # said once per model
        refused(fresh_model("gpt2"), ml.PromptError, "share their first token", pairs=pair)


def test_positions_that_a_prompt_lacks_are_refused_with_all_offenders(toy_model: ToyModel) -> None:
    model, pairs = toy_model("gpt2"), [PAIR, SHORT, PAIR, SHORT]
    message = refused(model, ml.PromptError, "2 of 4 prompts", pairs=pairs, positions=[7])
    assert "#1 (7 tokens): [7]" in message and "#3" in message
    twice = refused(model, ml.PromptError, "twice in 2 of 4", pairs=pairs, positions=[6, -1])
    assert "#1 (7 tokens): [6, -1], #3" in twice
    refused(
        model,
        ml.PromptError,
        "names position 7, which 2 of 4",
        pairs=pairs,
        senders=[Site("mlp_out", 0, pos=7)],
    )


def test_a_model_without_attention_is_refused_for_that_reason_first(toy_model: ToyModel) -> None:
    model, reason = toy_model("mamba"), "has no attention heads"
    uneven = ml.prompts.PromptPair("Paris is the city", "Paris is in the city", "w5", "w9")
    wrong: list[dict[str, object]] = [
        {},
        {"freeze": "mlps"},
        {"max_batch": 0},
        {"metric": "beauty"},
        {"senders": "some"},
        {"positions": np.array([True])},
        {"pairs": uneven},
        {"pairs": []},
    ]
    messages = {refused(model, ml.SiteError, reason, **options) for options in wrong}
    (message,) = messages
    assert "site='mixer_out', by='layer'" in message
    instead = ml.activation_patch(model, PAIR, site="mixer_out", by="layer")
    assert np.abs(instead.effect).max() > 0.1


def test_a_refusal_on_account_of_padding_names_the_precision() -> None:
    hf = toys.make_hf("llama", dtype=torch.float64)
    model = wrap_model(hf, toys.make_tokenizer(), name="wide")
    with pytest.warns(EngineWarning):
        refused(model, ml.ModelError, "in float64: left padding.*\n.*or this one in float32")


def test_what_can_be_refused_is_refused_before_the_model_is_run(fresh_model: ToyModel) -> None:
    model = fresh_model("gpt2")
    uneven = ml.prompts.PromptPair("Paris is the city", "Paris is in the city", "w5", "w9")
    wrong: list[dict[str, object]] = [
        {"ln": "none"},
        {"max_batch": 0},
        {"metric": lambda logits, answers: logits[:, 0]},
        {"metric": two_numbers},
        {"senders": ["L7H0"]},
        {"receivers": [Site("q", 9, 0)]},
        {"receivers": ["L0H1"], "senders": ["L1H1"]},
        {"positions": [9]},
        {"positions": "nowhere"},
        {"positions": [7, -1]},
        {"senders": [Site("mlp_out", 0, pos=8)]},
        {"pairs": [PAIR, uneven]},
    ]

    def stop(*args: object) -> None:
        raise AssertionError("a forward pass")

    handle = model.bridge.blocks[0].register_forward_pre_hook(stop)
    with handle:
        for options in wrong:
            options = {"pairs": [PAIR, SHORT], **options}
            with pytest.raises(ml.MechlabError) as direct:
                ml.path_patch(model, **options)  # type: ignore[arg-type]
            pairs = options.pop("pairs")
            if "max_batch" not in options:
                with pytest.raises(ml.MechlabError) as checked:
                    ml.path_patch.method.check(model, ml.prompts.PromptSet(pairs), **options)
                assert str(checked.value) == str(direct.value)
        with pytest.raises(AssertionError, match="a forward pass"):
            ml.path_patch(model, PAIR)


def two_numbers(logits: torch.Tensor, answers: torch.Tensor) -> torch.Tensor:
    return logits[:, :2]


two_numbers.outputs = 2  # type: ignore[attr-defined]


def test_a_head_whose_write_is_normed_again_has_no_direct_edge() -> None:
    model = wrap_model(post_norm.make_hf(), toys.make_tokenizer(), name="post-norm")
    refused(model, ml.SiteError, "no additive write", freeze="heads+mlps", senders=["L0H1"])
