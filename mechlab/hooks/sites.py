"""Where an intervention can act: sites by the field's names, and the bridge hook behind each.

A site names one tensor of a forward pass. Its axes decide how a row, a position and a head are
found in it: `bpd` is `[batch, pos, d_model]`, `bphd` is `[batch, pos, head, d_head]` (for `k` and
`v` the third axis is `kv_head`), `bhqk` is `[batch, head, query pos, key pos]`.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from mechlab.errors import OptionError, SiteError

if TYPE_CHECKING:
    from mechlab.models import Model

__all__ = ["SITES", "Site", "SiteKind", "hook_name", "known_kind", "live_sites"]

Axes = Literal["bpd", "bphd", "bhqk"]


@dataclass(frozen=True)
class SiteKind:
    """What every site of one name has in common."""

    name: str
    """The field's name, for instance `resid_pre`."""
    hook: str
    """Bridge hook below `blocks.{layer}.`, or the whole name when the site has no layer."""
    axes: Axes
    """Order of the tensor's axes."""
    per_layer: bool = True
    """Whether the site exists once per block."""
    is_write: bool = False
    """Whether its value at one position only reaches later positions through later blocks."""
    in_place: bool = False
    """Whether it has to be written in place: the bridge's `hook_resid_mid` is the input of the
    second norm, and a tensor returned there would reach the MLP but not the residual stream."""

    @property
    def has_heads(self) -> bool:
        """Whether a head can be picked out at this site."""
        return self.axes != "bpd"


SITES: dict[str, SiteKind] = {
    kind.name: kind
    for kind in (
        SiteKind("embed", "hook_embed", "bpd", per_layer=False),
        SiteKind("resid_pre", "hook_in", "bpd"),
        SiteKind("q", "attn.hook_q", "bphd"),
        SiteKind("k", "attn.hook_k", "bphd"),
        SiteKind("v", "attn.hook_v", "bphd"),
        SiteKind("scores", "attn.hook_attn_scores", "bhqk"),
        SiteKind("pattern", "attn.hook_pattern", "bhqk"),
        SiteKind("z", "attn.hook_z", "bphd", is_write=True),
        SiteKind("attn_out", "hook_attn_out", "bpd", is_write=True),
        SiteKind("resid_mid", "hook_resid_mid", "bpd", is_write=True, in_place=True),
        SiteKind("mlp_out", "hook_mlp_out", "bpd", is_write=True),
        SiteKind("mixer_in", "hook_mixer_in", "bpd"),
        SiteKind("mixer_out", "hook_mixer_out", "bpd", is_write=True),
        SiteKind("resid_post", "hook_out", "bpd", is_write=True),
    )
}
"""Every site, in the order in which a block computes them."""


@dataclass(frozen=True, order=True)
class Site:
    """One place in a forward pass, `Site("mlp_out", 3, pos=5)`.

    Attributes:
        name: one of `SITES`.
        layer: zero-based block index; `None` only for `embed`.
        head: one head (query head for `q`, `z`, `scores`, `pattern`; `kv_head` for `k` and `v`);
            `None` for all.
        pos: zero-based token position in the unpadded prompt, BOS included (the query position for
            `scores` and `pattern`); `None` for all.

    Raises:
        SiteError: unknown name, or a layer or head where the site has none.
        OptionError: a negative layer, head or position.
    """

    name: str
    layer: int | None = None
    head: int | None = None
    pos: int | None = None

    def __post_init__(self) -> None:
        """Refuse what cannot exist on any model; ranges are checked against the model later."""
        kind = known_kind(self.name)
        if kind.per_layer != (self.layer is not None):
            need = "needs a layer" if kind.per_layer else "has no layer"
            raise SiteError(f"site {self.name!r} {need}; received layer={self.layer}.")
        if self.head is not None and not kind.has_heads:
            allowed = ", ".join(name for name, other in SITES.items() if other.has_heads)
            raise SiteError(
                f"site {self.name!r} has no heads; received head={self.head}. "
                f"Sites with heads: {allowed}."
            )
        for label, value in (("layer", self.layer), ("head", self.head), ("pos", self.pos)):
            if value is not None and value < 0:
                raise OptionError(
                    f"Site({self.name!r}): {label}={value} is negative; {label}s count from 0."
                )

    def to_json(self) -> dict[str, str | int | None]:
        """Return the site as plain JSON values, for store keys."""
        return {"name": self.name, "layer": self.layer, "head": self.head, "pos": self.pos}


def known_kind(name: str) -> SiteKind:
    """Return the kind of site called `name`.

    Raises:
        SiteError: when no site has that name.
    """
    if name not in SITES:
        raise SiteError(
            f"unknown site {name!r}. Sites: {', '.join(SITES)}. "
            "See model.sites for those of one model."
        )
    return SITES[name]


def hook_name(name: str, layer: int | None) -> str:
    """Return the bridge's hook name of a site.

    Raises:
        SiteError: when no site has that name.
    """
    kind = known_kind(name)
    return f"blocks.{layer}.{kind.hook}" if kind.per_layer else kind.hook


def live_sites(model: "Model") -> tuple[str, ...]:
    """Return the names of the sites whose hook exists in every block of `model`."""
    hooks = model.bridge.hook_dict
    return tuple(
        name
        for name, kind in SITES.items()
        if all(
            hook_name(name, layer) in hooks
            for layer in (range(model.n_layers) if kind.per_layer else (None,))
        )
    )
