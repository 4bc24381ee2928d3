"""An edit as a value: what is added to which weight, where it comes from, and how it is undone."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import xarray as xr

from mechlab.canonical import digest
from mechlab.engine import verify
from mechlab.errors import ModelError, OptionError, StoreError
from mechlab.methods.editing.deltas import Delta, DenseDelta
from mechlab.methods.editing.files import packed, read_dataset, write_dataset
from mechlab.methods.editing.modules import EditSite
from mechlab.methods.editing.writing import written
from mechlab.prompts import EditRequest

if TYPE_CHECKING:
    from mechlab.models import Model

__all__ = ["Edit", "unedited_fingerprint"]

_KIND = "an edit"
_FIELDS = ("template", "subject", "target", "target_true")


@dataclass(frozen=True, eq=False)
class Edit:
    """A change of a model's weights, made by an editing method and not yet in force.

        edit = ml.rank_one_edit(model, request, layer=3, key_statistics=statistics)
        with edit.applied(model):
            ...                      # the model answers with the new object here, and only here

    Two edits are composed by nesting: the outer one is added first.
    """

    deltas: tuple[Delta | DenseDelta, ...]
    """One change per layer and projection."""
    requests: tuple[EditRequest, ...]
    """What was asked for."""
    fingerprint: str
    """Of the model that the edit was made on, without edits."""
    made_on: tuple[str, ...] = ()
    """Digests of the edits that were in force when this one was made, in order."""
    details: xr.Dataset = field(default_factory=xr.Dataset)
    """Keys, values, loss curves, efficacy before and after, and provenance; see the method."""

    def __post_init__(self) -> None:
        """Check that the changes are alike.

        Raises:
            OptionError: when there are none, or they differ in kind, shape or rank.
        """
        object.__setattr__(self, "deltas", tuple(self.deltas))
        kinds = {
            (type(d).__name__, d.shape, d.left.shape[1] if isinstance(d, Delta) else 0)
            for d in self.deltas
        }
        if len(kinds) != 1:
            raise OptionError(
                f"an edit of changes {sorted(kinds)} (kind, (d_out, d_in), columns). Allowed: one "
                "or more, all Delta or all DenseDelta, of one shape. Make several edits of them."
            )

    @cached_property
    def digest(self) -> str:
        """Sha256 (64 hex digits) of the changes: part of the fingerprint of an edited model."""
        parts: list[dict[str, object]] = []
        for delta in self.deltas:
            thin = isinstance(delta, Delta)
            arrays = {"left": delta.left, "right": delta.right} if thin else {"dense": delta.dense}  # type: ignore[union-attr]
            parts.append({"layer": delta.layer, "site": delta.site, **arrays})
        return digest({"deltas": parts})

    @property
    def layers(self) -> tuple[int, ...]:
        """The layers that the edit changes."""
        return tuple(delta.layer for delta in self.deltas)

    @property
    def norm(self) -> float:
        """Frobenius norm of all changes together."""
        return float(np.sqrt(sum(delta.norm**2 for delta in self.deltas)))

    @property
    def rank(self) -> int:
        """Largest rank among the changes."""
        return max((delta.rank for delta in self.deltas), default=0)

    def to_json(self) -> str:
        """Return the digest: as an option of a run, an edit is keyed by its contents."""
        return self.digest

    def __repr__(self) -> str:
        """Return requests, layers, rank and norm on one line."""
        what = repr(self.requests[0].label) if len(self.requests) == 1 else len(self.requests)
        return (
            f"Edit({what}, layers {list(self.layers)}, rank {self.rank}, norm {self.norm:.3g}, "
            f"digest {self.digest[:12]})"
        )

    @contextmanager
    def applied(self, model: "Model", *, on_top: bool = False) -> Iterator["Model"]:
        """Put the edit in force for the length of a `with` block.

        The changes are added in float32 (float64 on a float64 model) and cast last. The model's
        lock is held, its fingerprint includes the edit's digest, and on leaving, also by an
        exception, the weights get back the very bytes they had.

        Args:
            model: the model that the edit was made on.
            on_top: allow it while other edits are in force.

        Yields:
            The model.

        Raises:
            ModelError: another model, other edits in force than expected, or weights that would
                not be finite; the model is untouched then.
        """
        with model.lock:
            self._check(model, on_top)
            if not model.edits:
                verify(model)  # its witness is the model as it was loaded
            with written(model, self.deltas, self.digest):
                yield model

    def _check(self, model: "Model", on_top: bool) -> None:
        if unedited_fingerprint(model) != self.fingerprint:
            raise ModelError(
                f"this edit was made on the model with fingerprint {self.fingerprint[:12]}, and "
                f"{model.name} has {unedited_fingerprint(model)[:12]}.\n"
                "  Allowed: the same weights, precision and tokenizer.\n"
                "  Load that model, or make the edit anew on this one."
            )
        if model.edits and not on_top:
            raise ModelError(
                f"{model.name} is already edited ({len(model.edits)} edits in force).\n"
                "  Allowed: the unedited model, or on_top=True.\n"
                "  Leave the other edit's `with` block, or say applied(model, on_top=True)."
            )
        if self.made_on != model.edits[: len(self.made_on)]:
            raise ModelError(
                f"this edit was made on top of {len(self.made_on)} others "
                f"({', '.join(one[:12] for one in self.made_on)}), which are not in force on "
                f"{model.name} in that order.\n  Allowed: the edits it was made on come first.\n"
                "  Apply those, then this one with on_top=True."
            )

    # --- keeping it -----------------------------------------------------------------------------

    def to_dataset(self) -> xr.Dataset:
        """Return the edit as one Dataset, `details` included.

        `left` (delta, d_out, rank) and `right` (delta, d_in, rank), or `dense` (delta, d_out,
        d_in), hold the changes; `delta_layer` and `delta_site` say where they belong.
        """
        names = ("left", "right") if isinstance(self.deltas[0], Delta) else ("dense",)
        dims = {"left": ("d_out", "rank"), "right": ("d_in", "rank"), "dense": ("d_out", "d_in")}
        held: dict[str, Any] = {
            name: (("delta", *dims[name]), np.stack([getattr(d, name) for d in self.deltas]))
            for name in names
        }
        held["delta_layer"] = (("delta",), np.array(self.layers))
        held["delta_site"] = (("delta",), np.array([delta.site for delta in self.deltas]))
        asked = {
            f"request_{name}": ("edit", np.array([getattr(r, name) for r in self.requests], str))
            for name in _FIELDS
        }
        about_it = {"edit_fingerprint": self.fingerprint, "edit_made_on": ",".join(self.made_on)}
        return self.details.assign(held).assign_coords(asked).assign_attrs(about_it)

    @classmethod
    def from_dataset(cls, dataset: xr.Dataset) -> "Edit":
        """Return the edit that `to_dataset` was called on.

        Raises:
            StoreError: when the Dataset is not one of an edit.
        """
        missing = [f"request_{name}" for name in _FIELDS if f"request_{name}" not in dataset]
        missing += ["edit_fingerprint"] if "edit_fingerprint" not in dataset.attrs else []
        if missing:
            raise StoreError(
                f"this Dataset is not an edit: it lacks {', '.join(missing)}.\n"
                "  Allowed: what Edit.to_dataset returned.\n  Pass that."
            )
        columns = [dataset[f"request_{name}"].values.tolist() for name in _FIELDS]
        added = {"left", "right", "dense", "delta_layer", "delta_site"} & set(dataset.data_vars)
        details = dataset.drop_vars([*added, *(f"request_{name}" for name in _FIELDS)])
        attrs = {k: v for k, v in dataset.attrs.items() if not str(k).startswith("edit_")}
        made_on = tuple(filter(None, str(dataset.attrs["edit_made_on"]).split(",")))
        requests = tuple(EditRequest(*texts) for texts in zip(*columns, strict=True))
        fingerprint = str(dataset.attrs["edit_fingerprint"])
        details.attrs = attrs
        return cls(_deltas(dataset), requests, fingerprint, made_on, details)

    def to_bytes(self) -> bytes:
        """Return the contents of the file that `save` writes, without touching the disk."""
        return packed(self.to_dataset(), _KIND)

    def save(self, path: str | Path) -> Path:
        """Write the edit as one safetensors file, replacing an old one in one step.

        Raises:
            StoreError: when it cannot be written.
        """
        write_dataset(self.to_dataset(), Path(path), _KIND)
        return Path(path)

    @classmethod
    def load(cls, path: str | Path) -> "Edit":
        """Read an edit that was saved; nothing in the file is run.

        Raises:
            StoreError: when there is no such file, it is damaged, or holds something else.
        """
        return cls.from_dataset(read_dataset(Path(path), _KIND))


def unedited_fingerprint(model: "Model") -> str:
    """Return the fingerprint that the model has without the edits in force."""
    _ = model.fingerprint  # hashes the weights once, before anything is written
    return digest(model._identity())


def _deltas(dataset: xr.Dataset) -> tuple[Delta | DenseDelta, ...]:
    layers = [int(layer) for layer in dataset["delta_layer"].values]
    sites = [cast(EditSite, site) for site in dataset["delta_site"].values.tolist()]
    places = zip(layers, sites, strict=True)
    if "dense" in dataset:
        return tuple(
            DenseDelta(*at, one) for at, one in zip(places, dataset.dense.values, strict=True)
        )
    thin = zip(places, dataset.left.values, dataset.right.values, strict=True)
    return tuple(Delta(*at, left, right) for at, left, right in thin)
