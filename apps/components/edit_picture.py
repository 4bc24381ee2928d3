"""An edit's result: what came of it, both traces on one scale, texts, the change itself."""

from collections.abc import Mapping
from typing import Any

import streamlit as st

import edit_drift
import edit_view
import mechlab as ml
import runs
from compare_view import compare
from components.active_edits import force_button
from components.compare import comparison
from components.exports import export_menu, table_twin
from components.go import go
from components.plot_style import draw
from edit_request import FactEditRequest
from edit_traces import trace_pair, trace_problem
from text import words
from trace_view import TITLES

__all__ = ["picture"]


@st.fragment
def picture(story: Any, run: str, request: FactEditRequest, link: Mapping[str, str]) -> None:
    """Draw a stored edit.

    Args:
        story: the result.
        run: its run id.
        request: what it answers, for the code export.
        link: the page's parameters before any field was drawn.
    """
    case = _case_field(story)
    st.markdown(f"##### {words(edit_view.short(story, case))}")
    left, right = st.columns([1.1, 1], gap="medium")
    with left:
        _shares(story, case)
        _drift_and_fluency(story, run, case)
    with right:
        _objects(story, case)
        _change(story, case)
    sites, before, after = trace_pair(story, case)
    _traces(story, case, sites, before, after)
    _texts(story, case)
    with st.container(horizontal=True, vertical_alignment="center", key="menus"):
        force_button(run)
        export_menu(story, [*before, *after], request, run)
        go("trace", "Trace this prompt", key="to_trace")
    table_twin([*before, *after])
    _layers(story)


def _case_field(story: Any) -> int:
    labels = [str(label) for label in story["case"].values]
    if len(labels) == 1:
        return 0
    st.caption(f"This result holds {len(labels)} edits; the fields and the code are of the first.")
    chosen: int = st.selectbox(
        "Edit", range(len(labels)), key="edit_case",
        format_func=lambda n: ml.plots.show_text(labels[n], longest=100),
    )  # fmt: skip
    return min(chosen, len(labels) - 1)


def _shares(story: Any, case: int) -> None:
    rows = [
        {
            "what comes out right": f"{one.name} :gray[({one.count})]",
            "before": _with_ends(one.before),
            "after": _with_ends(one.after) + (" ⚠" if one.warns else ""),
        }
        for one in edit_view.shares(story, case)
    ]
    st.table(
        rows, border="horizontal", hide_index=True,
        alt="Share of prompts whose right object is the likelier one, before and after the edit",
    )  # fmt: skip
    st.caption(
        "Right is the new object after the edited prompt, its paraphrases, languages and "
        "consequences, and the old object where it says kept. In brackets 95 % Wilson intervals "
        "over the prompts of this one edit."
    )


def _with_ends(share: tuple[float, float, float]) -> str:
    middle, low, high = (f"{100 * one:.0f}" for one in share)
    return f"**{middle} %** :gray[({low} to {high})]"


def _drift_and_fluency(story: Any, run: str, case: int) -> None:
    told = []
    record = runs.entry(run)
    sentences = st.session_state.get("in.edit.drift", 0)
    drift = edit_drift.told(story, record.key, sentences) if record and sentences else None
    if drift is not None:
        mean, low, high, count = drift
        told.append(
            f"**drift** {mean:.4f} nats (95 % {low:.4f} to {high:.4f}) on {count} true sentences "
            "about other countries"
        )
    elif sentences:
        told.append("**drift** not measured on so many sentences; Run again measures it")
    entropy = story[["summary_before", "summary_mean"]].sel(metric="generation_entropy")
    if not bool(entropy["summary_mean"].isnull()):
        old, new = (float(entropy[f"summary_{name}"]) for name in ("before", "mean"))
        told.append(f"**fluency** {old:.2f} → {new:.2f} bits of n-gram entropy")
    if told:
        st.markdown(" · ".join(told))


def _objects(story: Any, case: int) -> None:
    for place, (name, before, after) in zip(
        st.columns(2), edit_view.probabilities(story, case), strict=False
    ):
        with place:
            st.metric(
                f"p({words(name, 30)})", f"{after:.3f}", f"{after - before:+.3f} from "
                f"{before:.3f}", delta_color="off",
                help="After the edited prompt; per token in the geometric mean.",
            )  # fmt: skip


def _change(story: Any, case: int) -> None:
    st.table(
        [
            {
                "the change": words(fact.name),
                "": f"**{words(fact.value)}**",
                "what it is": f":small[:gray[{words(fact.meaning)}]]",
            }
            for fact in edit_view.change_facts(story, case)
        ],
        border="horizontal", hide_index=True, alt="What was added to the weights",
    )  # fmt: skip


def _traces(story: Any, case: int, sites: list[str], before: list[Any], after: list[Any]) -> None:
    st.markdown("##### Causal trace before and after")
    if why := trace_problem(story, case):
        st.warning(f"The baseline is weak: {words(why)}.", icon=":material/report:")
    site = st.segmented_control(
        "State restored", sites, key="edit_site", default=sites[0], label_visibility="collapsed",
        format_func=lambda name: TITLES.get(name, name),
    )  # fmt: skip
    place = sites.index(site) if site in sites else 0
    (one,) = compare([[before[place]], [after[place]]])
    comparison(one, ["A · before", "B · after"], key="retrace")
    old, new = (
        words(ml.plots.show_token(str(story["scored_token"].isel(case=case).sel(stage=s).item())))
        for s in ("before", "after")
    )
    view = before[place]
    st.caption(
        f"Indirect effect (probability), mean of {view.n} noise samples, {words(view.note)}. A "
        f"follows the probability of {old}; B that of {new}, with the edit in force."
    )


def _texts(story: Any, case: int) -> None:
    texts = edit_view.texts_of(story, case)
    if not texts:
        return
    st.markdown("##### Texts before and after, same seed")
    st.table(
        [{"before": words(a, 400), "after": words(b, 400)} for a, b in texts],
        border="horizontal", hide_index=True, alt="Texts that the model writes",
    )  # fmt: skip


def _layers(story: Any) -> None:
    """Draw the sweep where a result holds edits of several layers."""
    if int(story["norm"].notnull().any("case").sum()) > 1:
        st.markdown("##### The same edit in other layers")
        draw(
            ml.plots.layer_sweep(story), key="sweep",
            alt="Successes of the edit in each layer, above the tracing effect of each layer",
        )  # fmt: skip
