"""Causal traces of the agreed form with invented numbers, for tests that only look at them."""

import json
from collections.abc import Sequence

import numpy as np
import xarray as xr

EIFFEL = ("<s>", "The", " Eiff", "el", " Tower", " is", " in")
SITES = ("resid_post", "mlp_out", "attn_out")


def make_trace(
    prompts: Sequence[Sequence[str]] = (EIFFEL,),
    *,
    layers: int = 4,
    samples: int = 5,
    sites: Sequence[str] = SITES,
    window: int = 2,
    seed: int = 0,
) -> xr.Dataset:
    """Return a trace whose tokens are `prompts`; shorter ones are padded on the right."""
    rng = np.random.default_rng(seed)
    longest = max(map(len, prompts))
    shape = (len(prompts), len(sites), layers, longest, samples)
    restored = rng.uniform(0.0, 0.6, shape)
    corrupted = rng.uniform(0.0, 0.1, (len(prompts), samples))
    clean = np.full(len(prompts), 0.8)
    token = np.array([[*p, *[""] * (longest - len(p))] for p in prompts], dtype=object)
    restored[np.broadcast_to((token == "")[:, None, None, :, None], shape)] = np.nan
    effect = restored.mean(-1) - corrupted.mean(-1)[:, None, None, None]
    per_prompt = "prompt"
    starts = np.array([[0 if s == "resid_post" else max(0, x - window // 2) for x in range(layers)]
                       for s in sites])  # fmt: skip
    stops = np.array([[x + 1 if s == "resid_post" else min(layers, max(0, x - window // 2) + window)
                       for x in range(layers)] for s in sites])  # fmt: skip
    starts = np.where(np.array(sites)[:, None] == "resid_post", np.arange(layers), starts)
    return xr.Dataset(
        {
            "clean_probability": (per_prompt, clean),
            "corrupted_probability": ((per_prompt, "sample"), corrupted),
            "restored_probability": ((per_prompt, "site", "layer", "pos", "sample"), restored),
            "indirect_effect": ((per_prompt, "site", "layer", "pos"), effect),
            "total_effect": (per_prompt, clean - corrupted.mean(-1)),
        },
        coords={
            "prompt": [f"fact {i}" for i in range(len(prompts))],
            "site": list(sites),
            "layer": np.arange(layers),
            "pos": np.arange(longest),
            "sample": np.arange(samples),
            "token": ((per_prompt, "pos"), token),
            "token_role": ((per_prompt, "pos"), np.full(token.shape, "further", dtype=object)),
            "prompt_text": (per_prompt, ["".join(p[1:]) for p in prompts]),
            "subject": (per_prompt, ["Eiffel Tower"] * len(prompts)),
            "target": (per_prompt, ["Paris"] * len(prompts)),
            "scored_token": (per_prompt, [" Paris"] * len(prompts)),
            "status": (per_prompt, ["ok"] * len(prompts)),
            "window_start": (("site", "layer"), starts),
            "window_stop": (("site", "layer"), stops),
        },
        attrs={
            "method": "causal_trace",
            "options": json.dumps({"noise_scale": 3.0, "samples": samples, "seed": 0}),
        },
    )
