"""A button that copies the page's address; all of it happens in the browser."""

import streamlit as st

__all__ = ["copy_link"]

_JS = """
export default function ({ parentElement }) {
  const button = parentElement.querySelector("button");
  button.onclick = async () => {
    try {
      await navigator.clipboard.writeText(window.location.href);
      button.textContent = "Copied";
    } catch { window.prompt("Copy this link", window.location.href); }
    setTimeout(() => { button.textContent = "Copy link"; }, 1500);
  };
}
"""
_CSS = """
button {
  font: inherit; font-size: 0.875rem; color: var(--st-text-color); background: none;
  cursor: pointer;
  border: 1px solid var(--st-border-color); border-radius: var(--st-base-radius); padding: 2px 10px;
  white-space: nowrap;
}
button:hover, button:focus-visible {
  color: var(--st-primary-color); border-color: var(--st-primary-color);
}
"""
_HTML = (
    '<button type="button" title="This page, result and cell. A link selects; it never runs '
    'anything.">Copy link</button>'
)
_MOUNT = st.components.v2.component("mechlab.copy_link", html=_HTML, css=_CSS, js=_JS)


def copy_link() -> None:
    """Draw the button."""
    _MOUNT(key="copy_link", width="content")
