"""One head: where it looks, what it writes from there, its tokens and scores, and where to go on.

The same on every page that shows heads. Patterns are fetched when a head is chosen, one forward
pass at a time through the store; nothing is drawn of heads that nobody asked for.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import streamlit as st

import head_panel_view as view
import loaded
import mechlab as ml
import runs
from components import states
from components.carry import carry, leave
from components.cell_grid import cell_grid
from components.plot_style import draw, faint, figure, ink, layout
from components.progress import follow
from components.selection import select_tokens
from head_panel_view import HeadLook, Score
from pages import page_at
from pair_request import PAIR_FIELDS
from paths_request import PathsRequest, receiver_of
from request import MODEL_FIELDS, Request
from text import signed, words

__all__ = ["add_to_set", "head_panel", "head_set", "look_or_offer", "pattern_grid"]

_UP, _DOWN, _PLAIN = "#b2182b", "#2166ac", "#4393c3"
_MOST_BARS = 28
_MOST_SCORES = 3
_SET = "head_set"
_CARRIED = ("model", *MODEL_FIELDS, *PAIR_FIELDS)


def head_panel(
    request: Request,
    layer: int,
    head: int,
    prompts: list[Any],
    *,
    key: str = "head",
    told: str = "",
    rerun: Callable[[str], None] | None = None,
    marks: Any = None,
) -> None:
    """Draw everything that is known of one head on one of the prompts.

    Target and foil of the URL are what the head's writes are split between here; the page's grid,
    `told` and what a button runs stay with the answers of the result.

    Args:
        request: the request of the page; its model is the one that is looked into.
        layer: of the head.
        head: its number in the layer.
        prompts: facts or pairs, one of which the head is shown on.
        key: tells several panels of a page apart.
        told: what the page says of this head, e.g. `DLA +1.31 ± .12`, already escaped.
        rerun: called with the head's name by "Ablate & rerun"; None leaves the button out.
        marks: cells of the pattern that get a dot, such as those that induction would read.
    """
    name = f"L{layer}H{head}"
    st.markdown(f"##### Head {name}" + (f" &nbsp; :small[{told}]" if told else ""))
    prompt = _chosen_prompt(prompts, key)
    look = None
    if prompt is not None:
        usual = view.answers_of(prompt)
        tokens = select_tokens(request, prompt.text, usual=usual)
        aim = view.aimed(prompt, tokens.target, tokens.foil)
        look = look_or_offer(request, prompt, [name], aim=aim)
    if look is not None:
        _look(look, layer, head, key, marks)
    _scores(request, look, layer, head, key)
    _buttons(request, layer, head, key, rerun)


def look_or_offer(
    request: Request, prompt: Any, heads: list[str], *, aim: Any = None
) -> HeadLook | None:
    """Return what heads do on a prompt; without the model, offer to load it and return None."""
    job = runs.loading(request)
    if job is not None and job.active:
        follow(job.id, lambda partial: None)
        return None
    if not states.no_model(request, lambda: runs.start_loading(request)):
        return None
    try:
        return view.look_at(loaded.load(request.load_arguments), prompt, heads, aim=aim)
    except ml.MechlabError as error:
        st.warning(words(str(error).splitlines()[0], 300), icon=":material/visibility_off:")
        return None


def pattern_grid(look: HeadLook, head: str, *, key: str, marks: Any = None) -> None:
    """Draw an attention pattern: rows read, columns are read; cells in `marks` get a dot."""
    grid = view.attention_view(look, head)
    if marks is not None and marks.shape == grid.shape:
        grid = replace(grid, dots=marks)
    cell_grid(grid, key=key, on_open=lambda: None)
    st.caption(
        "rows read, columns are read · white 0, dark 1"
        if grid.shape[0] > 1
        else "how the last token reads · white 0, dark 1"
    )


def head_set() -> list[str]:
    """Return the heads that were gathered so far, on whatever page."""
    return list(st.session_state.get(_SET, []))


def add_to_set(name: str) -> None:
    """Gather a head, or let it go when it is there already."""
    kept = head_set()
    st.session_state[_SET] = [h for h in kept if h != name] if name in kept else [*kept, name]


def _chosen_prompt(prompts: list[Any], key: str) -> Any | None:
    if not prompts:
        st.caption("The prompts of this result are not known: run it again to see patterns.")
        return None
    if len(prompts) == 1:
        return prompts[0]
    names = [ml.plots.show_text(prompt.text, longest=70) for prompt in prompts]
    at = st.selectbox(
        "On the prompt", range(len(prompts)), key=f"{key}.prompt", format_func=names.__getitem__,
        label_visibility="collapsed",
    )  # fmt: skip
    return prompts[at if at is not None else 0]


def _look(look: HeadLook, layer: int, head: int, key: str, marks: Any = None) -> None:
    pattern, effect = st.columns([1, 1], gap="medium")
    with pattern:
        st.markdown(":small[**Attention pattern**]")
        pattern_grid(look, f"L{layer}H{head}", key=f"{key}.pattern", marks=marks)
    with effect:
        _sources(look, layer, head, key)
    _tokens(look, f"L{layer}H{head}")
    if look.refused:
        st.caption(words(look.refused, 300))


def _sources(look: HeadLook, layer: int, head: int, key: str) -> None:
    """Draw what the head wrote at the last token by the token that it read."""
    labels, weights, effects = view.sources(look, layer, head)
    values, what = (effects, "direct effect") if effects else (weights, "attention weight")
    title = "Direct effect by source" if effects else "Attention of the last token"
    order = range(len(values))
    if len(values) > _MOST_BARS:  # the strongest, in the order of the text
        order = sorted(sorted(order, key=lambda i: -abs(values[i]))[:_MOST_BARS])
    towards = words(" − ".join(look.towards), 60)
    st.markdown(
        f":small[**Direct effect** on {towards}]" if effects else f":small[**{title}**]",
        help="What was read from each token, written at the last one: in logits of the target, or "
        "of target minus foil.",
    )
    chart = figure()
    chart.add_bar(
        x=[values[i] for i in order], y=list(range(len(order))), orientation="h",
        marker_color=[(_UP if values[i] > 0 else _DOWN) if effects else _PLAIN for i in order],
        customdata=[
            ml.plots.escape(f"{labels[i]}: {what} {values[i]:+.3f}, read {weights[i]:.2f}", "html")
            for i in order
        ],
        hovertemplate="%{customdata}<extra></extra>",
    )  # fmt: skip
    chart.update_layout(**layout(max(140, 34 + 17 * len(order))), bargap=0.25)
    chart.update_layout(margin={"l": 10, "r": 10, "t": 4, "b": 24})
    chart.update_yaxes(
        tickmode="array", tickvals=list(range(len(order))), autorange="reversed", automargin=True,
        ticktext=[ml.plots.escape(labels[i], "html") + " " for i in order], showgrid=False,
    )  # fmt: skip
    chart.update_xaxes(
        gridcolor=faint(), zerolinecolor=ink(), nticks=4, exponentformat="none",
        range=_span([values[i] for i in order]),
    )  # fmt: skip
    best = max(order, key=lambda i: abs(values[i]))
    draw(
        chart, key=f"{key}.sources",
        alt=f"{title}: strongest {labels[best]} with {values[best]:+.3f}",
    )  # fmt: skip


def _span(values: list[float]) -> list[float]:
    """Return a range from the lowest to the highest value, 0 included, no narrower than a hair."""
    low, high = min(0.0, *values), max(0.0, *values)
    room = 0.06 * max(high - low, 0.02)
    return [low - room, max(high, low + 0.02) + room]


def _tokens(look: HeadLook, name: str) -> None:
    raised, lowered = view.tokens_of(look, name)
    if not raised:
        return
    for said, found in (("raises", raised), ("lowers", lowered)):
        shown = " ".join(
            f":{'red' if said == 'raises' else 'blue'}-background[{words(t)}]"
            f" :small[:gray[{signed(v, 2)}]]"
            for t, v in found[:6]
        )
        st.markdown(f":small[**{said}**] {shown}")


def _scores(request: Request, look: HeadLook | None, layer: int, head: int, key: str) -> None:
    """Draw what detectors say: stored runs of this model, and what the pattern itself shows."""
    found: list[Score] = view.scores_of(request, layer, head)
    if look is not None and (own := view.previous_token(look, f"L{layer}H{head}")) is not None:
        found.append(own)
    known = {score.name for score in found}
    for score in found:
        share = min(max(score.value, 0.0), 1.0)
        st.progress(
            share, text=f":small[{score.name} **{score.value:.2f}** · :gray[{words(score.about)}]]"
        )
    missing = [n for n in ("retrieval", "induction") if n not in known]
    if missing and len(found) < _MOST_SCORES:
        pages = " and ".join(f"the {n} page" for n in missing)
        st.caption(f"{' and '.join(missing).capitalize()} scores: not run yet; see {pages}.")


def _buttons(
    request: Request, layer: int, head: int, key: str, rerun: Callable[[str], None] | None
) -> None:
    name, kept = f"L{layer}H{head}", head_set()
    group = loaded.heads_per_key(request.load_arguments)
    with st.container(horizontal=True, gap="small", key=f"{key}.ways"):
        if page_at("paths") is not None:
            for part in ("q", "k", "v"):
                receiver = receiver_of(layer, head, part, group)
                st.button(
                    f"Paths into {part.upper()}", key=f"{key}.into.{part}",
                    on_click=_to_paths, args=(request, {"receiver": receiver}),
                )  # fmt: skip
            st.button(
                "Paths out", key=f"{key}.out", on_click=_to_paths,
                args=(request, {"receiver": "logits"}),
            )  # fmt: skip
        if rerun is not None:
            st.button(
                "Ablate & rerun", key=f"{key}.ablate", on_click=rerun, args=(name,),
                help="Attribute the answer again with this head at zero, and compare.",
            )  # fmt: skip
        st.button(
            "Remove from set" if name in kept else "Add to set", key=f"{key}.add",
            on_click=add_to_set, args=(name,),
        )  # fmt: skip
    if kept:
        _set(request, kept, key)
    leave()


def _set(request: Request, kept: list[str], key: str) -> None:
    with st.container(horizontal=True, vertical_alignment="center", key=f"{key}.set"):
        st.markdown(f":small[set: {words(' + '.join(kept), 120)}]", width="content")
        if page_at("paths") is not None:
            st.button(
                "Paths out of the set", key=f"{key}.set_out", type="tertiary", on_click=_to_paths,
                args=(request, {"senders": "set", "nodes": "+".join(kept), "receiver": "logits"}),
            )  # fmt: skip
        st.button("Clear", key=f"{key}.clear", type="tertiary", on_click=_clear)


def _clear() -> None:
    st.session_state[_SET] = []


def _to_paths(request: Request, wanted: dict[str, str]) -> None:
    """Take the prompts of this page along to the paths page."""
    kept = {
        name: getattr(request, name)
        for name in PathsRequest.names()
        if name in _CARRIED and hasattr(request, name)
    }
    if kept.get("source") not in PathsRequest.SOURCES:
        kept.pop("source", None)  # a fact has no second prompt: the pair fields as they are
    carry(PathsRequest(**{**kept, **wanted}))
