"""Copying, recall and in-context learning of a model without sets of heads, set by set."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import xarray as xr

from mechlab.methods import copy_loss, icl_score, output_crp
from mechlab.progress import Progress, ProgressCallback
from mechlab.prompts import PromptSet
from mechlab.workflows.head_draws import ControlledSet

if TYPE_CHECKING:
    from mechlab.models import Model

__all__ = ["AblatedRecall", "Kind"]

Kind = Literal["zero", "mean", "pattern_preserving"]
_UNITS = {"recall_next": "probability", "recall_next_share": "share of the probability of the list"}
_SCORES = {"icl_score": "score", "loss_hi": "loss_hi", "loss_lo": "loss_lo"}


@dataclass
class AblatedRecall:
    """Runs the measures of memory with every set of heads; counts prompts over all of them."""

    model: "Model"
    sets: Sequence[ControlledSet]
    lists: PromptSet[Any]
    texts: PromptSet[Any] | None
    reference: PromptSet[Any] | None
    max_batch: int | None = None
    progress: ProgressCallback | None = None
    done: int = 0
    total: int = 0

    def of_kinds(self, kinds: Sequence[Kind], **icl: Any) -> xr.Dataset:
        """Return all values, `[prompt or text, ablation, head_set]`, for these kinds of ablation.

        Args:
            kinds: how heads are ablated.
            icl: options of `icl_score`.
        """
        each = 2 * len(self.lists) + (0 if self.texts is None else len(self.texts))
        self.total = each * (1 + len(self.sets)) * len(kinds)
        # Texts come first: what they do not fit is refused before the longer part.
        parts = [self._scores(kind, icl).merge(self._lists(kind)) for kind in kinds]
        axis = xr.Variable("ablation", list(kinds))
        joined = xr.concat(parts, axis, data_vars="all", coords="minimal", compat="override")
        return joined.transpose(..., "ablation", "head_set")

    def _lists(self, kind: Kind) -> xr.Dataset:
        loss = self._run(copy_loss, self.lists, kind).loss
        crp = self._run(output_crp, self.lists, kind, max_lag=1).sel(lag=1)
        return _plain(
            {
                "copy_loss": loss.isel(copy=slice(1, None)).mean("copy"),
                "first_copy_loss": loss.isel(copy=0),
                "recall_next": crp.probability,
                "recall_next_share": crp.share,
            }
        )

    def _scores(self, kind: Kind, icl: dict[str, Any]) -> xr.Dataset:
        """Return scores and losses, windowed where that was asked for; NaN without texts."""
        if self.texts is None:
            nothing = xr.DataArray(
                np.full((1, 1 + len(self.sets)), np.nan), dims=("text", "head_set")
            )
            return _plain(dict.fromkeys(_SCORES, nothing))
        found = self._run(icl_score, self.texts, kind, **icl)
        ending = "" if icl["window"] is None else "_windowed"
        return _plain(
            {ours: found[f"{name}{ending}"].rename(prompt="text") for ours, name in _SCORES.items()}
        )

    def _run(
        self, method: Callable[..., xr.Dataset], prompts: PromptSet[Any], kind: Kind, **options: Any
    ) -> xr.Dataset:
        before = self.done

        def report(one: Progress) -> None:
            self.done = before + one.done
            if self.progress is not None:
                self.progress(Progress(self.done, self.total, "prompts"))

        return method(
            self.model,
            prompts,
            ablate={one.name: one.heads for one in self.sets},
            ablation=kind,
            reference=self.reference if kind == "mean" else None,
            max_batch=self.max_batch,
            progress=report,
            **options,
        )


def _plain(found: dict[str, xr.DataArray]) -> xr.Dataset:
    """Return bare variables with units."""
    return xr.Dataset(
        {
            name: (one.dims, one.values, {"units": _UNITS.get(name, "nats")})
            for name, one in found.items()
        }
    )
