"""`@analysis` describes a function without changing it."""

import pytest

from mechlab.errors import OptionError
from mechlab.results import Method, analysis, method_of


def test_the_function_is_returned_unchanged() -> None:
    def lens(model: str, prompts: str, *, k: int = 3) -> int:
        return k

    described = analysis(version=4, default_plot="lines", per_prompt=False)(lens)
    assert described is lens and described("", "") == 3
    assert method_of(lens) == Method("lens", lens, 4, "fact", "lines", per_prompt=False)
    assert lens.method is method_of(lens)  # type: ignore[attr-defined]


def test_a_plain_function_is_refused() -> None:
    with pytest.raises(OptionError, match="is not an analysis.*Decorate it"):
        method_of(len)


@pytest.mark.parametrize("version", [0, -1, "1", True])
def test_a_version_counts_from_one(version: object) -> None:
    with pytest.raises(OptionError, match="Allowed: integers from 1"):
        analysis(version=version)  # type: ignore[arg-type]
