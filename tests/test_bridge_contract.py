"""What mechlab assumes of TransformerLens and transformers, one assumption per test.

Every test is about the installed packages, not about mechlab: a failing line after a version bump
tells which assumption broke. Some tests pin down behaviour that mechlab works around (dead hooks,
uncloned caches, padded rows); when one of those fails, the workaround can go. That its patching
equals mechlab's engine is shown in `oracles/test_transformer_lens_agrees.py`.
"""

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
import toys
import transformers
from toys import ATTENTION_FAMILIES, D_HEAD, D_MLP, D_MODEL, N_HEADS, N_KV_HEADS, N_LAYERS, N_VOCAB
from transformer_lens import patching, tools, utilities
from transformer_lens.model_bridge import TransformerBridge
from transformers import AutoTokenizer, DynamicCache

N_BATCH, N_POS = 2, 9
LAST = N_LAYERS - 1
PADDING = [(0, 0), (1, 3)]
"""(row, number of pads in front) of the ragged batch."""


def boot(family: str, **options: Any) -> TransformerBridge:
    """A bridge of the test's own, free to change."""
    return TransformerBridge.boot_transformers(
        f"local-{family}",
        hf_model=toys.make_hf(family, **options),
        tokenizer=toys.make_tokenizer(),
        device="cpu",
        dtype=options.get("dtype", torch.float32),
    ).eval()


@cache
def shared(family: str) -> TransformerBridge:
    """One bridge per family for tests that leave it as they found it."""
    return boot(family)


def random_tokens(seed: int = 1, n_batch: int = N_BATCH, n_pos: int = N_POS) -> torch.Tensor:
    """Tokens [batch, pos] that begin with `<bos>`."""
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.randint(4, N_VOCAB, (n_batch, n_pos), generator=generator)
    tokens[:, 0] = 0
    return tokens


TOKENS, OTHER_TOKENS = random_tokens(1), random_tokens(2)


def gap(left: torch.Tensor, right: torch.Tensor) -> float:
    """Largest absolute difference."""
    return float((left.double() - right.double()).abs().max())


@pytest.fixture(autouse=True)
def no_gradients() -> Iterator[None]:
    with torch.no_grad():
        yield


def n_kv_heads(family: str) -> int:
    return N_KV_HEADS if family == "llama" else N_HEADS


# 1. Logits, double boot, deepcopy ---------------------------------------------------------------


def test_bridge_logits_equal_hugging_face_eager(family: str) -> None:
    assert gap(shared(family)(TOKENS), toys.make_hf(family)(TOKENS).logits) <= 1e-5


def test_bridge_logits_equal_hugging_face_eager_in_float64(family: str) -> None:
    bridge, plain = boot(family, dtype=torch.float64), toys.make_hf(family, dtype=torch.float64)
    logits = bridge(TOKENS)
    # Recurrent models of transformers cast their logits to float32 whatever the weights are.
    assert logits.dtype is (torch.float32 if family in RECURRENT else torch.float64)
    # Not 1e-12: transformers keeps single steps (softmax, norms, the scan) in float32.
    assert gap(logits, plain(TOKENS).logits) <= 1e-6


def test_the_hugging_face_object_works_on_after_bridging(family: str) -> None:
    hf = toys.make_hf(family)
    before = hf(TOKENS).logits
    for name in ("first", "second"):  # booting twice on one object works too
        bridge = TransformerBridge.boot_transformers(
            name, hf_model=hf, tokenizer=toys.make_tokenizer(), device="cpu"
        ).eval()
        assert gap(bridge(TOKENS), before) <= 1e-5
    assert bridge.original_model is hf
    assert gap(hf(TOKENS).logits, before) <= 1e-5


def test_a_deepcopy_is_independent(family: str) -> None:
    bridge = boot(family)
    before = bridge(TOKENS)
    twin = copy.deepcopy(bridge)
    assert gap(twin(TOKENS), before) == 0.0
    for parameter in twin.parameters():
        parameter.mul_(1.5)
    assert gap(twin(TOKENS), before) > 1e-2
    assert gap(bridge(TOKENS), before) == 0.0


# 2. Tokenizer -----------------------------------------------------------------------------------


@pytest.mark.parametrize("source", ["memory", "folder", "model folder"])
def test_the_working_ways_to_hand_over_a_tokenizer(source: str, tmp_path: Path) -> None:
    toys.save_folder("llama", tmp_path)
    if source == "model folder":
        bridge = TransformerBridge.boot_transformers(str(tmp_path), device="cpu").eval()
        # At least the weights are there: float32 is the default whatever the folder says.
        assert gap(bridge(TOKENS), toys.make_hf("llama")(TOKENS).logits) == 0.0
    else:
        tokenizer = (
            toys.make_tokenizer() if source == "memory" else AutoTokenizer.from_pretrained(tmp_path)
        )
        bridge = TransformerBridge.boot_transformers(
            "local", hf_model=toys.make_hf("llama"), tokenizer=tokenizer, device="cpu"
        )
    ids = bridge.to_tokens("Paris is in France", prepend_bos=True)[0].tolist()
    assert ids == toys.make_tokenizer()("Paris is in France").input_ids


def test_a_tokenizer_without_name_or_bos_flag_is_refused_with_a_key_error() -> None:
    bare = toys.make_tokenizer()
    anonymous = transformers.PreTrainedTokenizerFast(
        tokenizer_object=bare.backend_tokenizer, bos_token="<bos>", pad_token="<pad>"
    )
    with pytest.raises(KeyError, match="name_or_path"):
        TransformerBridge.boot_transformers(
            "local", hf_model=toys.make_hf("gpt2"), tokenizer=anonymous, device="cpu"
        )


def test_explicit_prepend_bos_is_obeyed_and_the_default_differs_by_family(family: str) -> None:
    bridge = shared(family)
    with_bos = bridge.to_tokens("Paris is in France", prepend_bos=True)[0].tolist()
    without = bridge.to_tokens("Paris is in France", prepend_bos=False)[0].tolist()
    assert with_bos[0] == 0
    assert with_bos[1:] == without
    assert 0 not in without
    by_default = bridge.to_tokens("Paris is in France")[0].tolist()
    assert by_default == (without if family == "neox" else with_bos)


# 3. Sites ---------------------------------------------------------------------------------------

RESIDUAL = lambda family: (N_BATCH, N_POS, D_MODEL)  # noqa: E731 - three shapes read best as a table
QUERY = lambda family: (N_BATCH, N_POS, N_HEADS, D_HEAD)  # noqa: E731
KEY = lambda family: (N_BATCH, N_POS, n_kv_heads(family), D_HEAD)  # noqa: E731
SQUARE = lambda family: (N_BATCH, N_HEADS, N_POS, N_POS)  # noqa: E731
HIDDEN = lambda family: (N_BATCH, N_POS, D_MLP)  # noqa: E731

ATTENTION = set(ATTENTION_FAMILIES)
RECURRENT = set(toys.RECURRENT_FAMILIES)
SITES: dict[str, tuple[Callable[[str], tuple[int, ...]], set[str]]] = {
    "hook_in": (RESIDUAL, ATTENTION | RECURRENT),
    "hook_resid_pre": (RESIDUAL, ATTENTION | RECURRENT),
    "hook_resid_mid": (RESIDUAL, {"gpt2", "llama"}),
    "hook_out": (RESIDUAL, ATTENTION | RECURRENT),
    "hook_resid_post": (RESIDUAL, ATTENTION | RECURRENT),
    "hook_attn_out": (RESIDUAL, ATTENTION),
    "hook_mlp_out": (RESIDUAL, ATTENTION),
    "attn.hook_q": (QUERY, ATTENTION),
    "attn.hook_k": (KEY, ATTENTION),
    "attn.hook_v": (KEY, ATTENTION),
    "attn.hook_rot_q": (QUERY, {"llama"}),
    "attn.hook_rot_k": (KEY, {"llama"}),
    "attn.hook_attn_scores": (SQUARE, ATTENTION),
    "attn.hook_pattern": (SQUARE, ATTENTION),
    "attn.hook_z": (QUERY, ATTENTION),
    "mlp.hook_pre": (HIDDEN, ATTENTION),
    "mlp.hook_post": (HIDDEN, ATTENTION),
    "hook_mixer_in": (RESIDUAL, RECURRENT),
    "hook_mixer_out": (RESIDUAL, RECURRENT),
}
"""Bridge name under `blocks.<layer>.`: its shape, and the families on which it fires."""
DEAD = {
    "neox": {"attn.hook_rot_q", "attn.hook_rot_k"},
    "mamba": {
        "mixer.hook_conv",
        "mixer.hook_dt_proj",
        "mixer.hook_ssm_dt",
        "mixer.hook_ssm_state",
        "mixer.hook_ssm_write",
    },
    "mamba2": {"mixer.hook_conv", "mixer.hook_ssm_state", "mixer.hook_ssm_write"},
}
"""Registered but never firing: hooking one is a silent no-op."""
GLOBAL_SITES = {"hook_embed": "all", "hook_pos_embed": "gpt2", "ln_final.hook_scale": "all"}


def layer_sites(family: str) -> dict[str, tuple[int, ...]]:
    return {name: shape(family) for name, (shape, where) in SITES.items() if family in where}


def fired(bridge: TransformerBridge, names: Sequence[str]) -> dict[str, tuple[int, ...]]:
    """Shapes of those of `names` that fire in one run."""
    shapes: dict[str, tuple[int, ...]] = {}

    def note(activation: torch.Tensor, hook: Any, name: str) -> None:
        shapes[name] = tuple(activation.shape)

    hooks = [(name, lambda act, hook, name=name: note(act, hook, name)) for name in names]
    bridge.run_with_hooks(TOKENS, fwd_hooks=hooks)
    return shapes


def test_site_table(family: str) -> None:
    bridge = shared(family)
    expected = {
        f"blocks.{layer}.{name}": shape
        for layer in range(N_LAYERS)
        for name, shape in layer_sites(family).items()
    }
    assert fired(bridge, list(expected)) == expected
    absent = set(SITES) - set(layer_sites(family)) - DEAD.get(family, set())
    assert not {f"blocks.0.{name}" for name in absent} & set(bridge.hook_dict)


@pytest.mark.parametrize("family", list(DEAD))
def test_dead_hooks_are_still_registered_and_still_dead(family: str) -> None:
    names = [f"blocks.{layer}.{name}" for layer in range(N_LAYERS) for name in DEAD[family]]
    assert set(names) <= set(shared(family).hook_dict)
    assert fired(shared(family), names) == {}, "news: a dead hook has come alive"


def test_embedding_and_final_sites_fire(family: str) -> None:
    bridge = shared(family)
    names = [name for name, where in GLOBAL_SITES.items() if where in ("all", family)]
    names += ["ln_final.hook_in", "ln_final.hook_normalized", "ln_final.hook_out", "hook_unembed"]
    shapes = fired(bridge, names)
    assert set(shapes) == set(names)
    assert shapes["hook_embed"] == (N_BATCH, N_POS, D_MODEL)
    assert shapes["hook_unembed"] == (N_BATCH, N_POS, N_VOCAB)
    # On rotary models the name is registered too, for the rotary table, and never fires.
    assert ("hook_pos_embed" in bridge.hook_dict) == (family in ATTENTION)
    if family in ATTENTION - {"gpt2"}:
        assert fired(bridge, ["hook_pos_embed"]) == {}


# 4. Identities ----------------------------------------------------------------------------------


def cached(bridge: TransformerBridge, tokens: torch.Tensor, names: Sequence[str]) -> Any:
    wanted = set(names)
    return bridge.run_with_cache(tokens, names_filter=lambda name: name in wanted)[1]


def test_residual_identities(family: str) -> None:
    parts = ["hook_in", "hook_out", "hook_attn_out", "hook_mlp_out", "hook_mixer_out"]
    names = [f"blocks.{layer}.{part}" for layer in range(N_LAYERS) for part in parts]
    names += [f"blocks.{layer}.hook_resid_mid" for layer in range(N_LAYERS)]
    store = cached(shared(family), TOKENS, names)
    for layer in range(N_LAYERS):
        at = {part: store[f"blocks.{layer}.{part}"] for part in parts if _has(store, layer, part)}
        written = sum(at[part] for part in parts[2:] if part in at)
        assert gap(at["hook_in"] + written, at["hook_out"]) <= 2e-6
        if _has(store, layer, "hook_resid_mid"):
            middle = store[f"blocks.{layer}.hook_resid_mid"]
            assert gap(at["hook_in"] + at["hook_attn_out"], middle) <= 2e-6
            assert gap(middle + at["hook_mlp_out"], at["hook_out"]) <= 2e-6


def _has(store: Any, layer: int, part: str) -> bool:
    return f"blocks.{layer}.{part}" in store


def test_pattern_rows_sum_to_one_and_never_look_ahead(attention_family: str) -> None:
    name = "blocks.1.attn.hook_pattern"
    pattern = cached(shared(attention_family), TOKENS, [name])[name]
    assert gap(pattern.sum(-1), torch.ones(N_BATCH, N_HEADS, N_POS)) <= 1e-6
    assert float(pattern.triu(1).abs().max()) == 0.0
    # The toys are not degenerate: the last query does not spread its attention evenly.
    assert float(pattern[:, :, -1].max()) > 2 / N_POS


def test_head_results_and_the_output_bias_sum_to_attn_out(attention_family: str) -> None:
    bridge = boot(attention_family)
    bridge.set_use_attn_result(True)
    names = ["blocks.1.attn.hook_result", "blocks.1.hook_attn_out"]
    store = cached(bridge, TOKENS, names)
    assert store[names[0]].shape == (N_BATCH, N_POS, N_HEADS, D_MODEL)
    total = store[names[0]].sum(2)
    if attention_family == "llama":
        with pytest.raises(AttributeError, match="no such parameter"):
            _ = bridge.b_O  # a model without biases has none, not zeros
    else:
        total = total + bridge.b_O[1]
        assert float(bridge.b_O.abs().max()) > 0.1
    assert gap(total, store[names[1]]) <= 1e-5


# 5. Names that cannot be hooked -----------------------------------------------------------------


def test_unknown_and_gated_names_raise(family: str) -> None:
    bridge = shared(family)
    nothing = lambda act, hook: act  # noqa: E731
    with pytest.raises(KeyError, match="hook_no_such"):
        bridge.run_with_hooks(TOKENS, fwd_hooks=[("blocks.0.hook_no_such", nothing)])
    if family in ATTENTION:
        for name in ("attn.hook_result", "hook_q_input", "hook_mlp_in"):
            with pytest.raises(ValueError, match="set_use"):
                bridge.run_with_hooks(TOKENS, fwd_hooks=[(f"blocks.0.{name}", nothing)])


# 6. Patches -------------------------------------------------------------------------------------


def test_a_no_op_patch_is_exact_and_a_real_patch_moves_the_logits(family: str) -> None:
    bridge, own, other = shared(family), {}, {}
    names = [f"blocks.1.{name}" for name in layer_sites(family)]
    plain = bridge(TOKENS)
    own, other = (cached(bridge, tokens, names) for tokens in (TOKENS, OTHER_TOKENS))
    for name in names:
        for source, changes in ((own, False), (other, True)):
            patched = bridge.run_with_hooks(
                TOKENS, fwd_hooks=[(name, lambda act, hook, new=source[name]: new)]
            )
            assert gap(patched, plain) > 1e-2 if changes else gap(patched, plain) == 0.0, name


def test_a_returned_residual_replaces_the_stream_except_in_the_middle_of_a_block(
    family: str,
) -> None:
    """`hook_resid_mid` is the input of the second norm: only an edit in place reaches the stream.

    Taking the whole residual from another run must give that run's logits.
    """
    bridge, theirs = shared(family), shared(family)(OTHER_TOKENS)
    for name in ("hook_in", "hook_out", "hook_resid_mid"):
        if name == "hook_resid_mid" and name not in layer_sites(family):
            continue  # NeoX blocks are parallel, recurrent blocks have one writer
        name = f"blocks.1.{name}"
        other = cached(bridge, OTHER_TOKENS, [name])[name]
        returned, in_place = (
            bridge.run_with_hooks(TOKENS, fwd_hooks=[(name, edit)])
            for edit in (lambda act, hook, o=other: o, lambda act, hook, o=other: _fill(act, o))
        )
        assert gap(in_place, theirs) == 0.0
        if name.endswith("resid_mid"):
            assert gap(returned, theirs) > 1e-2, "news: the workaround in hooks/attach.py can go"
        else:
            assert gap(returned, theirs) == 0.0


def _fill(activation: torch.Tensor, value: torch.Tensor) -> None:
    activation.copy_(value)


# 7. In place, order, caches ---------------------------------------------------------------------


def test_in_place_and_returned_edits_agree(attention_family: str) -> None:
    bridge = shared(attention_family)
    for name in ("attn.hook_z", "attn.hook_q", "attn.hook_v", "hook_mlp_out"):
        in_place = bridge.run_with_hooks(TOKENS, fwd_hooks=[(f"blocks.1.{name}", _double_in_place)])
        returned = bridge.run_with_hooks(
            TOKENS, fwd_hooks=[(f"blocks.1.{name}", lambda act, hook: act * 2)]
        )
        assert gap(in_place, returned) == 0.0
        assert gap(in_place, bridge(TOKENS)) > 1e-2


def _double_in_place(activation: torch.Tensor, hook: Any) -> None:
    activation.mul_(2)


def test_cached_tensors_are_not_cloned(family: str) -> None:
    """The trap that makes mechlab return new tensors: a later in-place hook rewrites the cache."""
    bridge, name = shared(family), "blocks.1.hook_in"
    clean = cached(bridge, TOKENS, [name])[name].clone()
    store, caching, _ = bridge.get_caching_hooks(names_filter=lambda n: n == name)
    bridge.run_with_hooks(TOKENS, fwd_hooks=[*caching, (name, _double_in_place)])
    assert gap(store[name], clean * 2) == 0.0
    assert not store[name].requires_grad


def test_a_caching_call_inside_hooks_sees_the_modified_activation(family: str) -> None:
    bridge, name = shared(family), "blocks.1.hook_in"
    clean = cached(bridge, TOKENS, [name])[name]
    with bridge.hooks(fwd_hooks=[(name, lambda act, hook: act * 2)]):
        assert gap(cached(bridge, TOKENS, [name])[name], clean * 2) == 0.0


# 8. Left padding --------------------------------------------------------------------------------


def ragged() -> tuple[torch.Tensor, torch.Tensor]:
    """Tokens and mask [batch, pos] of one full row and one with three pads in front."""
    tokens, mask = TOKENS.clone(), torch.ones_like(TOKENS)
    tokens[1, 3:] = TOKENS[1, :-3]
    tokens[1, :3], mask[1, :3] = 2, 0
    return tokens, mask


def test_left_padding_with_a_mask_equals_unpadded(family: str) -> None:
    bridge, (tokens, mask) = shared(family), ragged()
    name = f"blocks.{LAST}.hook_in"
    padded, store = bridge.run_with_cache(
        tokens, attention_mask=mask, names_filter=lambda n: n == name
    )
    for row, pads in PADDING:
        alone, own = bridge.run_with_cache(
            tokens[row : row + 1, pads:], names_filter=lambda n: n == name
        )
        assert gap(padded[row, pads:], alone[0]) <= 1e-5
        assert gap(store[name][row, pads:], own[name][0]) <= 1e-5
    blind = bridge(tokens, attention_mask=torch.ones_like(mask))
    assert gap(blind[1, 3:], padded[1, 3:]) > 1e-2  # the mask is what makes the difference


# 9. stop_at_layer and start_at_layer ------------------------------------------------------------


@contextmanager
def counted_blocks(bridge: TransformerBridge) -> Iterator[list[int]]:
    """Note the layer of every block that runs."""
    ran: list[int] = []
    handles = [
        block.original_component.register_forward_hook(lambda *_, layer=layer: ran.append(layer))
        for layer, block in enumerate(bridge.blocks)
    ]
    try:
        yield ran
    finally:
        for handle in handles:
            handle.remove()


def test_stop_at_layer_runs_only_the_blocks_below(family: str) -> None:
    bridge, name = shared(family), "blocks.2.hook_in"
    expected = cached(bridge, TOKENS, [name])[name]
    with counted_blocks(bridge) as ran:
        residual = bridge.run_with_hooks(TOKENS, stop_at_layer=2)
    assert ran == [0, 1]
    assert gap(residual, expected) == 0.0


def test_start_at_layer_runs_every_block_and_is_wrong_on_recurrent_models(family: str) -> None:
    """Why mechlab resumes by itself."""
    bridge, name = shared(family), "blocks.2.hook_in"
    residual = cached(bridge, TOKENS, [name])[name]
    with counted_blocks(bridge) as ran:
        resumed = bridge.run_with_hooks(residual, start_at_layer=2)
    assert ran == [0, 1, 2]
    error = gap(resumed, bridge(TOKENS))
    assert error > 0.1 if family in RECURRENT else error <= 1e-5


# 10. Skipping blocks ----------------------------------------------------------------------------


@contextmanager
def skipped_below(bridge: TransformerBridge, start: int) -> Iterator[None]:
    """Blocks 0..start-1 return their input; nothing else is touched."""
    blocks = list(bridge.blocks)[:start]
    for block in blocks:
        block.__dict__["forward"] = lambda hidden, *args, **kwargs: hidden
    try:
        yield
    finally:
        for block in blocks:
            block.__dict__.pop("forward", None)


def test_resuming_behind_skipped_blocks_is_exact_also_padded(family: str) -> None:
    bridge, (tokens, mask) = shared(family), ragged()
    for start in range(1, N_LAYERS):
        name = f"blocks.{start}.hook_in"
        logits, store = bridge.run_with_cache(
            tokens, attention_mask=mask, names_filter=lambda n, name=name: n == name
        )
        with skipped_below(bridge, start), counted_blocks(bridge) as ran:
            resumed = bridge.run_with_hooks(
                tokens,
                attention_mask=mask,
                use_cache=False,
                fwd_hooks=[(name, lambda act, hook, new=store[name]: new)],
            )
        assert ran == list(range(start, N_LAYERS))
        assert gap(resumed, logits) == 0.0


def test_overrides_are_gone_after_an_exception(family: str) -> None:
    bridge = shared(family)
    before = bridge(TOKENS)
    with pytest.raises(RuntimeError, match="on purpose"), skipped_below(bridge, 2):
        assert gap(bridge(TOKENS), before) > 1e-2
        raise RuntimeError("on purpose")
    assert gap(bridge(TOKENS), before) == 0.0


def test_plain_assignment_of_forward_lands_on_the_wrapped_module(family: str) -> None:
    """Why overrides go through `__dict__`: assignment cannot be taken back."""
    bridge = boot(family)
    before, block = bridge(TOKENS), bridge.blocks[1]
    block.forward = lambda hidden, *args, **kwargs: hidden
    assert "forward" not in block.__dict__
    assert "forward" in block.original_component.__dict__
    with pytest.raises(AttributeError):
        del block.forward
    assert gap(bridge(TOKENS), before) > 1e-2


# 11. Driving the blocks -------------------------------------------------------------------------

ARGUMENTS = {
    "gpt2": (3, {"encoder_attention_mask", "use_cache", "position_ids"}),
    "neox": (
        0,
        {"attention_mask", "position_ids", "layer_past", "use_cache", "position_embeddings"},
    ),
    "llama": (
        0,
        {"attention_mask", "position_ids", "past_key_values", "use_cache", "position_embeddings"},
    ),
    "mamba": (0, {"cache_params", "attention_mask"}),
    "mamba2": (0, {"cache_params", "attention_mask"}),
}
"""Number of positional arguments besides the hidden states; keywords handed to a block."""
CACHE_KEYWORD = {"neox": "layer_past", "llama": "past_key_values"}


class Recorded:
    """One run with what entered every block: `residuals[layer]`, `args[layer]`, `kwargs[layer]`."""

    def __init__(self, bridge: TransformerBridge, tokens: torch.Tensor, **options: Any) -> None:
        self.residuals: list[torch.Tensor] = []
        self.args: list[tuple[Any, ...]] = []
        self.kwargs: list[dict[str, Any]] = []
        handles = [
            block.register_forward_pre_hook(self._note, with_kwargs=True) for block in bridge.blocks
        ]
        try:
            self.logits = bridge(tokens, **options)
        finally:
            for handle in handles:
                handle.remove()

    def _note(self, block: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self.residuals.append(args[0].clone())
        self.args.append(args[1:])
        self.kwargs.append(dict(kwargs))


def test_arguments_handed_to_the_blocks(family: str) -> None:
    base = Recorded(shared(family), TOKENS, use_cache=False)
    n_positional, keywords = ARGUMENTS[family]
    for layer in range(N_LAYERS):
        assert len(base.args[layer]) == n_positional
        assert set(base.kwargs[layer]) == keywords
    if family == "gpt2":
        past, mask, cross = base.args[0]
        assert past is None
        assert cross is None
        assert mask.shape == (N_BATCH, 1, N_POS, N_POS)
    elif family in ATTENTION:
        assert base.kwargs[0]["attention_mask"].shape == (N_BATCH, 1, N_POS, N_POS)
        assert isinstance(base.kwargs[0]["position_embeddings"], tuple)
        assert base.kwargs[0][CACHE_KEYWORD[family]] is None


def test_padding_reaches_the_blocks_of_every_family(family: str) -> None:
    tokens, mask = ragged()
    base = Recorded(shared(family), tokens, attention_mask=mask, use_cache=False)
    given = base.args[0][1] if family == "gpt2" else base.kwargs[0]["attention_mask"]
    assert given.shape[0] == N_BATCH
    if family in ATTENTION:
        assert base.kwargs[0]["position_ids"].tolist()[1][3:] == list(range(N_POS - 3))


def widened(value: Any, rows: torch.Tensor) -> Any:
    """A kept block argument for the batch rows `rows`; tables of one row serve every row."""
    if isinstance(value, tuple):
        return tuple(widened(part, rows) for part in value)
    if isinstance(value, torch.Tensor):
        return (
            value.expand(int(rows.max()) + 1, *value.shape[1:])[rows]
            if len(value) == 1
            else value[rows]
        )
    return value


def first_of(output: Any) -> torch.Tensor:
    return output[0] if isinstance(output, tuple) else output


def exact_tail(bridge: TransformerBridge, tokens: torch.Tensor, live: torch.Tensor) -> torch.Tensor:
    """The model's own tail on `live`: every block is overridden, the last one returns `live`."""
    with skipped_below(bridge, N_LAYERS):
        bridge.blocks[LAST].__dict__["forward"] = lambda hidden, *args, **kwargs: live
        return bridge(tokens, use_cache=False)


CELLS = [(0, 0, 2), (1, 0, 5), (1, 1, 3), (2, 1, 8), (0, 1, 6)]
"""(layer, base row, position) of one residual patch each; three layers mixed in one batch."""


@pytest.mark.parametrize("padded", [False, True])
def test_wavefront_equals_loop(family: str, padded: bool) -> None:
    bridge = shared(family)
    tokens, mask = ragged() if padded else (TOKENS, torch.ones_like(TOKENS))
    source = random_tokens(3, 1, 1)
    patch = bridge.embed(source)[0, 0] * 3  # one vector [d_model], far from any residual
    base = Recorded(bridge, tokens, attention_mask=mask, use_cache=False)
    cells = sorted(CELLS)
    live, rows = torch.empty(0, N_POS, D_MODEL), torch.empty(0, dtype=torch.long)
    for layer, block in enumerate(bridge.blocks):
        for start, row, pos in cells:
            if start == layer:
                joining = base.residuals[layer][row].clone()
                joining[pos] = patch
                live, rows = (
                    torch.cat([live, joining[None]]),
                    torch.cat([rows, torch.tensor([row])]),
                )
        live = first_of(
            block(
                live,
                *widened(base.args[layer], rows),
                **{key: widened(value, rows) for key, value in base.kwargs[layer].items()},
            )
        )
    exact = exact_tail(bridge, tokens[rows], live)
    short = bridge.unembed(bridge.ln_final(live))
    assert gap(exact, short) <= 1e-5
    for index, (layer, row, pos) in enumerate(cells):
        one = bridge.run_with_hooks(
            tokens[row : row + 1],
            attention_mask=mask[row : row + 1],
            fwd_hooks=[
                (f"blocks.{layer}.hook_in", lambda act, hook, pos=pos: written(act, pos, patch))
            ],
        )
        pads = 3 if padded and row == 1 else 0
        assert gap(exact[index, pads:], one[0, pads:]) <= 1e-5
        assert gap(one[0, pads:], base.logits[row, pads:]) > 1e-2


def written(activation: torch.Tensor, pos: int, value: torch.Tensor) -> torch.Tensor:
    new = activation.clone()
    new[:, pos] = value
    return new


@pytest.mark.parametrize(("layer", "pos"), [(0, 4), (1, 6), (2, 8)])
def test_suffix_equals_loop(attention_family: str, layer: int, pos: int) -> None:
    """Positions before the first touched one are replaced by their keys and values."""
    bridge = shared(attention_family)
    tokens, patch = TOKENS[:1], bridge.embed(random_tokens(3, 1, 1))[0, 0] * 3
    cache = DynamicCache(config=bridge.original_model.config)
    base = Recorded(bridge, tokens, past_key_values=cache, use_cache=True)
    live = base.residuals[layer][:, pos:].clone()
    live[:, 0] = patch
    for later in range(layer, N_LAYERS):
        live = first_of(_suffix_block(bridge, attention_family, base, cache, later, pos, live))
    one = bridge.run_with_hooks(
        tokens, fwd_hooks=[(f"blocks.{layer}.hook_in", lambda act, hook: written(act, pos, patch))]
    )
    assert gap(bridge.unembed(bridge.ln_final(live)), one[:, pos:]) <= 1e-5
    assert gap(one[:, pos:], base.logits[:, pos:]) > 1e-2


def _suffix_block(
    bridge: TransformerBridge,
    family: str,
    base: Recorded,
    cache: DynamicCache,
    layer: int,
    pos: int,
    live: torch.Tensor,
) -> Any:
    kept = cache.layers[layer]
    assert kept.keys.shape == (1, n_kv_heads(family), N_POS, D_HEAD)
    past = DynamicCache(config=bridge.original_model.config)  # update() appends: fresh every time
    past.update(kept.keys[:, :, :pos], kept.values[:, :, :pos], layer)
    kwargs = dict(base.kwargs[layer])
    kwargs["position_ids"] = kwargs["position_ids"][:, pos:]
    if family == "gpt2":
        _, mask, cross = base.args[layer]
        return bridge.blocks[layer](live, past, mask[..., pos:, :], cross, **kwargs)
    kwargs[CACHE_KEYWORD[family]] = past
    kwargs["attention_mask"] = kwargs["attention_mask"][..., pos:, :]
    kwargs["position_embeddings"] = tuple(part[:, pos:] for part in kwargs["position_embeddings"])
    return bridge.blocks[layer](live, **kwargs)


# 12. Key-value caches and generation ------------------------------------------------------------


def test_two_pieces_with_a_cache_equal_the_full_run(attention_family: str) -> None:
    bridge = shared(attention_family)
    cache = DynamicCache(config=bridge.original_model.config)
    pieces = [
        bridge(part, past_key_values=cache, use_cache=True)
        for part in (TOKENS[:, :5], TOKENS[:, 5:])
    ]
    assert gap(torch.cat(pieces, 1), bridge(TOKENS)) <= 1e-5


def test_greedy_generation_equals_hugging_face_and_hooks_fire_per_step(family: str) -> None:
    bridge, shapes = shared(family), []
    with bridge.hooks(
        fwd_hooks=[("blocks.1.hook_in", lambda act, hook: shapes.append(tuple(act.shape)))]
    ):
        ours = bridge.generate(
            TOKENS, max_new_tokens=4, do_sample=False, return_type="tokens", verbose=False
        )
    theirs = toys.make_hf(family).generate(
        TOKENS, attention_mask=torch.ones_like(TOKENS), max_new_tokens=4, do_sample=False
    )
    assert ours.tolist() == theirs.tolist()
    assert shapes[0] == (N_BATCH, N_POS, D_MODEL)
    assert set(shapes[1:]) == {(N_BATCH, 1, D_MODEL)}


# 13. Gradients ----------------------------------------------------------------------------------


def test_a_backward_hook_equals_autograd(family: str) -> None:
    bridge, grads, name = shared(family), {}, "blocks.1.hook_out"
    with torch.enable_grad():
        logits = bridge.run_with_hooks(
            TOKENS,
            fwd_hooks=[(name, lambda act, hook: grads.setdefault("act", act))],
        )
        (direct,) = torch.autograd.grad(logits[:, -1, 7].sum(), grads["act"])
        store, fwd, bwd = bridge.get_caching_hooks(names_filter=lambda n: n == name, incl_bwd=True)
        with bridge.hooks(fwd_hooks=fwd, bwd_hooks=bwd):
            bridge(TOKENS)[:, -1, 7].sum().backward()
    bridge.zero_grad()
    assert float(direct.abs().max()) > 1e-3
    assert gap(store[f"{name}_grad"], direct) <= 1e-6


# 14. Recurrent internals ------------------------------------------------------------------------


@pytest.mark.parametrize("family", toys.RECURRENT_FAMILIES)
def test_eager_scan_brings_the_mixer_hooks_alive(family: str) -> None:
    bridge = boot(family)
    before = bridge(TOKENS)
    for block in bridge.blocks:
        block.mixer.eager_scan = True
    logits, store = bridge.run_with_cache(TOKENS, use_cache=False)
    assert gap(logits, before) <= 1e-5
    names = {f"blocks.1.{name}" for name in DEAD[family]}
    assert names <= set(store.keys())
    change = bridge.run_with_hooks(
        TOKENS, use_cache=False, fwd_hooks=[("blocks.1.mixer.hook_conv", lambda act, hook: act * 0)]
    )
    assert gap(change, logits) > 1e-2


@pytest.mark.parametrize("family", toys.RECURRENT_FAMILIES)
def test_shapes_of_effective_attention_and_state(family: str) -> None:
    bridge = boot(family)
    for block in bridge.blocks:
        block.mixer.eager_scan = True
    store = bridge.run_with_cache(TOKENS, use_cache=False)[1]
    attention = store.compute_ssm_effective_attention(layer=1)
    channels = 2 * D_MODEL if family == "mamba" else 8
    assert attention.shape == (N_BATCH, channels, N_POS, N_POS)
    assert float(attention.triu(1).abs().max()) == 0.0
    state = store.compute_ssm_state(layer=1, time_step=N_POS - 1)
    assert state.shape[:2] == (N_BATCH, channels)
    assert state.shape[-1] == 8


# 15. Grouped queries ----------------------------------------------------------------------------


def test_stacked_weights_keep_the_key_value_head_axis(attention_family: str) -> None:
    bridge, n_kv = shared(attention_family), n_kv_heads(attention_family)
    assert bridge.W_Q.shape == (N_LAYERS, N_HEADS, D_MODEL, D_HEAD)
    assert bridge.W_K.shape == bridge.W_V.shape == (N_LAYERS, n_kv, D_MODEL, D_HEAD)
    assert bridge.W_O.shape == (N_LAYERS, N_HEADS, D_HEAD, D_MODEL)


def test_padded_key_value_rows_of_a_patching_result_carry_a_fake_effect() -> None:
    """Why mechlab gives keys and values their own axis with as many heads as there are."""
    bridge = shared("llama")
    clean = bridge.run_with_cache(TOKENS)[1]
    result = patching.get_act_patch_attn_head_all_pos_every(
        bridge, OTHER_TOKENS, clean, lambda logits: logits[:, -1, 7], reduce="none", baseline=True
    )
    effect = result.effect()  # [patch type, layer, head, batch]; k and v are types 2 and 3
    padded = effect[2:4, :, N_KV_HEADS:] if effect.shape[0] == 5 else None
    assert padded is not None
    assert gap(padded, (-result.baseline).expand_as(padded)) <= 1e-6
    assert float(padded.abs().max()) > 1e-2


# 16. Weights ------------------------------------------------------------------------------------


def test_orientation_of_the_weights_that_edits_touch(family: str) -> None:
    bridge = shared(family)
    if family in RECURRENT:
        weight = bridge.blocks[1].mixer.out_proj.original_component.weight
        assert weight.shape == (D_MODEL, 2 * D_MODEL)
        return
    weight = bridge.blocks[1].mlp.out.original_component.weight
    transposed = family == "gpt2"  # Conv1D keeps [d_mlp, d_model]
    assert weight.shape == ((D_MLP, D_MODEL) if transposed else (D_MODEL, D_MLP))
    assert bridge.W_out.shape == (N_LAYERS, D_MLP, D_MODEL)
    assert gap(bridge.W_out[1], weight if transposed else weight.T) == 0.0


def test_stacked_weights_are_copies(attention_family: str) -> None:
    bridge = shared(attention_family)
    before = bridge(TOKENS)
    bridge.W_out.zero_()
    assert gap(bridge(TOKENS), before) == 0.0
    assert bridge.W_E.shape == (N_VOCAB, D_MODEL)
    assert bridge.W_U.shape == (D_MODEL, N_VOCAB)


def test_temporarily_swap_parameter_restores_bitwise_also_after_an_exception(family: str) -> None:
    bridge = shared(family)
    block = bridge.blocks[1]
    module = block.mixer.out_proj if family in RECURRENT else block.mlp.out
    weight, before = module.original_component.weight, bridge(TOKENS)
    kept = weight.detach().clone()
    with (
        pytest.raises(RuntimeError, match="on purpose"),
        utilities.temporarily_swap_parameter(weight, torch.zeros_like(weight)),
    ):
        assert gap(bridge(TOKENS), before) > 1e-2
        raise RuntimeError("on purpose")
    assert torch.equal(weight, kept)
    assert gap(bridge(TOKENS), before) == 0.0


# 17.-18. Compatibility mode ---------------------------------------------------------------------


def test_compatibility_mode_keeps_log_probabilities_and_changes_weights(
    attention_family: str,
) -> None:
    bridge = boot(attention_family)
    before, weights = bridge(TOKENS), bridge.W_Q.clone()
    bridge.enable_compatibility_mode(disable_warnings=True)
    after = bridge(TOKENS)
    assert gap(after.log_softmax(-1), before.log_softmax(-1)) <= 1e-5
    assert gap(after, before) > 1e-3
    assert gap(bridge.W_Q, weights) > 1e-3  # the norm before it was folded in


def test_direct_attribution_sums_to_the_logit_difference_without_its_bias(
    attention_family: str,
) -> None:
    """The final norm's bias becomes an unembedding bias, which no component is credited with."""
    bridge = boot(attention_family)
    bridge.enable_compatibility_mode(disable_warnings=True)
    answer, wrong = torch.tensor([7, 7]), torch.tensor([9, 9])
    logits = bridge(TOKENS)[:, -1]
    difference = logits[:, 7] - logits[:, 9] - (bridge.b_U[7] - bridge.b_U[9])
    for unit in ("component", "head"):
        result = tools.analysis.direct_logit_attribution(
            bridge, TOKENS, answer_tokens=answer, incorrect_tokens=wrong, unit=unit
        )
        assert gap(result.attribution.sum(0), difference) <= 1e-5
    has_bias = float((bridge.b_U[7] - bridge.b_U[9]).abs()) > 1e-3
    assert has_bias == (attention_family != "llama")


# 19. bfloat16 -----------------------------------------------------------------------------------


def test_bfloat16_bridge_equals_bfloat16_hugging_face(family: str) -> None:
    bridge = boot(family, dtype=torch.bfloat16)
    plain = toys.make_hf(family, dtype=torch.bfloat16)(TOKENS).logits
    logits = bridge(TOKENS)
    assert gap(logits, plain) == 0.0
    assert gap(logits, shared(family)(TOKENS)) > 1e-3


# 20. No hook is left behind ---------------------------------------------------------------------


def n_hooks(bridge: TransformerBridge) -> int:
    points = {id(point): point for point in bridge.hook_dict.values()}
    ours = sum(len(point.fwd_hooks) + len(point.bwd_hooks) for point in points.values())
    torchs = sum(len(module._forward_hooks) for module in bridge.modules())
    return ours + torchs


def test_no_hook_remains_after_a_run_or_an_exception(family: str) -> None:
    bridge = shared(family)
    before = n_hooks(bridge)
    hooks = [("blocks.1.hook_in", lambda act, hook: act), ("blocks.2.hook_out", _fail)]
    bridge.run_with_hooks(TOKENS, fwd_hooks=hooks[:1])
    with pytest.raises(RuntimeError, match="on purpose"):
        bridge.run_with_hooks(TOKENS, fwd_hooks=hooks)
    with bridge.hooks(fwd_hooks=hooks[:1]):
        assert n_hooks(bridge) > before
    with pytest.raises(RuntimeError, match="on purpose"), bridge.hooks(fwd_hooks=hooks):
        bridge(TOKENS)
    assert n_hooks(bridge) == before


def _fail(activation: torch.Tensor, hook: Any) -> None:
    raise RuntimeError("on purpose")
