"""The fields of a causal trace: its facts and its options."""

import streamlit as st

import mechlab as ml
import prompt_files
from components.picker import KEPT, fact_fields
from trace_request import SITES

__all__ = ["option_fields", "trace_prompt_fields"]

_WORDS = {
    "resid_pre": "residual stream before a layer (resid_pre)",
    "resid_mid": "residual stream between attention and MLP (resid_mid)",
    "resid_post": "residual stream after a layer (resid_post)",
    "mlp_out": "MLP output (mlp_out)",
    "attn_out": "attention output (attn_out)",
    "mixer_out": "mixer output, on Mamba (mixer_out)",
}


_CORRUPTIONS = {
    "gaussian": "noise on the subject (gaussian)",
    "interchange": "other subjects in its place (interchange)",
}
_SEVERED = {
    "none": "nothing",
    "mlp": "MLPs (mlp)",
    "attn": "attention (attn)",
    "mixer": "mixers, on Mamba (mixer)",
}


def trace_prompt_fields() -> None:
    """Draw the fields of a fact, or of a file of facts when there is one."""
    files = prompt_files.known()
    chosen = st.session_state.get("in.trace.prompt_set", "")
    if files or chosen:
        st.selectbox(
            "Facts", ["", *dict.fromkeys([*files, *([chosen] if chosen else [])])],
            key="in.trace.prompt_set", **KEPT,
            format_func=lambda name: ml.plots.show_text(
                files.get(name, f"file {name}") if name else "the one below"
            ),
        )  # fmt: skip
    if not st.session_state.get("in.trace.prompt_set"):
        fact_fields()


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
    corruption, sever = st.columns(2)
    corruption.selectbox(
        "Corruption", [*_CORRUPTIONS], key="in.trace.corruption",
        format_func=_CORRUPTIONS.__getitem__, **KEPT,
    )  # fmt: skip
    sever.selectbox(
        "Sever", [*_SEVERED], key="in.trace.sever", format_func=_SEVERED.__getitem__,
        help="Modules of the restored token that are held at their corrupted values.", **KEPT,
    )  # fmt: skip
    st.checkbox(
        "Skip a fact that the model does not know", key="in.trace.known_only",
        help="Without this, the most probable token is traced, whatever it is.", **KEPT,
    )  # fmt: skip
