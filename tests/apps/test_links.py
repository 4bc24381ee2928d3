"""Links that ask for what cannot be: each is said, and none breaks a field."""

import pytest
from streamlit.testing.v1 import AppTest

from components.selection import option_problems, range_problems
from text import lines


def _fields() -> None:
    import streamlit as st

    from components.selection import link_problems, select, warn_of_link

    link = st.query_params.to_dict()
    warn_of_link(link_problems(link, layer=4, pos=5))
    st.text(str(select(layer=4, pos=5)))


@pytest.mark.parametrize("odd", ["9" * 5000, "1e999", "٣", "1.5", "nan", "-1", "7"])
def test_a_number_that_is_none_of_the_field_is_said_and_chooses_nothing(odd: str) -> None:
    app = AppTest.from_function(_fields)
    app.query_params["pos"] = odd
    app.query_params["layer"] = "2"
    app.run()
    assert not app.exception
    assert app.text[0].value == str({"layer": 2, "pos": None})
    assert "this result has pos 0 to 4" in app.warning[0].value
    assert len(app.warning) == 1 and len(app.warning[0].value) < 500
    app.number_input(key="pos").set_value(3)
    assert app.run().text[0].value == str({"layer": 2, "pos": 3})


def test_messages_of_several_lines_stay_so_and_long_ones_keep_their_last() -> None:
    assert lines("a *b*\n  c\n\nd") == "a \\*b\\*  \nc  \nd"
    many = lines("\n".join(map(str, range(9))) + "\n" + "x" * 1000).split("  \n")
    assert many[:5] == ["0", "1", "2", "3", "…"]
    assert len(many) == 6 and 200 < len(many[5]) < 310


def test_choices_and_numbers_of_a_link_are_held_against_what_there_is() -> None:
    sorts, ends = {"sort": ("grid", "top")}, {"threshold": 0.5}
    assert option_problems({"sort": "top"}, **sorts) == range_problems({}, **ends) == []
    assert range_problems({"threshold": "0.25"}, **ends) == []
    assert option_problems({"sort": "x"}, **sorts) == ["sort 'x': it is one of grid, top"]
    for odd in ("inf", "nan", "-1", "0.6", "abc"):
        (problem,) = range_problems({"threshold": odd}, **ends)
        assert problem == f"threshold {odd!r}: it is a number from 0 to 0.500"
