"""Results of the agreed forms with invented numbers, for tests that only look at them."""

import json

import numpy as np
import xarray as xr


def heads(prompts: int = 4, layers: int = 3, heads: int = 2, *, seed: int = 0) -> xr.Dataset:
    """Return a layer × head result."""
    rng = np.random.default_rng(seed)
    return xr.Dataset(
        {"effect": (("prompt", "layer", "head"), rng.normal(size=(prompts, layers, heads)),
                    {"units": "logits"})},
        {"prompt": [f"p{i}" for i in range(prompts)], "layer": np.arange(layers),
         "head": np.arange(heads),
         "prompt_text": ("prompt", [f"text {i}" for i in range(prompts)])},
        {"method": "ablate", "model_name": "toy",
         "options": json.dumps({"metric": "logit_diff", "kind": "zero"})},
    )  # fmt: skip


def paths(receivers: int = 2, *, seed: int = 0) -> xr.Dataset:
    """Return senders embed, 2 × 2 heads and two MLPs, to the query of L1H0 and on to the logits."""
    rng = np.random.default_rng(seed)
    senders = [("embed", -1, -1), ("head", 0, 0), ("head", 0, 1), ("mlp", 0, -1),
               ("head", 1, 0), ("head", 1, 1), ("mlp", 1, -1)]  # fmt: skip
    names = ["embed", "L0H0", "L0H1", "MLP 0", "L1H0", "L1H1", "MLP 1"]
    ends = [("q", 1, 0, "L1H0.q"), ("logits", -1, -1, "logits")][-receivers:]
    effect = rng.normal(size=(3, len(senders), len(ends)))
    if receivers == 2:
        effect[:, 4:, 0] = np.nan  # not before the receiver
    kinds, layers, heads = zip(*senders, strict=True)
    to = list(zip(*ends, strict=True))
    return xr.Dataset(
        {"effect": (("prompt", "sender", "receiver"), effect, {"units": "logits"})},
        {
            "prompt": ["a", "b", "c"], "sender": names, "receiver": list(to[3]),
            "sender_kind": ("sender", list(kinds)), "sender_layer": ("sender", list(layers)),
            "sender_head": ("sender", list(heads)), "receiver_kind": ("receiver", list(to[0])),
            "receiver_layer": ("receiver", list(to[1])), "receiver_head": ("receiver", list(to[2])),
        },
        {"method": "path_patch",
         "options": json.dumps({"metric": "logit_diff", "freeze": "heads"})},
    )  # fmt: skip


def scaling() -> xr.Dataset:
    """Return shares of two outcomes over three factors, of one set and two random ones."""
    share = np.zeros((4, 3, 3, 2))
    share[..., 0] = np.array([0, 1, 1, 1])[:, None, None]
    share[:, 1, :, 0] = 1.0  # the first control
    share[:, 2, :, 0] = 0.0  # the second
    share[..., 1] = 1 - share[..., 0]
    return xr.Dataset(
        {"share": (("prompt", "head_set", "alpha", "outcome"), share,
                   {"units": "share of prompts"})},
        {"prompt": list("abcd"), "head_set": ["L0H0", "L0H0 control 0", "L0H0 control 1"],
         "alpha": [-1.0, 0.0, 2.5], "outcome": ["in_context", "memorised"],
         "is_control": ("head_set", [False, True, True]),
         "control_of": ("head_set", ["", "L0H0", "L0H0"])},
        {"method": "scale_heads", "options": "{}"},
    )  # fmt: skip
