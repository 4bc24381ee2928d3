import numpy as np
import pytest

from mechlab.errors import OptionError
from mechlab.plots import color_limits
from mechlab.plots.palette import DIVERGING, SEQUENTIAL, clipped_cells, ink, rgb


def test_effects_get_limits_symmetric_about_zero() -> None:
    assert color_limits(np.array([-0.2, 0.5, np.nan]), "diverging") == (-0.5, 0.5)


def test_probabilities_start_at_zero_and_keep_a_fixed_maximum() -> None:
    assert color_limits(np.array([0.1, 0.3]), "sequential") == (0.0, 0.3)
    assert color_limits(np.array([0.1, 0.3]), "sequential", maximum=1.0) == (0.0, 1.0)


def test_several_arrays_share_one_scale() -> None:
    arrays = [np.array([[0.1]]), np.array([[-0.7, 0.2]])]
    assert color_limits(arrays, "diverging") == (-0.7, 0.7)


def test_one_outlier_does_not_wash_out_the_rest_when_clipping() -> None:
    values = np.append(np.full(999, 0.1), 50.0).astype(np.float32)
    low, high = color_limits(values, "diverging", clip="p99")
    assert high == pytest.approx(0.1)
    assert clipped_cells(values, (low, high)).sum() == 1
    assert clipped_cells(values, color_limits(values, "diverging")).sum() == 0


def test_rounding_noise_is_not_stretched_over_the_scale() -> None:
    low, high = color_limits(np.array([1e-9, -2e-9]), "diverging")
    assert high >= 1e-6
    assert low == -high
    assert color_limits(np.zeros(3), "diverging")[1] > 0


def test_nothing_computed_still_gives_a_scale() -> None:
    assert color_limits(np.full((2, 2), np.nan), "diverging") == (-1.0, 1.0)
    assert color_limits(np.array([np.inf, 0.25]), "diverging") == (-0.25, 0.25)


def test_zero_is_white_and_signs_have_their_colours() -> None:
    assert rgb(0.0, (-1, 1), "diverging") == (255, 255, 255)
    red, _, blue = rgb(0.8, (-1, 1), "diverging")
    assert red > blue
    red, _, blue = rgb(-0.8, (-1, 1), "diverging")
    assert blue > red
    assert rgb(9.0, (-1, 1), "diverging") == rgb(1.0, (-1, 1), "diverging")
    assert len(DIVERGING) % 2 == 1  # else no stop lies at 0


@pytest.mark.parametrize("kind", ["diverging", "sequential"])
def test_ink_is_readable_on_every_colour(kind: str) -> None:
    def luminance(color: tuple[int, ...]) -> float:
        parts = [c / 255 for c in color]
        linear = [p / 12.92 if p <= 0.03928 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    for value in np.linspace(-1, 1, 41):
        background = rgb(float(value), (-1, 1), kind)  # type: ignore[arg-type]
        text = (0, 0, 0) if ink(background) == "#000000" else (255, 255, 255)
        bright, dark = sorted([luminance(background), luminance(text)], reverse=True)
        assert (bright + 0.05) / (dark + 0.05) >= 4.5


def test_the_sequential_scale_darkens_steadily() -> None:
    brightness = [sum(rgb(v, (0, 1), "sequential")) for v in np.linspace(0, 1, 20)]
    assert brightness == sorted(brightness, reverse=True)
    assert SEQUENTIAL[0] == "#ffffff"


def test_wrong_choices_are_refused() -> None:
    with pytest.raises(OptionError, match="kind='rainbow'.*'diverging' or 'sequential'"):
        color_limits(np.zeros(2), "rainbow")  # type: ignore[arg-type]
    with pytest.raises(OptionError, match="maximum=0.*positive number"):
        color_limits(np.zeros(2), "sequential", maximum=0)
