"""What the induction page asks for: random tokens read again, by three methods at once."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self

from drawn_request import SEEDS, DrawnRequest, asked_with, set_name

__all__ = ["PARTS", "InductionRequest", "example_of", "request_of"]

PARTS = ("induction_scores", "attention_by_lag", "copy_loss")
"""Methods that one run of the page carries out, all on the same lists."""

_ABLATED = {"ablate": None, "ablation": "zero", "reference": None, "average": "over_positions"}
_OTHERS: dict[str, dict[str, Any]] = {
    "induction_scores": {"edge": "include", **_ABLATED},
    "attention_by_lag": {
        "heads": None, "source": "scores", "max_lag": 5, "near": 2, "far": 4, "baseline": None,
        "confidence": 0.95, "resamples": 2000, "seed": 0, **_ABLATED,
    },
    "copy_loss": {"copies": None, "first_token": True, **_ABLATED},
}  # fmt: skip
_PLOTS = {
    "induction_scores": 'ml.plots.head_grid(result, value="prefix_matching").show()',
    "attention_by_lag": (
        "fit = ml.fit_cmr(result.curve)\nprint(fit[['distance', 'peak_lag', 'asymmetry']])"
    ),
    "copy_loss": "print(result.loss_by_position)",
}
_LENGTHS = (50, 100, 25, 20, 10, 30, 40, 60, 64, 80, 120)


@dataclass(frozen=True, kw_only=True)
class InductionRequest(DrawnRequest):
    """How heads read a list of random tokens that comes again."""

    PAGE: ClassVar[str] = "induction"
    METHODS: ClassVar[tuple[str, ...]] = PARTS
    MAKER: ClassVar[str] = "repeated_tokens"

    length: int = 50
    """Tokens of one copy."""
    copies: int = 2
    count: int = 10
    """How many lists."""
    part: str = PARTS[0]
    """The method whose result is asked for; a run carries out all of them."""

    @property
    def method(self) -> str:
        """The part that is asked for."""
        return self.part

    @property
    def OTHER_DEFAULTS(self) -> Mapping[str, Any]:  # type: ignore[override]  # noqa: N802
        """Options of the part, none of which the page offers, with their defaults."""
        return _OTHERS[self.part]

    @property
    def PLOT(self) -> str:  # type: ignore[override]  # noqa: N802
        """Last lines of the code."""
        return _PLOTS[self.part]

    @property
    def settings(self) -> dict[str, Any]:
        """Arguments of `ml.prompts.repeated_tokens`."""
        return {
            "count": self.count, "length": self.length, "copies": self.copies, "seed": self.seed,
        }  # fmt: skip

    @property
    def label(self) -> str:
        """The lists in a few words."""
        if self.other_prompts:
            return "lists made in Python"
        return f"{self.count} lists of {self.length} random tokens × {self.copies}"

    def beside(self, part: str) -> Self:
        """Return the same of another part."""
        return replace(self, part=part, more="{}" if part != self.part else self.more)

    def compute(self, model: Any, progress: Any, *, recompute: bool) -> str:
        """Run all parts, or take them from the store; return the key of the one asked for."""
        keys = {}
        for part in PARTS:
            one = self.beside(part)
            keys[part] = super(InductionRequest, one).compute(model, progress, recompute=recompute)
        return str(keys[self.part])


def example_of(model: str) -> InductionRequest:
    """Return lists that every shipped model copies."""
    return InductionRequest(model=model)


def request_of(result: Any, model: str) -> InductionRequest:
    """Return the request that a stored result answers; `model` is what to load."""
    request = InductionRequest(model=model, part=str(result.attrs["method"]))
    return asked_with(request, result, _candidates(result, set_name(result)))


def _candidates(result: Any, name: str) -> Iterator[dict[str, Any]]:
    count, told = result.sizes["prompt"], re.fullmatch(r"(\d+) tokens x (\d+)", name)
    if told is not None:
        shapes = [(int(told[1]), int(told[2]))]
    elif "input_position" in result.sizes:
        shapes = [(result.sizes["input_position"], n) for n in (2, 3, 4)]
    else:
        shapes = [(length, n) for n in (2, 4, 3) for length in _LENGTHS]
    for seed in SEEDS if told is not None else SEEDS[:2]:
        for length, copies in shapes:
            yield {"count": count, "length": length, "copies": copies, "seed": seed}
