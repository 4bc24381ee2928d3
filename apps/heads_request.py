"""What the heads page asks for: attribution, ablation, or patching, exact or by gradients."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self

import mechlab as ml
from pair_request import PairRequest, model_fields_of, prompt_fields_of, stored_options
from request import plain

__all__ = ["HOW", "REFERENCE", "SITES", "HeadsRequest", "request_of"]

HOW = {
    "attribution": "direct_logit_attribution",
    "ablate": "ablate",
    "patch": "activation_patch",
    "gradient": "attribution_patch",
}
"""Ways to measure heads, and the method behind each."""

SITES = {"z": "heads", "mlp_out": "MLPs", "attn_out": "whole attention"}
"""What is removed or replaced, one cell each."""

REFERENCE = {"count": 32, "seed": 1}
"""The conflicts that stand in where one prompt is ablated by a mean or by other prompts."""

_COMMON = {"layers": None, "heads": None}
_PATCHED = {**_COMMON, "epsilon": 1e-4}
_OTHERS: dict[str, dict[str, Any]] = {
    "attribution": {"run": "clean", "norm": "frozen", "interventions": []},
    "ablate": {**_COMMON, "reference": None, "average": "by_position", "draws": 10, "seed": 0},
    "patch": _PATCHED,
    "gradient": {**_PATCHED, "steps": 1},
}
_OFFERED = {
    "attribution": ("by", "metric"),
    "ablate": ("site", "by", "kind", "positions", "metric"),
    "patch": ("site", "by", "positions", "direction", "metric"),
    "gradient": ("site", "by", "positions", "direction", "metric"),
}


@dataclass(frozen=True, kw_only=True)
class HeadsRequest(PairRequest):
    """What every head does to the answer."""

    PAGE: ClassVar[str] = "heads"
    METHODS: ClassVar[tuple[str, ...]] = tuple(HOW.values())
    SOURCES: ClassVar[tuple[str, ...]] = ("pair", "fact", "conflicts", "ioi", "rows")
    PLOT: ClassVar[str] = "ml.plots.head_grid(result).show()"

    how: str = "attribution"
    site: str = "z"
    ablation: str = "zero"
    direction: str = "denoising"
    positions: str = "all"
    without: tuple[str, ...] = ()
    """Heads that are ablated while the others are attributed."""

    @property
    def method(self) -> str:
        """The method of the chosen way."""
        return HOW[self.how]

    @property
    def OTHER_DEFAULTS(self) -> Mapping[str, Any]:  # type: ignore[override]  # noqa: N802
        """Options of the chosen method that the page does not offer, with their defaults."""
        return _OTHERS[self.how]

    @property
    def options(self) -> dict[str, Any]:
        """Options of the chosen method, as plain values."""
        values = {
            "site": self.site,
            "by": "head" if self.how == "attribution" or self.site == "z" else "layer",
            "kind": self.ablation,
            "direction": self.direction,
            "positions": self.positions,
            "metric": self._metric,
        }
        found = {name: values[name] for name in _OFFERED[self.how]}
        if self.how == "ablate" and self.ablation == "mean":
            found["average"] = "over_positions"
        if self.how == "ablate" and self.ablation == "resample":
            found |= {"positions": "last", "draws": min(10, self._others)}
        if self.how == "attribution" and self.without:
            found["interventions"] = [_stored(head) for head in self.without]
        return {**found, **self._more()}

    @property
    def _metric(self) -> str:
        if self.kind == "pair":
            return "logit_diff"
        return "logit" if self.how == "attribution" else "log_probability"

    @property
    def _others(self) -> int:
        """How many prompts may stand in for another."""
        return REFERENCE["count"] if self.size == 1 else self.size - 1

    @property
    def needs_reference(self) -> bool:
        """Whether other prompts stand in for what is ablated."""
        return self.how == "ablate" and self.ablation != "zero"

    def call_options(self) -> dict[str, Any]:
        """Return the options as the method takes them, all but the reference prompts."""
        found = self.options
        if "interventions" in found:
            found["interventions"] = [
                ml.Ablate(ml.Site("z", head.layer, head.head)) for head in ml.heads(*self.without)
            ]
        return found

    def option_code(self, value: Any) -> str:
        """Return Python that makes the value of an option."""
        if isinstance(value, list) and value and isinstance(value[0], ml.Ablate):
            sites = [(one.site.layer, one.site.head) for one in value]
            made = ", ".join(f"ml.Ablate(ml.Site('z', {layer}, {head}))" for layer, head in sites)
            return f"[{made}]"
        return super().option_code(value)

    def code(self, run: str = "") -> str:
        """Return a script that computes this very result, or takes it from the store."""
        text = super().code(run)
        if not self.needs_reference:
            return text
        made = f"ml.prompts.conflicts(**{REFERENCE!r}, model=model)"
        reference = "prompts" if self.size > 1 else made
        return text.replace("    prompts,\n", f"    prompts,\n    reference={reference},\n", 1)

    def problem(self) -> str:
        """Return why this cannot be run, in a sentence; empty when it can."""
        if self.kind == "fact" and self.how in ("patch", "gradient"):
            return "Patching needs a second prompt to take values from: give a pair."
        if self.kind == "fact" and self.source == "fact" and not self.target:
            return "Give the answer that the fact should have."
        try:
            ml.heads(*self.without)
        except ml.MechlabError as error:
            return str(error).splitlines()[0]
        return super().problem()

    def answered_by(self, entry: Any) -> bool:
        """Return whether a stored result of the same prompts is the result of this request."""
        if not self.needs_reference:
            return super().answered_by(entry)
        told = entry.options.get("reference")
        count = REFERENCE["count"] if self.size == 1 else self.size
        if not isinstance(told, list) or len(told) != count:
            return False
        kept = {**entry.options, "reference": None}
        return super().answered_by(_Told(entry, kept))

    def companion(self) -> Self | None:
        """Return the same of whole MLPs, which stand beside the heads as one more column."""
        if self.how == "attribution" or self.site != "z":
            return None
        return replace(self, site="mlp_out")

    def compute(self, model: Any, progress: Any, *, recompute: bool) -> str:
        """Run it, and beside heads the whole MLPs; return the key of the heads' result."""
        prompts, function, store = self.prompts_for(model), getattr(ml, self.method), ml.Store()
        extra: dict[str, Any] = {}
        if self.needs_reference:
            others = ml.prompts.conflicts(**REFERENCE, model=model) if self.size == 1 else prompts
            extra["reference"] = others
        if (beside := self.companion()) is not None:
            options = {**beside.call_options(), **extra}
            store.run(function, model, prompts, recompute=recompute, **options)
        options = {**self.call_options(), **extra}
        store.run(function, model, prompts, progress=progress, recompute=recompute, **options)
        return str(store.key(function, model, prompts, **options))

    @classmethod
    def from_fields(cls, values: Mapping[str, Any]) -> Self:
        """Return the request that the fields make."""
        tidy = dict(values)
        if isinstance(tidy["without"], str):
            tidy["without"] = tuple(tidy["without"].replace(",", " ").split())
        return super().from_fields(tidy)


@dataclass(frozen=True)
class _Told:
    """A stored record with other options."""

    entry: Any
    options: Mapping[str, Any]

    def __getattr__(self, name: str) -> Any:
        return getattr(self.entry, name)


def request_of(result: Any, model: str) -> HeadsRequest:
    """Return the request that a stored result answers; `model` is what to load."""
    how = next(word for word, name in HOW.items() if name == result.attrs["method"])
    stored = stored_options(result)
    without = tuple(map(_head_of, stored.pop("interventions", None) or ()))
    names = {"kind": "ablation", "site": "site", "direction": "direction", "positions": "positions"}
    known = {names[n]: stored[n] for n in names if n in _OFFERED[how] and n in stored}
    request = HeadsRequest(
        model=model,
        **model_fields_of(result),
        how=how,
        without=without,
        **{name: value for name, value in known.items() if isinstance(value, str)},
        **prompt_fields_of(result),
    )
    usual = {**request.OTHER_DEFAULTS, **request.options}
    if request.needs_reference:
        usual["reference"] = stored.get("reference")
    more = {n: v for n, v in stored.items() if n in usual and plain(usual[n]) != plain(v)}
    return replace(request, more=json.dumps(more, sort_keys=True))


def _stored(head: str) -> dict[str, Any]:
    """Return the ablation of a head as records hold it; what is no head stays as it is."""
    try:
        found = ml.heads(head)[0]
    except ml.MechlabError:
        return {"head": head}
    site = {"name": "z", "layer": found.layer, "head": found.head, "pos": None}
    value = {"site": {"type": "Site", "value": site}, "kind": "zero", "reference": None}
    return {"type": "Ablate", "value": {**value, "source": None}}


def _head_of(stored: Mapping[str, Any]) -> str:
    site = stored["value"]["site"]["value"]
    return f"L{site['layer']}H{site['head']}"
