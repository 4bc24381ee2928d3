"""Fields of the paths page: who sends, who receives, and what is held meanwhile."""

import streamlit as st

from components.pair_fields import pair_fields
from components.picker import KEPT
from paths_request import SENDERS, PathsRequest

__all__ = ["paths_fields", "paths_options"]

_FREEZE = {"heads": "heads (MLPs pass changes on)", "heads+mlps": "heads and MLPs (direct edges)"}
_DIRECTIONS = {"noising": "corrupted into clean", "denoising": "clean into corrupted"}


def paths_fields() -> None:
    """Draw the prompts, and below them senders and receiver."""
    pair_fields(PathsRequest)
    senders, nodes, receiver, freeze = st.columns([1.3, 2, 1.3, 2], gap="small")
    chosen = senders.selectbox(
        "Senders", list(SENDERS), key="in.paths.senders", format_func=SENDERS.__getitem__, **KEPT
    )
    nodes.text_input(
        "Which", key="in.paths.nodes", disabled=chosen != "set",
        placeholder="L5H3, MLP4, L6H0+L6H1" if chosen == "set" else "all of them",
        help="Senders, one effect each; + patches several together.", **KEPT,
    )  # fmt: skip
    receiver.text_input(
        "Receiver", key="in.paths.receiver",
        help="`logits`; an input of a head, such as L5H4.q (k, v, pattern), or L5H4 for all three; "
        "or an MLP, such as MLP7. Only the receiver sees the change.", **KEPT,
    )  # fmt: skip
    freeze.selectbox(
        "Held meanwhile", list(_FREEZE), key="in.paths.freeze", format_func=_FREEZE.__getitem__,
        help="What lies between sender and receiver and is kept at its original value.", **KEPT,
    )  # fmt: skip


def paths_options() -> None:
    """Draw the options that are rarely changed."""
    st.selectbox(
        "Direction", list(_DIRECTIONS), key="in.paths.direction",
        format_func=_DIRECTIONS.__getitem__,
        help="Which prompt's run is patched with what senders write on the other.", **KEPT,
    )  # fmt: skip
    st.selectbox("Positions of senders", ("all", "last"), key="in.paths.positions", **KEPT)
    st.selectbox(
        "Norm in front of the receiver", ("recompute", "frozen"), key="in.paths.ln",
        help="Frozen at the scale of the original run, effects on one input add up.", **KEPT,
    )  # fmt: skip
