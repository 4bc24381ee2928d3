"""What a trace page asks for, as one frozen value with an identity that can write its own code.

Nothing here touches Streamlit, the store or a model.
"""

import hashlib
import json
import textwrap
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import mechlab as ml

__all__ = ["MODEL_FIELDS", "OPTION_FIELDS", "OTHER_DEFAULTS", "Request"]

MODEL_FIELDS = ("device", "dtype", "weights", "revision", "checkpoint")
"""Arguments of `load_model` besides the name."""

OPTION_FIELDS = ("sites", "window", "samples", "noise_scale", "seed", "known_only")
"""Options of `causal_trace` that the page offers."""

OTHER_DEFAULTS: dict[str, Any] = {
    "layers": None,
    "positions": "all",
    "noise_std": None,
    "reference": "countries",
    "corruption": "gaussian",
    "other_subjects": None,
    "sever": "none",
    "score": "top",
}
"""Its other options with their defaults, written here because reading them would import torch."""


@dataclass(frozen=True, kw_only=True)
class Request:
    """A causal trace of one fact on one model."""

    model: str = "atlas"
    device: str = "auto"
    dtype: str = "float32"
    weights: str = "raw"
    revision: str | None = None
    checkpoint: int | None = None
    prompt: str = ""
    subject: str = ""
    target: str = ""
    sites: tuple[str, ...] = ("resid_post", "mlp_out", "attn_out")
    window: int | None = None
    samples: int = 10
    noise_scale: float = 3.0
    seed: int = 0
    known_only: bool = True
    more: str = "{}"
    """JSON of other options that differ from their defaults, kept from a result that had them."""

    @property
    def id(self) -> str:
        """Twelve hex digits that two equal requests share; the device changes no numbers."""
        content = {name: value for name, value in asdict(self).items() if name != "device"}
        content["sites"] = sorted(self.sites)
        text = json.dumps(content, sort_keys=True, ensure_ascii=False)
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    @property
    def model_name(self) -> str:
        """The name that results carry: for a folder, the last part of its path."""
        return Path(self.model).expanduser().name if _is_path(self.model) else self.model

    @property
    def load_arguments(self) -> dict[str, Any]:
        """Arguments of `load_model`, all of them: a cached model is keyed by nothing less."""
        return {"name": self.model, **{name: getattr(self, name) for name in MODEL_FIELDS}}

    @property
    def options(self) -> dict[str, Any]:
        """Options of `causal_trace`."""
        offered = {name: getattr(self, name) for name in OPTION_FIELDS}
        return {**offered, **json.loads(self.more)}

    def fact(self) -> Any:
        """Return the fact to trace.

        Raises:
            PromptError: when the prompt is empty, or does not contain the subject.
        """
        return ml.prompts.Fact(self.prompt, subject=self.subject, target=self.target)

    def differences(self, other: "Request") -> list[str]:
        """Say what differs from another request, one line each.

        The device does not count, nor the folder that a model lies in, nor the order of sites, nor
        white space around the texts.
        """
        mine, theirs = self._essence(), other._essence()
        return [f"{n}: {theirs[n]!r} → {mine[n]!r}" for n in mine if mine[n] != theirs[n]]

    def _essence(self) -> dict[str, Any]:
        content = {**asdict(self), "model": self.model_name, "sites": sorted(self.sites)}
        content |= {name: content[name].strip() for name in ("prompt", "subject", "target")}
        del content["device"]
        return content

    def code(self, run: str = "") -> str:
        """Return a script that computes this very result, or takes it from the store."""
        given = {n: v for n, v in self.load_arguments.items() if n != "name" and v is not None}
        arguments = "".join(f", {name}={value!r}" for name, value in given.items())
        options = "".join(f"    {name}={value!r},\n" for name, value in self.options.items())
        heading = f"# run {run}\n" if run else ""
        return heading + textwrap.dedent(
            """\
            import mechlab as ml

            model = ml.load_model({model!r}{arguments})
            fact = ml.prompts.Fact(
                {prompt!r},
                subject={subject!r},
                target={target!r},
            )
            trace = ml.Store().run(
                ml.causal_trace,
                model,
                fact,
            {options})
            ml.plots.layer_by_token(trace).show()
            """
        ).format(
            model=self.model,
            arguments=arguments,
            prompt=self.prompt,
            subject=self.subject,
            target=self.target,
            options=options,
        )

    def notebook(self, run: str = "") -> str:
        """Return the same as a Jupyter notebook."""
        cell = {
            "cell_type": "code",
            "execution_count": None,
            "id": "trace",
            "metadata": {},
            "outputs": [],
            "source": self.code(run),
        }
        return json.dumps(
            {"cells": [cell], "metadata": {}, "nbformat": 4, "nbformat_minor": 5}, indent=1
        )


def _is_path(name: str) -> bool:
    return name.startswith(("/", ".", "~")) or Path(name).is_dir()
