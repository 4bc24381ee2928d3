"""What the causal-trace page asks for."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import mechlab as ml
import prompt_files
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
        "sites", "window", "samples", "noise_scale", "corruption", "sever", "seed", "known_only",
    )  # fmt: skip
    OTHER_DEFAULTS: ClassVar[Mapping[str, Any]] = {
        "layers": None,
        "positions": "all",
        "noise_std": None,
        "reference": "countries",
        "other_subjects": None,
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
    corruption: str = "gaussian"
    sever: str = "none"
    seed: int = 0
    known_only: bool = True
    prompt_set: str = ""
    """Id of a file of facts that was read in; empty for the one fact of the fields."""

    @property
    def label(self) -> str:
        """The prompt, or what the file is called."""
        return prompt_files.name_of(self.prompt_set) if self.prompt_set else self.prompt

    def prompts(self) -> Any:
        """Return the fact to trace, or the facts of a file.

        Raises:
            PromptError: when the prompt is empty, does not contain the subject, or the file is not
                there any more.
        """
        if self.prompt_set:
            return prompt_files.facts_of(self.prompt_set)
        return ml.prompts.Fact(self.prompt, subject=self.subject, target=self.target)

    def prompts_code(self) -> str:
        """Return Python that makes the facts; a file is read again."""
        if self.prompt_set:
            return f"ml.prompts.read_facts({str(prompt_files.path_of(self.prompt_set))!r})"
        return super().prompts_code()

    def _essence(self) -> dict[str, Any]:
        held = super()._essence()
        if self.prompt_set:  # the fields then show one of many facts
            held |= {"prompt": "", "subject": "", "target": ""}
        return held

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
