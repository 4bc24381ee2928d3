"""The dashboard's frame: navigation, the bar on top, and whichever page is open.

Started by `mechlab app`, or `streamlit run apps/main.py`.
"""

from pathlib import Path

import streamlit as st

from components.bar import shared_bar
from components.picker import current_request, prepare

# Streamlit leaves six rems free above the first line, a quarter of a laptop's screen with the rest.
_STYLE = """<style>
  .stMainBlockContainer { padding: 2.75rem 2.5rem 3rem; }
</style>"""


def main() -> None:
    """Draw the page that is open, and the shared bar above it."""
    st.set_page_config(
        page_title="mechlab", page_icon=str(Path(__file__).with_name("icon.png")), layout="wide",
        initial_sidebar_state=200,
    )  # fmt: skip
    pages = {
        "Explore": [
            st.Page(
                "views/tracing.py", title="Causal trace", url_path="trace",
                icon=":material/grid_on:", default=True,
            )
        ],
        "Store": [
            st.Page(
                "views/setup.py", title="Setup", url_path="setup", icon=":material/tune:"
            )
        ],
    }  # fmt: skip
    page = st.navigation(pages)
    st.html(_STYLE)
    prepare()
    bar = st.container()
    page.run()
    with bar:  # drawn last: it names the run that the page has settled on
        shared_bar(current_request())


main()
