"""Text from outside as Markdown, and numbers with their sign."""

import mechlab as ml

__all__ = ["ago", "duration", "signed", "words"]


def words(text: str, longest: int = 200) -> str:
    """Return text from outside so that Markdown shows it character by character."""
    return ml.plots.show_text(text, longest=longest, form="markdown")


def signed(number: float, digits: int = 4) -> str:
    """Return a number with its sign, a minus as wide as a plus; no sign where it rounds to 0."""
    text = f"{number:+.{digits}f}"
    return text[1:] if float(text) == 0 else text.replace("-", "−")


def duration(seconds: float) -> str:
    """Write a duration as `8 s` or `3:20 min`."""
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    return f"{int(seconds // 60)}:{int(seconds % 60):02d} min"


def ago(seconds: float) -> str:
    """Write how long ago something was, e.g. `just now`, `5 min ago`, `3 days ago`."""
    for size, unit in ((86400, "day"), (3600, "hour"), (60, "min")):
        if seconds >= size:
            count = int(seconds // size)
            return f"{count} {unit}{'s' if count > 1 and unit != 'min' else ''} ago"
    return "just now"
