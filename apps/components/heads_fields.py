"""Fields of the heads page: what is measured, and how."""

import streamlit as st

from components.pair_fields import pair_fields
from components.picker import KEPT
from heads_request import SITES, HeadsRequest

__all__ = ["heads_fields", "heads_options"]

_HOW = {
    "attribution": "Direct attribution",
    "ablate": "Ablation",
    "patch": "Activation patching",
    "gradient": "Patching by gradients",
}
_HELP = (
    "Direct attribution: what each head writes into the answer's logits (one forward pass). "
    "Ablation: what the answer loses without it. Activation patching: what its value from the "
    "other prompt brings. By gradients: an estimate of that, quick and rough."
)
_ABLATIONS = {"zero": "by zero", "mean": "by the mean", "resample": "by other prompts"}
_DIRECTIONS = {"denoising": "clean into corrupted", "noising": "corrupted into clean"}


def heads_fields() -> None:
    """Draw the prompts, and below them the way to measure."""
    pair_fields(HeadsRequest)
    with st.container(horizontal=True, vertical_alignment="bottom", gap="small"):
        how = st.segmented_control(
            "Measure", list(_HOW), key="in.heads.how", format_func=_HOW.__getitem__, required=True,
            help=_HELP, **KEPT,
        )  # fmt: skip
        if how == "ablate":
            st.selectbox(
                "Ablate", list(_ABLATIONS), key="in.heads.ablation", width=150,
                format_func=_ABLATIONS.__getitem__, **KEPT,
            )  # fmt: skip
        if how in ("patch", "gradient"):
            st.selectbox(
                "Direction", list(_DIRECTIONS), key="in.heads.direction", width=190,
                format_func=_DIRECTIONS.__getitem__, **KEPT,
            )  # fmt: skip
        if how != "attribution":
            st.selectbox(
                "Of", list(SITES), key="in.heads.site", format_func=SITES.__getitem__, width=150,
                **KEPT,
            )  # fmt: skip


def heads_options() -> None:
    """Draw the options that are rarely changed."""
    how = st.session_state["in.heads.how"]
    if how == "attribution":
        st.multiselect(
            "Without these heads", st.session_state.get("in.heads.without", []),
            key="in.heads.without", accept_new_options=True, placeholder="such as L5H4",
            help="Ablated (zero) while the others are attributed: what do later heads make good?",
            **KEPT,
        )  # fmt: skip
        return
    st.selectbox(
        "Positions", ("all", "last"), key="in.heads.positions",
        help="Where heads are changed: at all tokens together, or at the last one. Heads replaced "
        "by those of other prompts are changed at the last token, as prompts differ in length.",
        **KEPT,
    )  # fmt: skip
    if how == "ablate":
        st.caption(
            "The mean is over all tokens of the prompts, for one prompt of 32 conflicts. Up to ten "
            "other prompts are drawn for each."
        )
