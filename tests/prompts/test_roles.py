"""Each position of a prompt has one role."""

import pytest

from mechlab.errors import PromptError
from mechlab.prompts import TOKEN_ROLES, role_of_positions


def test_a_long_subject_in_the_middle() -> None:
    assert role_of_positions(9, 2, 5) == [
        "before_subject",
        "before_subject",
        "first_subject",
        "middle_subject",
        "middle_subject",
        "last_subject",
        "first_subsequent",
        "further",
        "last_token",
    ]


def test_a_subject_of_one_token_and_of_two() -> None:
    assert role_of_positions(4, 1, 1)[1:3] == ["only_subject", "first_subsequent"]
    assert role_of_positions(4, 1, 2)[1:] == ["first_subject", "last_subject", "last_token"]


def test_a_subject_at_the_very_end_keeps_its_role() -> None:
    assert role_of_positions(3, 1, 2) == ["before_subject", "first_subject", "last_subject"]
    assert role_of_positions(1, 0, 0) == ["only_subject"]


def test_the_roles_are_in_reading_order() -> None:
    roles = role_of_positions(9, 2, 4)
    assert [*dict.fromkeys(roles)] == list(TOKEN_ROLES)


@pytest.mark.parametrize("span", [(-1, 0), (2, 1), (1, 3), (3, 3)])
def test_a_span_outside_the_prompt_is_refused(span: tuple[int, int]) -> None:
    with pytest.raises(PromptError, match="do not lie in a prompt of 3 tokens"):
        role_of_positions(3, *span)
