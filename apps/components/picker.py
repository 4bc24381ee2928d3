"""Fields that choose a model, a fact and options; their values live in the session, not in the URL.

Every field keeps its value across pages. The values start with a fact that the shipped model knows.
"""

from pathlib import Path
from typing import Any

import streamlit as st

import mechlab as ml
from request import Request

__all__ = [
    "adopt",
    "current_request",
    "example_of",
    "fact_fields",
    "model_fields",
    "option_fields",
    "prepare",
]

_FALLBACK = ("The capital of France is", "France", "Paris")
SITES = ("resid_post", "mlp_out", "attn_out", "mixer_out", "resid_mid", "resid_pre")
SITE_WORDS = {
    "resid_pre": "residual stream before a layer (resid_pre)",
    "resid_mid": "residual stream between attention and MLP (resid_mid)",
    "resid_post": "residual stream after a layer (resid_post)",
    "mlp_out": "MLP output (mlp_out)",
    "attn_out": "attention output (attn_out)",
    "mixer_out": "mixer output, on Mamba (mixer_out)",
}
_NAMES = (
    "model", "device", "dtype", "weights", "revision", "checkpoint", "prompt", "subject", "target",
    "sites", "window", "samples", "noise_scale", "seed", "known_only", "more",
)  # fmt: skip
_KEPT: dict[str, Any] = {"persist_state": "session"}


def prepare() -> None:
    """Put first values into the session before any field is drawn; later calls change nothing."""
    if "in.model" in st.session_state:
        return
    prompt, subject, target = example_of("atlas")
    adopt(Request(prompt=prompt, subject=subject, target=target))


def adopt(request: Request) -> None:
    """Fill every field from a request; only before the fields are drawn, or in a callback."""
    for name in _NAMES:
        value = getattr(request, name)
        st.session_state[f"in.{name}"] = list(value) if isinstance(value, tuple) else value


def current_request() -> Request:
    """Return the request that the fields make now."""
    values = {name: st.session_state[f"in.{name}"] for name in _NAMES}
    values["sites"] = tuple(site for site in SITES if site in values["sites"])
    values["prompt"] = values["prompt"].rstrip()  # a trailing space would be a token of its own
    values["subject"] = values["subject"].strip()
    values["target"] = values["target"].strip()
    return Request(**values)


def example_of(model: str) -> tuple[str, str, str]:
    """Return the fact that a shipped model's card names, as (prompt, subject, target)."""
    if model not in ml.organisms.names():
        return _FALLBACK
    example = ml.organisms.card(model).get("example")
    if not isinstance(example, dict):
        return _FALLBACK
    return str(example["prompt"]), str(example["subject"]), str(example["target"])


def fact_fields(*, stacked: bool = False) -> None:
    """Draw the three fields of a fact, in one row or, `stacked`, the prompt above the others."""
    if stacked:
        prompt, (subject, target) = st.container(), st.columns(2)
    else:
        prompt, subject, target = st.columns([5, 2, 2])
    prompt.text_input(
        "Prompt", key="in.prompt", help="Text that stops where the answer would come.", **_KEPT
    )
    subject.text_input(
        "Subject", key="in.subject", help="The words in the prompt that get noised.", **_KEPT
    )
    target.text_input(
        "Answer", key="in.target", help="What the model should say next; checked first.", **_KEPT
    )


def option_fields() -> None:
    """Draw the options of a trace."""
    st.multiselect(
        "States to restore", SITES, key="in.sites", format_func=SITE_WORDS.__getitem__, **_KEPT
    )
    window, samples, noise, seed = st.columns(4)
    window.number_input(
        "Window (layers)", 1, value=None, key="in.window", placeholder="a fifth",
        help="Layers restored together at MLP and attention; the residual stream is always one.",
        **_KEPT,
    )  # fmt: skip
    samples.number_input(
        "Noise samples", 1, key="in.samples", help="Noised runs that are averaged.", **_KEPT
    )
    noise.number_input(
        "Noise (σ)", 0.0, step=0.5, key="in.noise_scale",
        help="In standard deviations of subject embeddings; the paper uses 3.", **_KEPT,
    )  # fmt: skip
    # No bounds: a field shows the value of a stored trace as 0 when it lies outside them.
    seed.number_input("Seed", step=1, key="in.seed", help="Seed of the noise.", **_KEPT)
    st.checkbox(
        "Skip a fact that the model does not know", key="in.known_only",
        help="Without this, the most probable token is traced, whatever it is.", **_KEPT,
    )  # fmt: skip


def model_fields() -> None:
    """Draw the choice of a model: the shipped ones first, then what lies in the hub's cache."""
    names = list(dict.fromkeys([*ml.organisms.names(), *_cached(), st.session_state["in.model"]]))
    st.selectbox(
        "Model", names, key="in.model", accept_new_options=True,
        help="A shipped model, one from the local cache, a folder, or a hub name.", **_KEPT,
    )  # fmt: skip
    dtype, device = st.columns(2)
    dtype.selectbox("Precision", ("float32", "bfloat16", "float16"), key="in.dtype", **_KEPT)
    device.text_input("Device", key="in.device", help="auto, cpu, cuda, cuda:1, mps", **_KEPT)


def _cached() -> list[str]:
    """Return the hub models that are on this machine with safetensors weights."""
    from huggingface_hub import constants

    folders = sorted(Path(constants.HF_HUB_CACHE).glob("models--*"))
    return [
        folder.name.removeprefix("models--").replace("--", "/")
        for folder in folders
        if any(folder.glob("snapshots/*/*.safetensors"))
    ]
