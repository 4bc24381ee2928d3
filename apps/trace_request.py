"""What the causal-trace page asks for."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import mechlab as ml
from request import Request

__all__ = ["SITES", "TraceRequest", "example_of"]

SITES = ("resid_post", "mlp_out", "attn_out", "mixer_out", "resid_mid", "resid_pre")
"""States that can be restored, in the order shown."""

_FALLBACK = ("The capital of France is", "France", "Paris")


@dataclass(frozen=True, kw_only=True)
class TraceRequest(Request):
    """A causal trace of one fact on one model."""

    PAGE: ClassVar[str] = "trace"
    METHODS: ClassVar[tuple[str, ...]] = ("causal_trace",)
    OPTIONS: ClassVar[tuple[str, ...]] = (
        "sites", "window", "samples", "noise_scale", "seed", "known_only",
    )  # fmt: skip
    OTHER_DEFAULTS: ClassVar[Mapping[str, Any]] = {
        "layers": None,
        "positions": "all",
        "noise_std": None,
        "reference": "countries",
        "corruption": "gaussian",
        "other_subjects": None,
        "sever": "none",
        "score": "top",
    }
    UNORDERED: ClassVar[tuple[str, ...]] = ("sites",)
    PLOT: ClassVar[str] = "ml.plots.layer_by_token(result).show()"

    prompt: str = ""
    subject: str = ""
    target: str = ""
    sites: tuple[str, ...] = ("resid_post", "mlp_out", "attn_out")
    window: int | None = None
    samples: int = 10
    noise_scale: float = 3.0
    seed: int = 0
    known_only: bool = True

    @property
    def label(self) -> str:
        """The prompt."""
        return self.prompt

    def prompts(self) -> Any:
        """Return the fact to trace.

        Raises:
            PromptError: when the prompt is empty, or does not contain the subject.
        """
        return ml.prompts.Fact(self.prompt, subject=self.subject, target=self.target)

    def problem(self) -> str:
        """Return why this cannot be run, in a sentence; empty when it can."""
        return super().problem() if self.sites else "Choose at least one state to restore."

    @classmethod
    def from_fields(cls, values: Mapping[str, Any]) -> Self:
        """Return the request that the fields make."""
        return cls(
            **{
                **values,
                "sites": tuple(site for site in SITES if site in values["sites"]),
                "prompt": values["prompt"].rstrip(),  # a trailing space would be its own token
                "subject": values["subject"].strip(),
                "target": values["target"].strip(),
            }
        )


def example_of(model: str) -> TraceRequest:
    """Return the fact that a shipped model's card names; for other models one about the world."""
    example: Any = None
    if model in ml.organisms.names():
        example = ml.organisms.card(model).get("example")
    if not isinstance(example, dict):
        example = dict(zip(("prompt", "subject", "target"), _FALLBACK, strict=True))
    return TraceRequest(
        model=model,
        **{name: str(example[name]) for name in ("prompt", "subject", "target")},
    )
