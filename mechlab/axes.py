"""The words of mechlab: axis names, heads, and how both are written.

Layers, heads and positions are zero-based integers everywhere. Keys and values have their own axis
`kv_head`, because grouped-query models have fewer of them than query heads.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass

from mechlab.errors import OptionError

__all__ = ["AXES", "TOKEN_ROLES", "Head", "heads"]

AXES = frozenset(
    """
    prompt pos layer head kv_head site component token_role answer metric sample seed draw k alpha
    head_set outcome lag copy sender receiver source window depth length needle_pos step case list
    subject input_position output_position candidate beta_enc beta_rec gamma_ft checkpoint language
    model channel vocab prompt_kind target edit delta rank d_in d_out d_key context bin
    query key stage ablation text
    """.split()
)
"""Every dimension name a result may have. A new one is added here first."""

TOKEN_ROLES = (
    "before_subject",
    "first_subject",
    "middle_subject",
    "last_subject",
    "first_subsequent",
    "further",
    "last_token",
)
"""The coordinates of the axis `token_role`, in reading order."""

_HEAD = re.compile(r"L(\d+)H(\d+)")


@dataclass(frozen=True, order=True)
class Head:
    """One attention head, `Head(9, 6)`, printed as `L9H6`."""

    layer: int
    """Zero-based block index."""
    head: int
    """Zero-based query head within the block."""

    def __post_init__(self) -> None:
        """Refuse negative indices early.

        Raises:
            OptionError: when layer or head is negative.
        """
        if self.layer < 0 or self.head < 0:
            raise OptionError(
                f"Head({self.layer}, {self.head}) has a negative index. "
                "Allowed: 0 and up, as layers and heads count from 0. Correct it."
            )

    def __str__(self) -> str:
        """Return the head in the field's notation, `L9H6`."""
        return f"L{self.layer}H{self.head}"


def heads(*names: str) -> list[Head]:
    """Parse head names.

    Args:
        names: heads in the form `L9H6`.

    Returns:
        The heads in the order given.

    Raises:
        OptionError: when a name does not have that form; all offenders are named.
    """
    return [Head(*map(int, match.groups())) for match in _matches(names)]


def _matches(names: Iterable[str]) -> list[re.Match[str]]:
    found = {name: _HEAD.fullmatch(name) for name in names}
    if wrong := [name for name, match in found.items() if match is None]:
        raise OptionError(
            f"not a head: {', '.join(map(repr, wrong))}. "
            "Allowed: L<layer>H<head>, e.g. 'L9H6'. Write it like this."
        )
    return [match for match in found.values() if match is not None]
