"""What is edited: one projection per layer, with its declared orientation.

The projection is found through the bridge's own naming of the architecture, and the way its weight
is stored is read from the type of the module (GPT-2's `Conv1D` keeps `[d_in, d_out]`, `Linear`
keeps `[d_out, d_in]`), never from its shape: a square matrix would look right either way.
The bridge runs the parameter of the wrapped Hugging Face module itself, so a write there changes
both; stacked copies such as `W_out` are of no use.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from mechlab.errors import ModelError, OptionError

if TYPE_CHECKING:
    from mechlab.models import Model

__all__ = [
    "EditSite",
    "Projection",
    "check_layers",
    "default_site",
    "projection",
    "reading_inputs",
    "shifting_outputs",
]

EditSite = Literal["down_proj", "out_proj", "in_proj_ssm", "in_proj_gate"]
"""`down_proj`: the MLP's output projection (GPT-2 `mlp.c_proj`, GPT-J `mlp.fc_out`, NeoX
`mlp.dense_4h_to_h`, Llama and its kin `mlp.down_proj`). Mamba: `out_proj`, or one half of
`in_proj`: its rows 0 to d_inner (convolution and SSM) or d_inner to 2 d_inner (gate)."""

_HALVES = {"in_proj_ssm": 0, "in_proj_gate": 1}


@dataclass(frozen=True)
class Projection:
    """One projection `y = W k (+ b)` of a model, or the part of it that a site names.

    Attributes:
        layer: zero-based block.
        site: which projection of the block.
        module: the Hugging Face module that holds the parameter, without any wrapping.
        stored_in_out: whether the parameter is kept as `[d_in, d_out]` (Conv1D).
        outputs: which of the module's outputs belong to the site.
    """

    layer: int
    site: str
    module: nn.Module
    stored_in_out: bool
    outputs: slice

    @property
    def weight(self) -> Tensor:
        """The weight as a view `[d_out, d_in]`: writing to it in place changes the model."""
        stored: Tensor = self.module.weight.data  # type: ignore[assignment]
        return (stored.T if self.stored_in_out else stored)[self.outputs]

    @property
    def bias(self) -> Tensor | None:
        """The bias `[d_out]`, if there is one."""
        bias: Tensor | None = getattr(self.module, "bias", None)
        return None if bias is None else bias.data[self.outputs]

    @property
    def d_in(self) -> int:
        """Width of a key."""
        return int(self.weight.shape[1])

    @property
    def d_out(self) -> int:
        """Width of a value."""
        return int(self.weight.shape[0])

    def value_of(self, key: Tensor) -> Tensor:
        """Return `W k + b` in float64 for keys `[..., d_in]`."""
        value = key.double() @ self.weight.double().T
        return value if self.bias is None else value + self.bias.double()


def default_site(model: "Model") -> EditSite:
    """Return the MLP's down projection, or `out_proj` of a model without attention."""
    return "down_proj" if model.has_attention else "out_proj"


def projection(model: "Model", layer: int, site: str | None = None) -> Projection:
    """Find the projection to edit in one block.

    Args:
        model: a model with raw weights.
        layer: zero-based block.
        site: one of `EditSite`; `None` for the architecture's default.

    Raises:
        OptionError: when the layer or the site does not exist on this model.
        ModelError: when the weights are processed, or the projection is of an unknown kind.
    """
    site = default_site(model) if site is None else site
    check_layers(model, [layer])
    _check_site(model, site)
    if model.provenance["weights"] != "raw":
        raise ModelError(
            f"{model.name} holds processed weights (norms folded, writing weights centred).\n"
            "  Allowed: raw weights, so that an edit means the same in every program.\n"
            "  Load it with weights='raw' to edit it."
        )
    module = _innermost(_component(model.bridge.blocks[layer], site))
    if isinstance(module, Conv1D):
        stored_in_out = True
    elif isinstance(module, nn.Linear):
        stored_in_out = False
    else:
        raise ModelError(
            f"{site} of {model.name} ({model.family}) is {_kind(module)}: it is not known how its "
            "weight is stored.\n  Allowed: Linear and Conv1D modules.\n"
            "  Models of this kind cannot be edited yet."
        )
    return Projection(layer, site, module, stored_in_out, _outputs(module, site))


def check_layers(model: "Model", layers: Sequence[int]) -> None:
    """Refuse layers that the model does not have.

    Raises:
        OptionError: naming them all; also when there are none, or one stands twice.
    """
    several = isinstance(layers, Sequence) and not isinstance(layers, str)
    given: list[Any] = list(layers) if several else [layers]
    wrong = [
        x
        for x in given
        if not several
        or isinstance(x, bool)
        or not isinstance(x, int)
        or not 0 <= x < model.n_layers
    ]
    if wrong or not given or len(set(given)) < len(given):
        what = f"{wrong} not among them" if wrong else "each must stand once" if given else "none"
        raise OptionError(
            f"layers {given} of {model.name}: {what}. Allowed: integers from 0 to "
            f"{model.n_layers - 1}, each once, at least one, in a list. Correct the layers."
        )


def _check_site(model: "Model", site: str) -> None:
    recurrent = [name for name in get_args(EditSite) if name != "down_proj"]
    if model.has_attention:
        allowed = ["down_proj"]
    else:  # in_proj of Mamba-2 has more parts than two halves
        allowed = recurrent if model.family in ("mamba", "falcon_mamba") else ["out_proj"]
    if site not in allowed:
        raise OptionError(
            f"site={site!r} cannot be edited on {model.name} ({model.family}). "
            f"Allowed here: {', '.join(map(repr, allowed))}. Use one of these."
        )


def _component(block: Any, site: str) -> Any:
    holder = getattr(block, "mlp" if site == "down_proj" else "mixer", None)
    name = {"down_proj": "out", "out_proj": "out_proj"}.get(site, "in_proj")
    return getattr(holder, name, None)


def _innermost(component: Any) -> Any:
    while (inner := getattr(component, "original_component", None)) is not None:
        component = inner
    return component


def _kind(module: Any) -> str:
    return "missing" if module is None else f"a {type(module).__name__}"


def _outputs(module: nn.Module, site: str) -> slice:
    if site not in _HALVES:
        return slice(None)
    half = int(module.out_features) // 2  # type: ignore[arg-type]
    start = _HALVES[site] * half
    return slice(start, start + half)


@contextmanager
def reading_inputs(module: nn.Module, read: Callable[[Tensor], None]) -> Iterator[None]:
    """Call `read` with what enters the module, `[batch, pos, d_in]`, each time it runs."""
    handle = module.register_forward_pre_hook(lambda _, args: read(args[0]))
    try:
        yield
    finally:
        handle.remove()


@contextmanager
def shifting_outputs(
    module: nn.Module, shift: Callable[[Tensor, Tensor], Tensor]
) -> Iterator[None]:
    """Put `shift(input, output)` in the place of what leaves the module."""
    handle = module.register_forward_hook(lambda _, args, output: shift(args[0], output))
    try:
        yield
    finally:
        handle.remove()
