"""The dashboard's frame: navigation, the bar on top, and whichever page is open.

Started by `mechlab app`, or `streamlit run apps/main.py`.
"""

from pathlib import Path

import streamlit as st

import warm
from components.bar import shared_bar
from components.go import arrive_selected
from components.picker import model_request, prepare
from pages import PAGES
from trace_request import example_of

# Streamlit leaves six rems free above the first line, a quarter of a laptop's screen with the rest.
_STYLE = """<style>
  .stMainBlockContainer { padding: 2.75rem 2.5rem 3rem; }
  .st-key-bar { min-height: 2.4rem; } /* drawn last: what is below must not move */
</style>"""


def main() -> None:
    """Draw the page that is open, and the shared bar above it."""
    warm.wait()
    st.set_page_config(
        page_title="mechlab", page_icon=str(Path(__file__).with_name("icon.png")), layout="wide",
        initial_sidebar_state=200,
    )  # fmt: skip
    sections: dict[str, list[st.Page]] = {}
    for number, page in enumerate(PAGES):
        entry = st.Page(
            page.file, title=page.title, url_path=page.address, icon=f":material/{page.icon}:",
            default=number == 0,
        )  # fmt: skip
        sections.setdefault(page.section, []).append(entry)
    page = st.navigation(sections)
    st.html(_STYLE)
    if "in.model" not in st.session_state:
        prepare(example_of("atlas"))
    arrive_selected()
    bar = st.container(key="bar")
    page.run()
    with bar:  # drawn last: it names what the page has settled on
        shared_bar(model_request())
    warm.results()


main()
