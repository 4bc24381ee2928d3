"""Fields that choose a model and prompts; their values live in the session, not in the URL.

Every field keeps its value across pages: model and prompt fields are shared by all of them, options
belong to one page each.
"""

from pathlib import Path
from typing import Any, TypeVar

import streamlit as st

import mechlab as ml
from request import MODEL_FIELDS, SHARED_FIELDS, Request
from versions import steps_of

__all__ = [
    "KEPT", "adopt", "cached_models", "checkpoint_field", "current", "fact_fields", "field_key",
    "model_fields", "model_request", "prepare",
]  # fmt: skip

R = TypeVar("R", bound=Request)

KEPT: dict[str, Any] = {"persist_state": "session"}
"""Give this to every input field, so that its value survives a change of page."""


def field_key(kind: type[Request], name: str) -> str:
    """Return the session key of a request's field: `in.prompt`, `in.trace.samples`."""
    return f"in.{name}" if name in SHARED_FIELDS else f"in.{kind.PAGE}.{name}"


def prepare(first: Request) -> None:
    """Put first values into fields that have none, before any is drawn."""
    _fill(first, only_missing=True)


def adopt(request: Request) -> None:
    """Fill every field from a request; only before the fields are drawn, or in a callback."""
    _fill(request, only_missing=False)


def current(kind: type[R]) -> R:
    """Return the request that a page's fields make now."""
    values = {name: st.session_state[field_key(kind, name)] for name in kind.names()}
    return kind.from_fields({n: tuple(v) if isinstance(v, list) else v for n, v in values.items()})


def fact_fields(*, stacked: bool = False) -> None:
    """Draw the three fields of a fact, in one row or, `stacked`, the prompt above the others."""
    if stacked:
        prompt, (subject, target) = st.container(), st.columns(2)
    else:
        prompt, subject, target = st.columns([5, 2, 2])
    prompt.text_input(
        "Prompt", key="in.prompt", help="Text that stops where the answer would come.", **KEPT
    )
    subject.text_input(
        "Subject", key="in.subject", help="The words in the prompt that get noised.", **KEPT
    )
    target.text_input(
        "Answer", key="in.target", help="What the model should say next; checked first.", **KEPT
    )


def model_fields() -> None:
    """Draw the choice of a model: the shipped ones first, then what lies in the hub's cache."""
    names = list(dict.fromkeys([*ml.organisms.names(), *cached_models(), _chosen_model()]))
    st.selectbox(
        "Model", names, key="in.model", accept_new_options=True,
        help="A shipped model, one from the local cache, a folder, or a hub name.", **KEPT,
    )  # fmt: skip
    dtype, device = st.columns(2)
    dtype.selectbox("Precision", ("float32", "bfloat16", "float16"), key="in.dtype", **KEPT)
    device.text_input("Device", key="in.device", help="auto, cpu, cuda, cuda:1, mps", **KEPT)
    checkpoint_field()


def checkpoint_field() -> None:
    """Draw the choice of a training step, for a model that was saved at several.

    A step that the chosen model does not have, left over from another one, is let go.
    """
    steps = steps_of(_chosen_model())
    if st.session_state.get("in.checkpoint") not in (None, *steps):
        st.session_state["in.checkpoint"] = None
    if steps:
        st.selectbox(
            "Checkpoint", steps, index=None, key="in.checkpoint", format_func="step {:,}".format,
            placeholder="the finished model",
            help="The model as it was at a step of its training, on all pages.", **KEPT,
        )  # fmt: skip


def cached_models() -> list[str]:
    """Return the hub models that are on this machine with safetensors weights."""
    from huggingface_hub import constants

    folders = sorted(Path(constants.HF_HUB_CACHE).glob("models--*"))
    return [
        folder.name.removeprefix("models--").replace("--", "/")
        for folder in folders
        if any(folder.glob("snapshots/*/*.safetensors"))
    ]


def model_request() -> Request:
    """Return a bare request with the model that the fields name; it has no prompts."""
    values = {name: st.session_state[f"in.{name}"] for name in ("model", *MODEL_FIELDS)}
    return Request(**values)


def _chosen_model() -> str:
    return str(st.session_state["in.model"])


def _fill(request: Request, *, only_missing: bool) -> None:
    for name in request.names():
        key, value = field_key(type(request), name), getattr(request, name)
        if not (only_missing and key in st.session_state):
            st.session_state[key] = list(value) if isinstance(value, tuple) else value
