"""Path patching as written down: whole runs per edge, one prompt, torch's own hooks.

Slow and obvious; it shares nothing with the package but the names of sites and the tokens, and runs
a Hugging Face twin of the model that no bridge has touched. Heads are held by their queries, keys
and values, as in the IOI code, and not by their outputs.
"""

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from typing import Any

import torch
import transformers
from torch import Tensor, nn

from mechlab.hooks import Site
from mechlab.models import Model
from mechlab.models.fingerprint import bare_weights

Place = tuple[str, int]
"""What is read and written, and in which block: embed, q, k, v, z, mlp_in, mlp_out, and of the
norms ln1, ln2, ln_final the scale that they divide by."""
Values = dict[Place, Tensor]
Writes = dict[Place, list[Callable[[Tensor], Tensor]]]
PassOn = Callable[[str, int, Tensor], Tensor]
PARTS = {"pattern": ["q", "k"], "z": ["q", "k", "v"], "mlp_out": ["mlp_in"]}
"""Which inputs a receiver stands for; `q`, `k` and `v` stand for themselves."""


@torch.no_grad()
def path_logits(
    model: Model,
    original: str,
    new: str,
    sender: Sequence[Site],
    receiver: Sequence[Site],
    *,
    freeze: str,
    ln: str = "recompute",
    positions: Sequence[int] | None = None,
) -> Tensor:
    """Return the logits of the last position after a path was patched; `()` receives as logits.

    Receivers are set at every position, unless they name one.
    """
    hf = twin(model)
    target, source = (model.tokenize([text]).tokens for text in (original, new))
    _, a = run(hf, source, {})
    _, b = run(hf, target, {})
    held: Writes = {
        place: [_whole(values)]
        for place, values in b.items()
        if place[0] in ("q", "k", "v") or (place[0] == "mlp_out" and freeze == "heads+mlps")
    }
    for site in sender:
        place = ("z" if site.name == "attn_out" else site.name, site.layer or 0)
        held[place] = [*held.get(place, []), _some(a[place], site, positions)]

    def with_norms(*norms: Place) -> Writes:
        return held | {norm: [_whole(b[norm])] for norm in norms if ln == "frozen"}

    if not receiver:
        return run(hf, target, with_norms(("ln_final", 0)))[0]
    setting: Writes = defaultdict(list)
    for site in receiver:
        layer = site.layer or 0
        _, seen = run(hf, target, with_norms(("ln1", layer), ("ln2", layer)))
        for part in PARTS.get(site.name, [site.name]):
            setting[part, layer].append(_some(seen[part, layer], site, None))
    return run(hf, target, setting)[0]


def _whole(values: Tensor) -> Callable[[Tensor], Tensor]:
    return lambda _: values


def _some(
    values: Tensor, site: Site, positions: Sequence[int] | None
) -> Callable[[Tensor], Tensor]:
    """Take other values in one head or all, at a site's own position or at the given ones."""

    def write(value: Tensor) -> Tensor:
        out = value.clone()
        where = range(value.shape[1]) if positions is None else positions
        for pos in where if site.pos is None else [site.pos]:
            if site.head is None:
                out[:, pos] = values[:, pos]
            else:
                out[:, pos, site.head] = values[:, pos, site.head]
        return out

    return write


# --- the plain model ------------------------------------------------------------------------------

_twins: dict[int, tuple[Model, Any]] = {}


def twin(model: Model) -> Any:
    """Return a Hugging Face model of the same configuration and weights, as no bridge saw it."""
    if id(model) not in _twins:
        config = model.hf.config
        hf = transformers.AutoModelForCausalLM.from_config(config, attn_implementation="eager")
        unknown = hf.load_state_dict(bare_weights(model.hf), strict=False).unexpected_keys
        assert not unknown, unknown
        hf.tie_weights()
        _twins[id(model)] = (model, hf.to(model.dtype).eval())  # the model keeps its id
    return _twins[id(model)][1]


def run(hf: Any, tokens: Tensor, writes: Writes) -> tuple[Tensor, Values]:
    """Run a model; return the last logits, and every value as it was before it was written."""
    seen: Values = {}

    def pass_on(name: str, layer: int, value: Tensor) -> Tensor:
        seen[name, layer] = value.clone()
        for write in writes.get((name, layer), []):
            value = write(value)
        return value

    with ExitStack() as hooks:
        for handle in _hooks(hf, pass_on):
            hooks.enter_context(handle)
        logits = hf(tokens, use_cache=False).logits[0, -1]
    assert writes.keys() <= seen.keys(), "every write was made"
    return logits, seen


def _hooks(hf: Any, pass_on: PassOn) -> Iterator[Any]:
    """Hang what passes values on; where is what differs between families."""
    gpt2, neox, gemma = (hf.config.model_type == kind for kind in ("gpt2", "gpt_neox", "gemma2"))
    body = hf.transformer if gpt2 else hf.gpt_neox if neox else hf.model
    blocks = body.h if gpt2 else body.layers
    n_heads = hf.config.num_attention_heads
    yield _norm(body.ln_f if gpt2 else body.final_layer_norm if neox else body.norm,
                "ln_final", 0, pass_on)  # fmt: skip
    yield _input(blocks[0], "embed", 0, pass_on)
    for layer, block in enumerate(blocks):
        yield _norm(block.ln_1 if gpt2 else block.input_layernorm, "ln1", layer, pass_on)
        before_mlp = "pre_feedforward_layernorm" if gemma else "post_attention_layernorm"
        yield _norm(block.ln_2 if gpt2 else getattr(block, before_mlp), "ln2", layer, pass_on)
        yield _input(block.mlp, "mlp_in", layer, pass_on)
        wrote = block.post_feedforward_layernorm if gemma else block.mlp
        yield _output(wrote, ["mlp_out"], layer, lambda value: [value], lambda one: one[0], pass_on)
        if gpt2:
            yield _output(block.attn.c_attn, ["q", "k", "v"], layer,
                          lambda value: value.unflatten(-1, (3, n_heads, -1)).unbind(2),
                          lambda qkv: torch.stack(list(qkv), 2).flatten(2), pass_on)  # fmt: skip
        elif neox:  # q, k, v of one head after another
            yield _output(block.attention.query_key_value, ["q", "k", "v"], layer,
                          lambda value: value.unflatten(-1, (n_heads, 3, -1)).unbind(3),
                          lambda qkv: torch.stack(list(qkv), 3).flatten(2), pass_on)  # fmt: skip
        else:
            for name in ("q", "k", "v"):
                count = n_heads if name == "q" else hf.config.num_key_value_heads
                yield _output(getattr(block.self_attn, f"{name}_proj"), [name], layer,
                              lambda value, count=count: [value.unflatten(-1, (count, -1))],
                              lambda one: one[0].flatten(2), pass_on)  # fmt: skip
        out = block.attn.c_proj if gpt2 else block.attention.dense if neox else None
        yield _input(block.self_attn.o_proj if out is None else out, "z", layer, pass_on, n_heads)


def _input(module: nn.Module, name: str, layer: int, pass_on: PassOn, n_heads: int = 0) -> Any:
    def hook(module: nn.Module, args: Any) -> Any:
        value = args[0].unflatten(-1, (n_heads, -1)) if n_heads else args[0]
        value = pass_on(name, layer, value)
        return (value.flatten(2), *args[1:])

    return module.register_forward_pre_hook(hook)


def _output(
    module: nn.Module, names: Sequence[str], layer: int, split: Any, join: Any, pass_on: PassOn
) -> Any:
    def hook(module: nn.Module, args: Any, output: Tensor) -> Tensor:
        parts = zip(names, split(output), strict=True)
        joined: Tensor = join([pass_on(name, layer, part) for name, part in parts])
        return joined

    return module.register_forward_hook(hook)


def _norm(module: Any, name: str, layer: int, pass_on: PassOn) -> Any:
    def hook(module: Any, args: Any, output: Tensor) -> Tensor:
        (value,) = args
        centred = value - value.mean(-1, keepdim=True) if hasattr(module, "bias") else value
        eps = getattr(module, "variance_epsilon", getattr(module, "eps", None))
        own = (centred.pow(2).mean(-1, keepdim=True) + eps).sqrt()
        scale = pass_on(name, layer, own)
        return output * own / scale if getattr(module, "bias", None) is None else (
            (output - module.bias) * own / scale + module.bias
        )  # fmt: skip

    return module.register_forward_hook(hook)
