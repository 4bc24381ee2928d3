"""What the paths page asks for: what senders do through one receiver."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self

import mechlab as ml
from pair_request import PairRequest, model_fields_of, prompt_fields_of, stored_options
from request import plain

__all__ = [
    "INPUTS", "SENDERS", "PathsRequest", "head_of", "node_text", "receiver_of", "request_of",
]  # fmt: skip

SENDERS = {
    "all_heads": "all heads",
    "all_mlps": "all MLPs",
    "all": "heads, MLPs, embedding",
    "set": "nodes of my own",
}
"""Sweeps of senders; with `set` the field beside names them."""

INPUTS = {"q": "queries", "k": "keys", "v": "values", "z": "all inputs"}
"""Inputs of a head that may receive; of all of them the head itself is the name."""

_NODE = re.compile(
    r"(?:L(\d{1,6})H(\d{1,6})(?:\.(q|k|v|pattern))?|(MLP|attn) ?(\d{1,6}))",
    re.IGNORECASE | re.ASCII,
)
_SWEEPS = ("logits", "all_heads", "all_mlps", "all", "embed")


@dataclass(frozen=True, kw_only=True)
class PathsRequest(PairRequest):
    """What every sender does to the answer through a receiver alone."""

    PAGE: ClassVar[str] = "paths"
    METHODS: ClassVar[tuple[str, ...]] = ("path_patch",)
    OPTIONS: ClassVar[tuple[str, ...]] = ("freeze", "direction", "ln", "positions")
    OTHER_DEFAULTS: ClassVar[Mapping[str, Any]] = {"metric": "logit_diff"}
    PLOT: ClassVar[str] = "ml.plots.sender_grid(result).show()"

    senders: str = "all_heads"
    nodes: str = ""
    """Senders of one's own, such as `L5H3, MLP4, L6H0+L6H1` (+ sets them together)."""
    receiver: str = "logits"
    """`logits`, or an input such as `L5H4.q`, `L5H4` (all three), `MLP7`."""
    freeze: str = "heads"
    direction: str = "noising"
    ln: str = "recompute"
    positions: str = "all"

    @property
    def sender_texts(self) -> list[str]:
        """The senders as the method's labels name them."""
        if self.senders != "set":
            return [self.senders]
        return [part.strip() for part in re.split(r"[,;\s]+", self.nodes) if part.strip()]

    @property
    def options(self) -> dict[str, Any]:
        """Options of the method, as records hold them."""
        chosen = {name: getattr(self, name) for name in self.OPTIONS}
        senders = [_as_stored(text, sender=True) for text in self.sender_texts]
        receivers = [_as_stored(self.receiver, sender=False)]
        return {
            "senders": senders[0] if self.senders != "set" else senders,
            "receivers": receivers[0] if receivers[0] == "logits" else receivers,
            **chosen,
            **self._more(),
        }

    def call_options(self) -> dict[str, Any]:
        """Return the options as the method takes them: nodes as sites."""
        senders: Any = [_node(text, sender=True) for text in self.sender_texts]
        receiver: Any = _node(self.receiver, sender=False)
        return {
            **self.options,
            "senders": senders[0] if self.senders != "set" else senders,
            "receivers": receiver if receiver == "logits" else [receiver],
        }

    def option_code(self, value: Any) -> str:
        """Return Python that makes the value of an option."""
        if isinstance(value, list | tuple) and any(not isinstance(part, str) for part in value):
            inner = ", ".join(self.option_code(part) for part in value)
            return f"[{inner}]" if isinstance(value, list) else f"({inner},)"
        if isinstance(value, ml.Site):
            head = "" if value.head is None else f", {value.head}"
            return f"ml.Site({value.name!r}, {value.layer}{head})"
        return super().option_code(value)

    def problem(self) -> str:
        """Return why this cannot be run, in a sentence; empty when it can."""
        if self.kind == "fact":
            return "Path patching compares two prompts: give a pair."
        if self.senders == "set" and not self.sender_texts:
            return "Name the senders, such as L5H3, MLP4, or L6H0+L6H1 (+ sets them together)."
        try:
            self.call_options()
        except ml.MechlabError as error:
            return str(error).splitlines()[0]
        return super().problem()

    def differences(self, other: Any) -> list[str]:
        """Say what differs from another request, nodes by their names."""
        if not isinstance(other, PathsRequest):
            return super().differences(other)
        told = super().differences(replace(other, **self._nodes()))
        for name, mine, theirs in (
            ("senders", self._sent, other._sent), ("receiver", self.receiver, other.receiver),
        ):  # fmt: skip
            if mine.lower() != theirs.lower():
                told.append(f"{name}: {theirs} → {mine}")
        return told

    @property
    def _sent(self) -> str:
        return ", ".join(self.sender_texts)

    def _nodes(self) -> dict[str, str]:
        return {"senders": self.senders, "nodes": self.nodes, "receiver": self.receiver}

    @classmethod
    def from_fields(cls, values: Mapping[str, Any]) -> Self:
        """Return the request that the fields make."""
        tidy = {**values, "receiver": str(values["receiver"]).strip() or "logits"}
        return super().from_fields(tidy)


def request_of(result: Any, model: str) -> PathsRequest:
    """Return the request that a stored result answers; `model` is what to load."""
    stored = stored_options(result)
    senders = stored.pop("senders", "all_heads")
    own = not (isinstance(senders, str) and senders in SENDERS)
    nodes = [senders] if isinstance(senders, str | dict) else senders
    receivers = stored.pop("receivers", "logits")
    first = receivers if isinstance(receivers, str | dict) else receivers[0]
    request = PathsRequest(
        model=model,
        **model_fields_of(result),
        senders="set" if own else str(senders),
        nodes=", ".join(map(node_text, nodes)) if own else "",
        receiver=node_text(first),
        **{n: stored[n] for n in PathsRequest.OPTIONS if isinstance(stored.get(n), str)},
        **prompt_fields_of(result),
    )
    usual = {**request.OTHER_DEFAULTS, **request.options}
    more = {n: v for n, v in stored.items() if n in usual and plain(usual[n]) != plain(v)}
    if not isinstance(receivers, str) and len(receivers) > 1:
        more["receivers"] = receivers
    return replace(request, more=json.dumps(more, sort_keys=True))


def node_text(stored: Any) -> str:
    """Return a node of a record as people write it: `L5H4.q`, `MLP3`, `L6H0+L6H1`."""
    if isinstance(stored, str):
        return stored
    if isinstance(stored, list | tuple):
        return "+".join(map(node_text, stored))
    site = stored["value"]
    if site["name"] == "embed":
        return "embed"
    if site["head"] is None:
        return f"{'MLP' if site['name'] == 'mlp_out' else 'attn'}{site['layer']}"
    ending = "" if site["name"] == "z" else f".{site['name']}"
    return f"L{site['layer']}H{site['head']}{ending}"


def head_of(text: str) -> tuple[int, int] | None:
    """Return (layer, head) of a node such as `L5H4.q`; None where it is no single head."""
    match = _NODE.fullmatch(text.strip())
    return (int(match[1]), int(match[2])) if match is not None and match[1] is not None else None


def receiver_of(layer: int, head: int, part: str, group: int = 1) -> str:
    """Return the text of a head's input, `L5H4.q`, or `L5H4` for all three.

    Keys and values are those of the head that `group` query heads share (`loaded.heads_per_key`).
    """
    head = head // group if part in ("k", "v") else head
    return f"L{layer}H{head}" + ("" if part == "z" else f".{part}")


def _node(text: str, *, sender: bool) -> Any:
    """Return what the method takes for a node: a name, a site, or a tuple of sites."""
    if text.lower() in _SWEEPS:
        return text.lower()
    sites = tuple(_site(part, sender=sender) for part in text.split("+"))
    return sites[0] if len(sites) == 1 else sites


def _site(text: str, *, sender: bool) -> Any:
    match = _NODE.fullmatch(text.strip())
    allowed = "L5H3, MLP4, attn4" if sender else "logits, L5H4.q (k, v, pattern), L5H4, MLP7"
    if (
        match is None
        or (sender and match[3])
        or (not sender and (match[4] or "").lower() == "attn")
    ):
        raise ml.OptionError(
            f"{text.strip()!r} is not a node here. Allowed: {allowed}. Correct it."
        )
    if match[4]:
        return ml.Site("mlp_out" if match[4].lower() == "mlp" else "attn_out", int(match[5]))
    return ml.Site(match[3].lower() if match[3] else "z", int(match[1]), int(match[2]))


def _as_stored(text: str, *, sender: bool) -> Any:
    """Return a node as records hold it; what cannot be read stays as it is."""
    try:
        return _stored(_node(text, sender=sender))
    except ml.MechlabError:
        return text


def _stored(node: Any) -> Any:
    """Return a node as records hold it."""
    if isinstance(node, str):
        return node
    if isinstance(node, tuple):
        return [_stored(site) for site in node]
    value = {"name": node.name, "layer": node.layer, "head": node.head, "pos": node.pos}
    return {"type": "Site", "value": value}
