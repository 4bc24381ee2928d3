"""Senders and receivers as options: named sweeps, sites, heads, and nodes set together."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from mechlab.axes import Head, heads
from mechlab.engine import Node
from mechlab.errors import OptionError, SiteError
from mechlab.hooks import Site

if TYPE_CHECKING:
    from mechlab.models import Model

__all__ = [
    "check_nodes",
    "kind_of",
    "label_of",
    "plain_nodes",
    "receivers_of",
    "require_heads",
    "senders_of",
]

SENDER_KINDS = {"z": "head", "attn_out": "attn", "mlp_out": "mlp", "embed": "embed"}
RECEIVER_KINDS = {"q": "q", "k": "k", "v": "v", "pattern": "pattern", "z": "head", "mlp_out": "mlp"}
PER_QUERY_HEAD = ("pattern", "z")
"""Receivers that include keys or values, and count query heads."""


def require_heads(model: "Model") -> None:
    """Refuse models without attention heads, whatever else is wrong with a call.

    Raises:
        SiteError: with what can be done there.
    """
    if not model.has_attention:
        raise SiteError(
            f"{model.name} ({model.family}) is recurrent and has no attention heads. Path patching "
            "holds the heads, so that nothing else carries a change to other positions. Allowed: "
            "models with attention. To patch whole blocks of this one use "
            "ml.activation_patch(..., site='mixer_out', by='layer')."
        )


def senders_of(model: "Model", given: object) -> list[Node]:
    """Return the senders that an option names, each a tuple of sites.

    Raises:
        OptionError: names and values that are no senders, all at once.
    """
    sweeps: dict[str, Callable[[], list[Node]]] = {
        "all_heads": lambda: _grid("z", model.n_layers, model.n_heads),
        "all_mlps": lambda: _grid("mlp_out", model.n_layers, None),
        "embed": lambda: [(Site("embed"),)],
    }
    sweeps["all"] = lambda: [node for name in ("embed", "all_heads", "all_mlps")
                             for node in sweeps[name]()]  # fmt: skip
    return _nodes("senders", given, sweeps)


def receivers_of(model: "Model", given: object) -> list[Node]:
    """Return the receivers that an option names; the final residual is the empty tuple.

    Raises:
        OptionError: names and values that are no receivers, all at once.
        SiteError: keys or values asked for per query head where groups of heads share them.
    """
    n_layers, n_heads, n_kv = model.n_layers, model.n_heads, model.n_kv_heads
    sweeps: dict[str, Callable[[], list[Node]]] = {
        "logits": lambda: [()],
        "all_mlps": lambda: _grid("mlp_out", n_layers, None),
        "all_heads": lambda: _grid("z", n_layers, n_heads),
        "all_heads_pattern": lambda: _grid("pattern", n_layers, n_heads),
        "all_heads_q": lambda: _grid("q", n_layers, n_heads),
        "all_heads_k": lambda: _per_query_head(model, "k"),
        "all_heads_v": lambda: _per_query_head(model, "v"),
        "all_kv_heads_k": lambda: _grid("k", n_layers, n_kv),
        "all_kv_heads_v": lambda: _grid("v", n_layers, n_kv),
    }
    return _nodes("receivers", given, sweeps)


def _grid(name: str, n_layers: int, n_heads: int | None) -> list[Node]:
    columns: Sequence[int | None] = [None] if name == "mlp_out" else range(n_heads or 0)
    return [(Site(name, layer, head),) for layer in range(n_layers) for head in columns]


def _per_query_head(model: "Model", name: str) -> list[Node]:
    if model.n_heads != model.n_kv_heads:
        raise SiteError(_shared(model, f"'all_heads_{name}'"))
    return _grid(name, model.n_layers, model.n_heads)


def _shared(model: "Model", what: str) -> str:
    return (
        f"{what} asks for keys or values per query head, and {model.name} has {model.n_kv_heads} "
        f"key and value heads for {model.n_heads} query heads: a group shares them, so they cannot "
        "be patched for one head alone. Use 'all_kv_heads_k', 'all_kv_heads_v', or "
        "Site('k' or 'v', layer, head=kv_head)."
    )


def plain_nodes(given: Any) -> Any:
    """Return the option as it was given, arrays and iterators as lists: they are read twice."""
    if hasattr(given, "tolist"):
        return given.tolist()
    return list(given) if isinstance(given, Iterator) else given


def _nodes(option: str, given: object, sweeps: dict[str, Any]) -> list[Node]:
    """Read an option: a sweep's name, or a list of names, sites, heads and tuples of these."""
    given = plain_nodes(given)
    if isinstance(given, str | Site | Head) or not isinstance(given, Iterable):
        given = [given]
    found: list[Node] = []
    wrong: list[str] = []
    for item in given:
        if isinstance(item, str) and item in sweeps:
            found += sweeps[item]()
            continue
        parts = item if isinstance(item, tuple | list) else [item]
        sites = [_site(part) for part in parts]
        if not sites or None in sites:
            wrong.append(repr(item))
        else:
            found.append(tuple(site for site in sites if site is not None))
    if wrong or not found:
        named = ", ".join(map(repr, sweeps))
        raise OptionError(
            f"{option}: {', '.join(wrong) or 'nothing'} cannot be used. Allowed: {named}, or a "
            "list of these, of ml.Site values, of heads ('L9H6' or ml.Head), and of tuples of "
            "sites that are set together. Correct the option."
        )
    if twice := [label_of(n) for n in dict.fromkeys(found) if found.count(n) > 1]:
        raise OptionError(f"{option}: {', '.join(twice)} named more than once. Name each once.")
    return found


def _site(part: object) -> Site | None:
    if isinstance(part, Site):
        return part
    if isinstance(part, str):
        try:
            part = heads(part)[0]
        except OptionError:
            return None
    return Site("z", part.layer, part.head) if isinstance(part, Head) else None


# --- against the model ----------------------------------------------------------------------------


def check_nodes(model: "Model", senders: Sequence[Node], receivers: Sequence[Node]) -> None:
    """Refuse nodes that the model does not have, or that cannot send or receive.

    Raises:
        SiteError: naming all of them.
    """
    problems: dict[str, None] = {}
    for site in (site for node in senders for site in node):
        if site.name not in SENDER_KINDS:
            problems[
                f"{site.name!r} cannot send: it does not write to the residual. Senders: 'z' (a "
                "head), 'attn_out', 'mlp_out', 'embed'"
            ] = None
        else:
            _check_range(model, site, problems)
    for site in (site for node in receivers for site in node):
        if site.name not in RECEIVER_KINDS:
            problems[
                f"{site.name!r} cannot receive: receivers are 'q', 'k', 'v', 'pattern' (queries "
                "and keys), 'z' (all three), 'mlp_out' (that MLP's input) and 'logits'"
            ] = None
        else:
            _check_range(model, site, problems)
            if site.name in PER_QUERY_HEAD and site.head is not None:
                if model.n_heads != model.n_kv_heads:
                    problems[_shared(model, f"{label_of((site,), receiver=True)!r}")] = None
    if problems:
        raise SiteError(
            f"{len(problems)} problem(s) with nodes of {model.name}:\n  " + "\n  ".join(problems)
        )


def _check_range(model: "Model", site: Site, problems: dict[str, None]) -> None:
    if site.layer is not None and site.layer >= model.n_layers:
        problems[
            f"layer {site.layer} of {site.name!r}: layers go from 0 to {model.n_layers - 1}"
        ] = None
    count = (model.n_kv_heads if site.name in ("k", "v") else model.n_heads) or 0
    if site.head is None or site.head < count:
        return
    if site.name in ("k", "v") and site.head < (model.n_heads or 0):
        problems[_shared(model, f"head {site.head} of {site.name!r}")] = None
    else:
        axis = "kv_head" if site.name in ("k", "v") else "head"
        problems[f"{axis} {site.head} of {site.name!r}: {axis}s go from 0 to {count - 1}"] = None


# --- names ----------------------------------------------------------------------------------------


def kind_of(node: Node, *, receiver: bool = False) -> str:
    """Return the kind of a node, for the coordinates of a result."""
    if not node:
        return "logits"
    kinds = RECEIVER_KINDS if receiver else SENDER_KINDS
    return kinds.get(node[0].name, node[0].name) if len(node) == 1 else "set"


def label_of(node: Node, *, receiver: bool = False) -> str:
    """Return a node in the field's notation, such as `L9H6`, `L9H6.q`, `MLP 3`, `logits`."""
    return "+".join(_label(site, receiver) for site in node) or "logits"


def _label(site: Site, receiver: bool) -> str:
    if site.name == "embed":
        name = "embed"
    elif site.name == "mlp_out":
        name = f"MLP {site.layer}"
    elif site.head is None:
        name = f"attention {site.layer}"
    else:
        name = str(Head(site.layer or 0, site.head))
    if receiver and site.name in ("q", "k", "v", "pattern"):
        name = f"{name}.{site.name}"
    return name if site.pos is None else f"{name} at {site.pos}"
