"""What is searched when CMR is fitted: which parameters, where, and how long."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mechlab.errors import OptionError
from mechlab.methods.recall.model import CMR, LIMITS, PARAMETERS

__all__ = ["BOUNDS", "FREE", "Search"]

Array = np.ndarray[Any, Any]

BOUNDS: dict[str, tuple[float, float]] = {
    **{name: limits for name, limits in LIMITS.items() if limits[1] == 1},
    "phi_s": (0.0, 10.0),
    "phi_d": (0.0, 5.0),
    "temperature": (0.01, 2.0),
    "power": (0.1, 20.0),
    "theta_s": (1e-5, 0.5),
    "theta_r": (0.0, 1.0),
}
"""Where each parameter is searched by default."""
FREE = ("beta_enc", "beta_rec", "beta_start", "gamma_fc", "phi_s", "theta_s", "theta_r")
"""What is fitted by default."""


@dataclass(frozen=True)
class Search:
    """What is fitted, and how; checked when made.

    Attributes:
        model: rules of the model, and the values of what is not free.
        free: names of the parameters that are fitted.
        own_bounds: of some of them, in place of the default.
        by: `pooled` or `subject`.
        population: settings per free parameter and generation.
        generations: at most.
        seed: of the search.
    """

    model: CMR
    free: Sequence[str]
    own_bounds: Mapping[str, tuple[float, float]]
    by: str
    population: int
    generations: int
    seed: int

    def __post_init__(self) -> None:
        """Check everything.

        Raises:
            OptionError: naming all options that are wrong.
        """
        if problems := [*self._wrong_names(), *self._wrong_bounds(), *self._wrong_numbers()]:
            raise OptionError(
                f"fit_recalls: {'; '.join(problems)}.\n  Allowed: parameters "
                f"{', '.join(PARAMETERS)}.\n  Correct the options."
            )

    @property
    def bounds(self) -> Array:
        """Low and high of each free parameter, `[parameter, 2]`."""
        return np.array([self.own_bounds.get(name, BOUNDS[name]) for name in self.free], float)

    def values(self, settings: Array) -> dict[str, Array]:
        """Return every parameter, `[setting]`, of the free ones `[parameter, setting]`."""
        fixed = {name: np.repeat(v, settings.shape[1]) for name, v in self.model.values.items()}
        return {**fixed, **dict(zip(self.free, settings, strict=True))}

    def _wrong_names(self) -> Iterator[str]:
        if unknown := [n for n in [*self.free, *self.own_bounds] if n not in PARAMETERS]:
            yield f"no parameters: {', '.join(map(repr, unknown))}"
        if not self.free or len(set(self.free)) < len(self.free):
            yield f"free={list(self.free)} (at least one, none twice)"
        unused = {"softmax": {"power"}, "power": {"temperature"}}[self.model.choice]
        unused |= {"theta_s", "theta_r"} if self.model.stopping == "none" else set()
        if idle := sorted(unused & set(self.free)):
            rules = f"choice={self.model.choice!r}, stopping={self.model.stopping!r}"
            yield f"free, but not used with {rules}: {', '.join(idle)}"

    def _wrong_bounds(self) -> Iterator[str]:
        if idle := sorted(set(self.own_bounds) - set(self.free)):
            yield f"bounds of what is not free: {', '.join(idle)}"
        for name, (low, high) in self.own_bounds.items():
            least, most = LIMITS.get(name, (low, high))
            positive = low > 0 or name not in ("temperature", "power")
            if not (least <= low < high <= most and np.isfinite(high) and positive):
                yield f"bounds of {name}: {low} to {high} (rising, within {least} to {most})"

    def _wrong_numbers(self) -> Iterator[str]:
        if self.by not in ("pooled", "subject"):
            yield f"by={self.by!r} ('pooled' or 'subject')"
        for name, least in (("population", 1), ("generations", 1), ("seed", 0)):
            value = getattr(self, name)
            if type(value) is not int or value < least:
                yield f"{name}={value!r} (from {least})"
