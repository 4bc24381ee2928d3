"""The words of mechlab: heads are written and read in one way, axes are registered."""

import re

import pytest

from mechlab.axes import AXES, TOKEN_ROLES, Head, heads
from mechlab.errors import OptionError


def test_a_head_is_written_as_it_is_read():
    assert [str(head) for head in heads("L9H6", "L10H0")] == ["L9H6", "L10H0"]
    assert heads("L9H6") == [Head(9, 6)]


def test_heads_are_ordered_by_layer_first():
    assert sorted(heads("L10H0", "L9H11", "L9H6")) == heads("L9H6", "L9H11", "L10H0")


def test_every_name_that_is_no_head_is_listed():
    with pytest.raises(OptionError, match=re.escape("not a head: '9.6', 'L9'. Allowed: L<layer>H")):
        heads("L9H6", "9.6", "L9")


@pytest.mark.parametrize("place", [(-1, 0), (0, -1)])
def test_negative_indices_are_refused(place):
    with pytest.raises(OptionError, match="has a negative index. Allowed: 0 and up"):
        Head(*place)


def test_axes_and_roles_hold_no_doubles():
    assert {"prompt", "layer", "pos", "kv_head"} <= AXES
    assert len(set(TOKEN_ROLES)) == len(TOKEN_ROLES)
