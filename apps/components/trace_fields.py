"""The options of a causal trace."""

import streamlit as st

from components.picker import KEPT
from trace_request import SITES

__all__ = ["option_fields"]

_WORDS = {
    "resid_pre": "residual stream before a layer (resid_pre)",
    "resid_mid": "residual stream between attention and MLP (resid_mid)",
    "resid_post": "residual stream after a layer (resid_post)",
    "mlp_out": "MLP output (mlp_out)",
    "attn_out": "attention output (attn_out)",
    "mixer_out": "mixer output, on Mamba (mixer_out)",
}


def option_fields() -> None:
    """Draw the options of a trace."""
    st.multiselect(
        "States to restore", SITES, key="in.trace.sites", format_func=_WORDS.__getitem__, **KEPT
    )
    window, samples, noise, seed = st.columns(4)
    window.number_input(
        "Window (layers)", 1, value=None, key="in.trace.window", placeholder="a fifth",
        help="Layers restored together at MLP and attention; the residual stream is always one.",
        **KEPT,
    )  # fmt: skip
    samples.number_input(
        "Noise samples", 1, key="in.trace.samples", help="Noised runs that are averaged.", **KEPT
    )
    noise.number_input(
        "Noise (σ)", 0.0, step=0.5, key="in.trace.noise_scale",
        help="In standard deviations of subject embeddings; the paper uses 3.", **KEPT,
    )  # fmt: skip
    # No bounds: a field shows the value of a stored trace as 0 when it lies outside them.
    seed.number_input("Seed", step=1, key="in.trace.seed", help="Seed of the noise.", **KEPT)
    st.checkbox(
        "Skip a fact that the model does not know", key="in.trace.known_only",
        help="Without this, the most probable token is traced, whatever it is.", **KEPT,
    )  # fmt: skip
