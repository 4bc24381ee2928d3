"""The logit lens beside a trace: every layer and token of one fact, read as a next token."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

import mechlab as ml
from request import Request
from trace_request import TraceRequest

__all__ = ["Followed", "LensCell", "LensRequest", "cell_of_lens", "lens_of", "operations"]

_SITES = ("resid_pre", "resid_mid", "resid_post", "mlp_out", "attn_out", "mixer_out")


@dataclass(frozen=True, kw_only=True)
class LensRequest(Request):
    """The logit lens of one fact at one site, read for its answer or for two tokens."""

    PAGE: ClassVar[str] = "lens"
    METHODS: ClassVar[tuple[str, ...]] = ("logit_lens",)
    OPTIONS: ClassVar[tuple[str, ...]] = ("sites", "positions", "top_k")
    OTHER_DEFAULTS: ClassVar[Mapping[str, Any]] = {
        "layers": None,
        "norm": "own",
        "run": "clean",
        "interventions": [],
    }

    prompt: str = ""
    subject: str = ""
    target: str = ""
    foil: str = ""
    """A second token that is followed; empty for none."""
    sites: tuple[str, ...] = ("resid_post",)
    positions: str = "all"
    top_k: int = 10

    @property
    def label(self) -> str:
        """The prompt."""
        return self.prompt

    def prompts(self) -> Any:
        """Return the fact that is read; with a foil, a pair of the prompt with itself."""
        if self.foil:
            return ml.prompts.PromptPair(self.prompt, self.prompt, self.target, self.foil)
        return ml.prompts.Fact(self.prompt, subject=self.subject, target=self.target)


@dataclass(frozen=True)
class Followed:
    """One token in one state that is read as the final one."""

    name: str
    """`target` or `foil`."""
    token: str
    """As the model has it: the first one, if what was asked for has several."""
    rank: int
    """0 is the top."""
    probability: float
    logit: float


@dataclass(frozen=True)
class LensCell:
    """What one state says when it is read as the final one."""

    tokens: list[str]
    """The most probable next tokens, the first one first."""
    probabilities: list[float]
    """Their probabilities."""
    followed: list[Followed]
    """Target and foil, where there are any."""


_FOLLOWED = {"answer": "target", "wrong_answer": "foil"}


def lens_of(request: TraceRequest, site: str, *, target: str = "", foil: str = "") -> LensRequest:
    """Return the lens to read beside a trace of one fact.

    Args:
        request: the trace.
        site: state to read.
        target: token to follow instead of the fact's answer.
        foil: second token to follow.
    """
    names = ("model", "device", "dtype", "weights", "revision", "checkpoint")
    return LensRequest(
        **{name: getattr(request, name) for name in names},
        prompt=request.prompt,
        subject=request.subject,
        target=target or request.target,
        foil=foil,
        sites=(site if site in _SITES else "resid_post",),
    )


def cell_of_lens(lens: Any, layer: int, pos: int) -> LensCell:
    """Return one cell of a lens of one fact and one site."""
    at = lens.isel(prompt=0, site=0).sel(layer=layer).isel(pos=pos)
    keep = [bool(token) for token in at["top_token"].values]
    there = [name for name in _FOLLOWED if name in at["answer"].values]
    read = {name: at.sel(answer=name) for name in there}
    return LensCell(
        [str(t) for t, k in zip(at["top_token"].values, keep, strict=True) if k],
        [float(p) for p, k in zip(at["top_probability"].values, keep, strict=True) if k],
        [
            Followed(
                _FOLLOWED[name], str(one["answer_token"].item()), int(one["rank"]),
                float(one["probability"]), float(one["logit"]),
            )
            for name, one in read.items()
            if np.isfinite(float(one["rank"]))
        ],
    )  # fmt: skip


def operations(layers: int, tokens: int, width: int, vocabulary: int) -> float:
    """Return about how many operations reading all cells takes, the unembedding alone."""
    return 2.0 * layers * tokens * width * vocabulary
