"""Text from outside as Markdown, and numbers with their sign."""

import mechlab as ml

__all__ = ["ago", "duration", "lines", "signed", "words"]


def words(text: str, longest: int = 200) -> str:
    """Return text from outside so that Markdown shows it character by character."""
    return ml.plots.show_text(text, longest=longest, form="markdown")


def lines(text: str, longest: int = 300, most: int = 6) -> str:
    """Return a message of several lines as Markdown of as many, each cut at `longest` characters.

    Long messages list every offender; their last line, which says what to do, stays.
    """
    shown = [words(line.strip(), longest) for line in text.splitlines() if line.strip()]
    kept = shown if len(shown) <= most else [*shown[: most - 2], "…", shown[-1]]
    return "  \n".join(kept)


def signed(number: float, digits: int = 4) -> str:
    """Return a number with its sign, a minus as wide as a plus; no sign where it rounds to 0."""
    text = f"{number:+.{digits}f}"
    return text[1:] if float(text) == 0 else text.replace("-", "−")


def duration(seconds: float) -> str:
    """Write a duration as `8 s`, `3:20 min`, `5 h 07 min` or `2 days 13 h`."""
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    minutes, hours = int(seconds // 60), int(seconds // 3600)
    if hours < 1:
        return f"{minutes}:{int(seconds % 60):02d} min"
    if hours < 24:
        return f"{hours} h {minutes % 60:02d} min"
    return f"{hours // 24:,} day{'s' if hours >= 48 else ''} {hours % 24} h"


def ago(seconds: float) -> str:
    """Write how long ago something was, e.g. `just now`, `5 min ago`, `3 days ago`."""
    for size, unit in ((86400, "day"), (3600, "hour"), (60, "min")):
        if seconds >= size:
            count = int(seconds // size)
            return f"{count} {unit}{'s' if count > 1 and unit != 'min' else ''} ago"
    return "just now"
