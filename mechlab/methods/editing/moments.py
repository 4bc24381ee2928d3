"""Statistics of keys: the uncentred second moment C = E[k k^T] of a projection's input."""

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from mechlab.canonical import digest
from mechlab.errors import OptionError, StoreError
from mechlab.methods.editing.edits import unedited_fingerprint
from mechlab.methods.editing.files import read_dataset, write_dataset

if TYPE_CHECKING:
    from mechlab.models import Model

__all__ = ["KeyStatistics", "RankDeficientWarning", "chosen_ridge"]

_KIND = "key statistics"
_RIDGE = 1e-3
"""Share of the mean eigenvalue that is added where a moment has no inverse."""


class RankDeficientWarning(UserWarning):
    """Key statistics have no usable inverse, and a ridge was added."""


@dataclass(frozen=True, eq=False)
class KeyStatistics:
    """Second moments of the keys of one or more layers of one model, over one corpus."""

    layers: tuple[int, ...]
    """Zero-based blocks."""
    site: str
    """The projection whose input was read."""
    moments: np.ndarray[Any, np.dtype[np.float64]]
    """Mean of k k^T over tokens, without ridge, float64 `[layer, d_in, d_in]`."""
    tokens: int
    """Tokens that were counted."""
    fingerprint: str
    """Of the model, without edits."""
    made_on: tuple[str, ...] = ()
    """Digests of the edits in force when the tokens were counted."""
    corpus: str = ""
    """Name of the corpus."""
    corpus_digest: str = ""
    """Sha256 of the token ids that were counted, in order."""
    dtype: str = "float32"
    """Precision of the products; their sums are float64."""
    ridge: tuple[float, ...] = ()
    """Per layer what is added to the diagonal, in units of the moment; 0 where not needed."""
    about: Mapping[str, Any] = field(default_factory=dict)
    """Provenance, flat text and numbers."""

    def __post_init__(self) -> None:
        """Keep a read-only copy of the moments.

        Raises:
            OptionError: when shapes do not fit, or numbers are not finite.
        """
        copy = np.array(self.moments, dtype=np.float64)
        copy.setflags(write=False)
        object.__setattr__(self, "moments", copy)
        object.__setattr__(self, "ridge", tuple(self.ridge) or (0.0,) * len(self.layers))
        square = copy.ndim == 3 and copy.shape[1] == copy.shape[2]
        if not square or len(copy) != len(self.layers) or len(self.ridge) != len(self.layers):
            raise OptionError(
                f"KeyStatistics: moments of shape {copy.shape} and {len(self.ridge)} ridges for "
                f"{len(self.layers)} layers. Allowed: [layer, d_in, d_in]. Give one per layer."
            )
        if not np.isfinite(copy).all():
            raise OptionError(
                "KeyStatistics: the moments hold numbers that are not finite. Allowed: finite "
                "numbers. Count the tokens anew, in float32 or float64."
            )

    def moment(self, layer: int) -> Tensor:
        """Return C of a layer with its ridge, float64 `[d_in, d_in]`.

        Raises:
            OptionError: when the layer was not counted.
        """
        if layer not in self.layers:
            raise OptionError(
                f"layer={layer}: these key statistics are of layers {list(self.layers)}. "
                "Allowed: one of these. Count that layer with key_statistics(model, layer=...)."
            )
        index = self.layers.index(layer)
        moment = torch.tensor(self.moments[index])
        return moment + self.ridge[index] * torch.eye(len(moment), dtype=torch.float64)

    @cached_property
    def condition(self) -> tuple[float, ...]:
        """Condition number of C with its ridge, per layer."""
        found = []
        for layer in self.layers:
            values = torch.linalg.eigvalsh(self.moment(layer))
            found.append(float(values[-1] / values[0]) if float(values[0]) > 0 else float("inf"))
        return tuple(found)

    @cached_property
    def digest(self) -> str:
        """Sha256 (64 hex digits) of moments, ridge, layers and site."""
        contents = [list(self.layers), self.site, self.moments, list(self.ridge)]
        return digest(contents)

    def to_json(self) -> str:
        """Return the digest: as an option of a run, statistics are keyed by their contents."""
        return self.digest

    def check(self, model: "Model", layers: tuple[int, ...], site: str) -> None:
        """Refuse to serve another model, layer or projection.

        Raises:
            OptionError: saying what does not fit.
        """
        problems = []
        if self.fingerprint != unedited_fingerprint(model):
            problems.append(
                f"they are of the model {self.fingerprint[:12]}, not of {model.name} "
                f"({unedited_fingerprint(model)[:12]})"
            )
        if self.made_on != model.edits[: len(self.made_on)]:
            problems.append(f"{len(self.made_on)} edits were in force that are not now")
        if missing := [layer for layer in layers if layer not in self.layers]:
            problems.append(f"they are of layers {list(self.layers)}, not of {missing}")
        if site != self.site:
            problems.append(f"they are of {self.site}, not of {site}")
        if problems:
            raise OptionError(
                f"these key statistics cannot be used: {'; '.join(problems)}. Allowed: statistics "
                "of this model, layer and projection. Make them with key_statistics(model, "
                "layer=...)."
            )

    def to_dataset(self) -> xr.Dataset:
        """Return the statistics as a Dataset: `moment` (layer, d_in, d_key), `ridge` (layer)."""
        attrs = {
            **self.about,
            "key_site": self.site,
            "key_tokens": self.tokens,
            "key_fingerprint": self.fingerprint,
            "key_made_on": ",".join(self.made_on),
            "key_corpus": self.corpus,
            "key_corpus_digest": self.corpus_digest,
            "key_dtype": self.dtype,
        }
        return xr.Dataset(
            {
                "moment": (("layer", "d_in", "d_key"), self.moments),
                "ridge": ("layer", np.array(self.ridge, dtype=np.float64)),
                "condition": ("layer", np.array(self.condition, dtype=np.float64)),
            },
            {"layer": np.array(self.layers)},
            attrs,
        )

    @classmethod
    def from_dataset(cls, dataset: xr.Dataset) -> "KeyStatistics":
        """Return the statistics that `to_dataset` was called on.

        Raises:
            StoreError: when the Dataset is not one of key statistics.
        """
        if "moment" not in dataset or "key_site" not in dataset.attrs:
            raise StoreError(
                "this Dataset is not one of key statistics: it lacks 'moment' or 'key_site'.\n"
                "  Allowed: what KeyStatistics.to_dataset returned.\n  Pass that."
            )
        held = dataset.attrs
        return cls(
            tuple(int(layer) for layer in dataset.layer.values),
            str(held["key_site"]),
            dataset.moment.values,
            int(held["key_tokens"]),
            str(held["key_fingerprint"]),
            tuple(filter(None, str(held["key_made_on"]).split(","))),
            str(held["key_corpus"]),
            str(held["key_corpus_digest"]),
            str(held["key_dtype"]),
            tuple(float(value) for value in dataset.ridge.values),
            {k: v for k, v in held.items() if not str(k).startswith("key_")},
        )

    def save(self, path: str | Path) -> Path:
        """Write the statistics as one safetensors file, replacing an old one in one step.

        Raises:
            StoreError: when it cannot be written.
        """
        write_dataset(self.to_dataset(), Path(path), _KIND)
        return Path(path)

    @classmethod
    def load(cls, path: str | Path) -> "KeyStatistics":
        """Read statistics that were saved; nothing in the file is run.

        Raises:
            StoreError: when there is no such file, it is damaged, or holds something else.
        """
        return cls.from_dataset(read_dataset(Path(path), _KIND))

    def __repr__(self) -> str:
        """Return layers, tokens, corpus, condition and ridge on one line."""
        worst = max(self.condition)
        ridge = f", ridge {max(self.ridge):.2g}" if any(self.ridge) else ""
        return (
            f"KeyStatistics(layers {list(self.layers)} of {self.site}, {self.tokens} tokens of "
            f"{self.corpus!r}, {self.dtype}, condition {worst:.2g}{ridge})"
        )


def chosen_ridge(
    moments: np.ndarray[Any, Any], tokens: int, dtype: str, ridge: float | None
) -> tuple[float, ...]:
    """Return what is added to each moment's diagonal, with a warning where it was not asked for.

    Args:
        moments: `[layer, d_in, d_in]`.
        tokens: tokens counted.
        dtype: precision of the products, which bounds how small an eigenvalue can be told from 0.
        ridge: as a share of the mean eigenvalue; `None` for none where the moment has an inverse.
    """
    found = []
    for moment in moments:
        d_in = len(moment)
        mean = float(np.trace(moment)) / d_in
        noise = float(np.finfo(dtype).eps) * d_in**0.5 * _largest_eigenvalue(moment)
        deficient = tokens < d_in or not _all_above(moment, noise)
        share = ridge if ridge is not None else (_RIDGE if deficient else 0.0)
        if deficient and ridge is None:
            rank = int((np.linalg.eigvalsh(moment) > noise).sum())
            warnings.warn(
                f"key statistics of {tokens} tokens have about rank {rank} of {d_in}: no usable "
                f"inverse. A ridge of {_RIDGE:g} times the mean eigenvalue ({_RIDGE * mean:.3g}) "
                "is added. Count many more tokens than keys have entries, or give ridge= yourself.",
                RankDeficientWarning,
                stacklevel=3,
            )
        found.append(share * mean)
    return tuple(found)


def _largest_eigenvalue(moment: np.ndarray[Any, Any], steps: int = 30) -> float:
    """Return about the largest eigenvalue, by power iteration (a full solve takes seconds)."""
    vector = np.ones(len(moment)) / np.sqrt(len(moment))
    for _ in range(steps):
        vector = moment @ vector
        vector /= np.linalg.norm(vector) or 1.0
    return float(vector @ moment @ vector)


def _all_above(moment: np.ndarray[Any, Any], bound: float) -> bool:
    """Return whether all eigenvalues are above a bound."""
    try:
        np.linalg.cholesky(moment - bound * np.eye(len(moment)))
    except np.linalg.LinAlgError:
        return False
    return True
