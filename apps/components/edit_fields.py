"""The fields of an edit: the fact, where and how it is written, and what is looked at."""

import streamlit as st

from components.picker import KEPT, current, field_key
from components.selection import warn_of_link
from edit_known import known_settings, statistics_state
from edit_request import OWN, VARIANTS, FactEditRequest
from text import words

__all__ = ["arrive_from_trace", "edit_fields", "edit_options"]

_SEEN, _ARRIVED = "edit.seen_fact", "edit.arrived"
_ASKED = "edit.asked_layer"
"""A layer that a click on the trace brought along; a link has it in its URL."""
_FACT = ("in.prompt", "in.subject", "in.target")
_NOTE = (
    "Layer {} comes from the trace. Tracing does not prove that it is the best layer to edit "
    "(Hase et al. 2023): compare with its neighbours."
)


def arrive_from_trace() -> None:
    """Take over the fact of the other pages when it changed there, and a clicked layer; once."""
    fact = tuple(str(st.session_state.get(key, "")) for key in _FACT)
    if "run" not in st.query_params and fact != st.session_state.get(_SEEN) and all(fact[:2]):
        prompt, subject, _ = fact
        if subject in prompt:
            st.session_state[_key("template")] = prompt.replace(subject, "{}", 1)
    _take_layer()


def _take_layer() -> None:
    asked = st.session_state.pop(_ASKED, None) or st.query_params.get("layer")
    if asked is None or "run" in st.query_params:
        return
    arrived = (asked, st.query_params.get("trace", ""))
    if not (asked.isascii() and asked.isdecimal() and len(asked) < 4):
        warn_of_link([f"layer {asked!r}: a layer is a number from 0"])
    elif st.session_state.get(_ARRIVED) != arrived:
        st.session_state[_ARRIVED] = arrived
        st.session_state[_key("layer")] = int(asked)


def edit_fields() -> None:
    """Draw the fact and its new object, then layer, method and key statistics."""
    template, subject, true, new = st.columns([4, 1.6, 1.4, 1.4], gap="small")
    template.text_input(
        "Prompt", key=_key("template"), on_change=_share,
        help="Text up to the object, with {} where the subject stands, or the subject itself.",
        **KEPT,
    )  # fmt: skip
    subject.text_input("Subject", key="in.subject", on_change=_share, **KEPT)
    true.text_input(
        "Object now", key="in.target", on_change=_share, **KEPT,
        help="What the model says now. May stay empty: countries' facts are known.",
    )  # fmt: skip
    new.text_input("New object", key=_key("new_object"), **KEPT)
    _where_and_how()
    _share()


def _where_and_how() -> None:
    layer, variant, tokens, told = st.columns(
        [1, 1.4, 1.4, 4.6], gap="small", vertical_alignment="bottom"
    )
    known = known_settings(current(FactEditRequest)).get("layer")
    layer.number_input(
        "Layer", 0, step=1, value=None, key=_key("layer"), **KEPT,
        placeholder="–" if known is None else f"{known} (known)",
    )  # fmt: skip
    variant.selectbox(
        "Method", list(VARIANTS), key=_key("variant"), format_func=VARIANTS.__getitem__, **KEPT,
        help="Which key meets the new value: R-ROME the mean key throughout (stable), ROME a mix, "
        "p-ROME the bare prompt's.",
    )  # fmt: skip
    tokens.number_input(
        "Tokens counted", 1, step=10_000, key=_key("tokens"), **KEPT,
        help="For the key statistics: second moments of what the edited projection reads.",
    )  # fmt: skip
    request = current(FactEditRequest)
    state = statistics_state(request, request.layer, request.tokens, request.corpus)
    with told:
        if state:
            st.caption(f":material/functions: Key statistics: {words(state)}")
        if _from_trace(request.layer):
            st.caption(f":material/grid_on: {_NOTE.format(request.layer)}")


def _from_trace(layer: int | None) -> bool:
    arrived = st.session_state.get(_ARRIVED)
    return bool(arrived and arrived[1] and layer is not None and arrived[0] == str(layer))


def _share() -> None:
    """Show the other pages the same fact, and remember it as seen."""
    template = str(st.session_state[_key("template")])
    prompt = template.replace("{}", str(st.session_state["in.subject"]), 1).rstrip()
    if st.session_state.get("in.prompt") != prompt:
        st.session_state["in.prompt"] = prompt
    st.session_state[_SEEN] = tuple(str(st.session_state.get(key, "")) for key in _FACT)


def edit_options() -> None:
    """Draw the options that are rarely changed."""
    _settings()
    st.markdown("**What is looked at**")
    length, drift = st.columns(2)
    length.number_input(
        "Tokens of a text", 0, step=10, key=_key("generation_length"), **KEPT,
        help="Texts before and after, same seed, prompt included; 0 writes none.",
    )  # fmt: skip
    drift.number_input(
        "Drift sentences", 0, 400, step=10, key=_key("drift"), **KEPT,
        help="True sentences about other countries on which predictions are compared; 0 for none.",
    )  # fmt: skip
    st.text_area(
        "Paraphrases", key=_key("paraphrases"), height=68, placeholder="one per line", **KEPT,
        help="Facts about countries bring their own.",
    )  # fmt: skip
    st.text_area(
        "Neighbours", key=_key("neighbours"), height=68, placeholder="prompt | object", **KEPT,
        help="Other subjects whose objects shall stay, one per line.",
    )  # fmt: skip
    samples, noise, window, seed = st.columns(4)
    samples.number_input("Noise samples", 1, step=1, key=_key("samples"), **KEPT)
    noise.number_input("Noise (σ)", 0.0, step=0.5, key=_key("noise_scale"), **KEPT)
    window.number_input("Window", 1, step=1, value=None, key=_key("window"), **KEPT)
    seed.number_input("Seed", 0, step=1, key=_key("seed"), **KEPT)
    st.text_input(
        "Corpus of the key statistics", key=_key("corpus"), **KEPT,
        help="atlas: generated sentences about countries; or a text or .jsonl file on this "
        "machine, or datasets:NAME.",
    )  # fmt: skip


def _settings() -> None:
    own = st.toggle(
        "Own settings of the edit", key=_key("own"), on_change=_begin_with_known, **KEPT,
        help="Off: those known for the model.",
    )  # fmt: skip
    if not own:
        known = {n: v for n, v in known_settings(current(FactEditRequest)).items() if n != "layer"}
        told = ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in known.items())
        st.caption(words(told or "the published ones", 300))
        return
    steps, rate, clamp, decay, stop = st.columns(5)
    steps.number_input("Steps", 1, step=10, key=_key("steps"), **KEPT)
    rate.number_input("Learning rate", 0.0, step=0.1, key=_key("learning_rate"), **KEPT)
    clamp.number_input("Clamp", 0.0, step=1.0, value=None, key=_key("clamp"), **KEPT)
    decay.number_input("Decay", 0.0, step=0.1, key=_key("decay_weight"), **KEPT)
    stop.number_input("Stop at loss", 0.0, step=0.05, key=_key("stop_loss"), **KEPT)
    st.toggle(
        "The subject at the start of a text, too", key=_key("alone"), **KEPT,
        help="Where many tokenizers write it with other tokens (key_templates).",
    )  # fmt: skip


def _begin_with_known() -> None:
    """Callback: own settings begin with those known for the model."""
    if not st.session_state[_key("own")]:
        return
    known = known_settings(current(FactEditRequest))
    for name in (*OWN, "clamp"):
        if name in known:
            usual = getattr(FactEditRequest, name)
            st.session_state[_key(name)] = (
                int(known[name]) if isinstance(usual, int) else known[name]
            )
    st.session_state[_key("alone")] = bool(known.get("key_templates"))


def _key(name: str) -> str:
    return field_key(FactEditRequest, name)
