"""Fields of prompts that are compared: a pair, a fact, a built-in set, or a file."""

import streamlit as st

import mechlab as ml
from components.picker import KEPT, fact_fields, field_key
from pair_request import SETS, PairRequest, file_rows
from text import lines

__all__ = ["pair_fields"]

_SOURCES = {
    "pair": "one pair",
    "fact": "the fact of the trace",
    "conflicts": "conflicts (set)",
    "ioi": "indirect objects (set)",
    "rows": "a file, or a result's",
}
_FORMS = ("repeat", "paraphrase", "reported", "distractor", "question", "redefine")


def pair_fields(kind: type[PairRequest]) -> None:
    """Draw where the prompts come from, and the fields of that."""
    choice, rest = st.columns([1.15, 6], gap="small")
    source = choice.selectbox(
        "Prompts", kind.SOURCES, key=field_key(kind, "source"), format_func=_SOURCES.__getitem__,
        help="Pairs differ in what decides the answer. Built-in sets are made to align on the "
        "model's own tokens.", **KEPT,
    )  # fmt: skip
    with rest:
        if source == "pair":
            _pair()
        elif source == "fact":
            fact_fields()
        elif source in SETS:
            _set(kind, source)
        else:
            _file(kind)


def _pair() -> None:
    clean, corrupted, answer, wrong = st.columns([3, 3, 1.3, 1.3], gap="small")
    clean.text_input("Clean prompt", key="in.clean", **KEPT)
    corrupted.text_input(
        "Corrupted prompt", key="in.corrupted", help="As many tokens as the clean one.", **KEPT
    )
    answer.text_input("Answer", key="in.answer", help="Right after the clean prompt.", **KEPT)
    wrong.text_input(
        "Wrong answer", key="in.wrong_answer", help="Right after the corrupted prompt.", **KEPT
    )


def _set(kind: type[PairRequest], source: str) -> None:
    count, seed, form, told = st.columns([1, 1, 1.3, 4], gap="small", vertical_alignment="bottom")
    count.number_input("Pairs", 1, 500, key=field_key(kind, "count"), **KEPT)
    seed.number_input("Seed", 0, step=1, key=field_key(kind, "prompt_seed"), **KEPT)
    if source == "conflicts":
        form.selectbox("Wording", _FORMS, key=field_key(kind, "form"), **KEPT)
        told.caption(
            "The context states a false capital, the model remembers the true one. + = the context "
            "wins, − = the memory."
        )
    else:
        told.caption(
            "Once Mary and John …, John gave a book to → Mary; corrupted prompts have other names."
        )


def _file(kind: type[PairRequest]) -> None:
    key = field_key(kind, "rows")
    place, told = st.columns([2, 3], gap="small", vertical_alignment="center")
    given = place.file_uploader(
        "File of prompts", ("csv", "json", "jsonl"), key=f"{key}.file",
        help="Pairs: clean, corrupted, answer, wrong_answer. Facts: prompt, subject, target.",
    )  # fmt: skip
    if given is not None:
        try:
            st.session_state[key] = file_rows(given.name, given.getvalue())
        except ml.MechlabError as error:
            told.error(lines(str(error)), icon=":material/error:")
            return
    st.session_state.setdefault(key, "")
    if st.session_state[key]:
        count = len(kind(source="rows", rows=st.session_state[key]).prompts())
        told.caption(f"{count} prompts, kept as they are with the result.")
