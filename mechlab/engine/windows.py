"""Windows of layers that are changed together, in the convention of the published tracing code."""

__all__ = ["default_window", "window_layers"]


def default_window(n_layers: int) -> int:
    """Return the number of layers changed together by default: a fifth, at least one.

    48 layers (GPT-2 XL) give the 10 of Meng et al. 2022.
    """
    return max(1, round(n_layers / 5))


def window_layers(layer: int, window: int, n_layers: int) -> range:
    """Return the layers of a window around `layer`.

    A window of 10 around l is [l - 5, l + 4]; both ends are clipped to the model.
    """
    start = layer - window // 2
    return range(max(0, start), min(n_layers, start + window))
