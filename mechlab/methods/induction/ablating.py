"""Rows run with heads ablated: set to zero, to their mean, or without changing any pattern."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

import torch
from torch import Tensor

from mechlab import engine
from mechlab.axes import Head
from mechlab.engine.one_pass import in_one_pass
from mechlab.engine.readout import exact
from mechlab.errors import OptionError, PromptError
from mechlab.hooks import Edits, Place, attach
from mechlab.methods.induction.rows import Laid, lay_out, lay_out_texts, same_length
from mechlab.models import chosen_heads
from mechlab.prompts import PromptSet, as_prompt_set

if TYPE_CHECKING:
    from mechlab.models import Model

__all__ = ["Ablation", "Average", "HeadSet", "Names", "Runner", "named_sets", "prepared"]

Ablation = Literal["zero", "mean", "pattern_preserving"]
Average = Literal["over_positions", "by_position"]
Names = Sequence[Head | str]
Captures = Mapping[Place, Callable[[Tensor], None]]
INTACT = "intact"


@dataclass(frozen=True)
class HeadSet:
    """One entry of the axis `head_set`."""

    name: str
    heads: tuple[Head, ...]


class _Read(Exception):  # noqa: N818 - a signal, not an error
    """Ends a run once everything asked for was read."""


@dataclass(frozen=True, eq=False)
class Runner:
    """Runs rows with some heads ablated.

    Attributes:
        model: the model.
        heads: heads that are ablated together; none by default.
        ablation: how.
        means: per layer what a head's output is replaced by, `[pos or 1, head, d_head]`.
    """

    model: "Model"
    heads: tuple[Head, ...] = ()
    ablation: Ablation = "zero"
    means: Mapping[int, Tensor] | None = None

    def of(self, heads: Sequence[Head]) -> "Runner":
        """Return the same with other heads."""
        return Runner(self.model, tuple(heads), self.ablation, self.means)

    def check_width(self, laid: Sequence[Laid]) -> None:
        """Refuse rows longer than the reference of a mean by position.

        Raises:
            PromptError: naming both lengths.
        """
        means = [len(mean) for mean in (self.means or {}).values()]
        longest = max(len(one.tokens) for one in laid)
        if means and means[0] != 1 and means[0] < longest:
            raise PromptError(
                f"average='by_position': the reference has {means[0]} tokens, prompts have up to "
                f"{longest}.\n  Allowed: a reference at least as long, or "
                "average='over_positions'.\n  Choose one of these."
            )

    def run(self, tokens: Tensor, captures: Captures) -> None:
        """Run rows `[row, pos]` of one length as far as something is read, without a head.

        Args:
            tokens: token ids.
            captures: per site and layer what is done with its tensor, as it is after ablation.

        Raises:
            SiteError: when a hook never fired.
        """
        with self.model.lock, torch.no_grad(), in_one_pass(self.model):
            edits = self._edits(tokens)
            self._forward(tokens, edits, captures)

    def final(self, tokens: Tensor) -> Tensor:
        """Return the residuals that enter the final norm, `[row, pos, d_model]`."""
        kept: list[Tensor] = []
        self.run(tokens, {("resid_post", self.model.n_layers - 1): kept.append})
        return kept[0]

    def _edits(self, tokens: Tensor) -> Edits:
        edits: Edits = {}
        if not self.heads:
            return edits
        if self.ablation == "pattern_preserving":
            kept: dict[int, Tensor] = {}
            layers = range(self.model.n_layers)
            self._forward(tokens, {}, {("pattern", n): _keep(kept, n) for n in layers})
            edits |= {("pattern", n): [_written(pattern)] for n, pattern in kept.items()}
        for layer in sorted({head.layer for head in self.heads}):
            which = [head.head for head in self.heads if head.layer == layer]
            mean = None if self.ablation != "mean" else (self.means or {})[layer]
            edits["z", layer] = [_silenced(which, mean)]
        return edits

    def _forward(self, tokens: Tensor, edits: Edits, captures: Captures) -> None:
        last = max(captures, key=_order)

        def end(tensor: Tensor) -> None:
            captures[last](tensor)
            raise _Read

        # Writes behind the last thing that is read change nothing and would never fire.
        edits = {place: writes for place, writes in edits.items() if _order(place) <= _order(last)}
        with attach(self.model, edits, {**captures, last: end}) as attached:
            with suppress(_Read):
                self.model.bridge(tokens, use_cache=False)
            attached.require_all_fired(self.model.name)


_ORDER = ("resid_pre", "scores", "pattern", "z", "resid_post")


def _order(place: Place) -> tuple[int, int]:
    return (place[1] or 0, _ORDER.index(place[0]))


def _keep(kept: dict[int, Tensor], layer: int) -> Callable[[Tensor], None]:
    def read(tensor: Tensor) -> None:
        kept[layer] = tensor.detach().clone()

    return read


def _written(values: Tensor) -> Callable[[Tensor], None]:
    def write(out: Tensor) -> None:
        out.copy_(values)

    return write


def _silenced(which: list[int], mean: Tensor | None) -> Callable[[Tensor], None]:
    def write(out: Tensor) -> None:
        out[:, :, which] = 0 if mean is None else mean[: out.shape[1], which].to(out)

    return write


# ---------------------------------------------------------------------------------- options


def prepared(
    model: "Model",
    ablate: Names | Mapping[str, Names] | None,
    ablation: Ablation,
    reference: PromptSet[Any] | Sequence[Any] | None,
    average: Average,
    sites: Sequence[str],
) -> tuple[Runner, list[HeadSet]]:
    """Check what is ablated and how, and work out means.

    Args:
        model: a decoder with attention.
        ablate: heads, or named sets of them.
        ablation: how.
        reference: prompts to average over.
        average: over all positions, or at each.
        sites: sites that are read besides.

    Returns:
        A runner without heads, and the sets; the first is `intact`, of no heads.

    Raises:
        OptionError: unknown choices, heads named twice, a reference missing or superfluous.
        SiteError: a model without attention, or heads it lacks.
        PromptError: a reference that cannot be read.
    """
    engine.require_heads(model, "models with attention")
    engine.check_choice("ablation", ablation, get_args(Ablation))
    engine.check_choice("average", average, get_args(Average))
    sets = named_sets(model, ablate)
    if (reference is not None) != (ablation == "mean"):
        raise OptionError(
            f"ablation={ablation!r}, reference={'given' if reference is not None else None}. "
            "Allowed: reference=... (token lists or texts) with ablation='mean', and only there. "
            "ml.prompts.without_repeats(prompts) makes one of lists that are not repeated."
        )
    engine.verify(model)
    used = {"pattern_preserving": ["pattern", "z"]}.get(ablation, ["z"])
    touched = any(one.heads for one in sets)
    engine.require_proven(model, [*dict.fromkeys([*sites, *(used if touched else [])])])
    means = None
    if reference is not None:
        layers = sorted({head.layer for one in sets for head in one.heads})
        means = _means(model, reference, layers, average)
    return Runner(model, (), ablation, means), sets


def named_sets(model: "Model", ablate: Names | Mapping[str, Names] | None) -> list[HeadSet]:
    """Return `intact` and the sets asked for.

    Raises:
        OptionError: what is no head, a head named twice, a set called `intact`.
        SiteError: heads that the model does not have.
    """
    named: Mapping[str, Names] = {}
    if isinstance(ablate, Mapping):
        named = ablate
    elif ablate is not None:
        named = {"ablated": ablate}
    if INTACT in named:
        raise OptionError(
            f"a set of heads is called {INTACT!r}, as the run without ablation. Allowed: any other "
            "name. Rename it."
        )
    sets = [HeadSet(str(name), chosen_heads(model, heads)) for name, heads in named.items()]
    return [HeadSet(INTACT, ()), *sets]


def _means(
    model: "Model", reference: PromptSet[Any] | Sequence[Any], layers: Sequence[int], average: str
) -> dict[int, Tensor]:
    """Return mean outputs of heads over a reference, per layer `[pos or 1, head, d_head]`."""
    prompts = as_prompt_set(reference, kind="rows")
    laid = lay_out(model, prompts) if prompts.kind == "tokens" else lay_out_texts(model, prompts)
    rows = [one.tokens for one in laid]
    lengths = {len(row) for row in rows}
    if average == "by_position" and len(lengths) > 1:
        raise PromptError(
            f"average='by_position': reference prompts have {min(lengths)} to {max(lengths)} "
            "tokens.\n  Allowed: a reference of one length, or average='over_positions'.\n"
            "  Choose one of these."
        )
    sums: dict[int, Tensor] = {}
    counts = 0
    runner = Runner(model)
    for which in same_length(model, rows, None):
        tokens = torch.tensor([rows[i] for i in which], device=model.device)
        kept: dict[int, Tensor] = {}
        if layers:
            runner.run(tokens, {("z", layer): _keep(kept, layer) for layer in layers})
        for layer, z in kept.items():
            total = exact(z).sum(0) if average == "by_position" else exact(z).sum((0, 1))[None]
            sums[layer] = sums[layer] + total if layer in sums else total
        counts += len(which) if average == "by_position" else tokens.numel()
    return {layer: (total / counts).to(model.dtype) for layer, total in sums.items()}
