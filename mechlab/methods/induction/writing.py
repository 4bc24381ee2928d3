"""What a head's output adds to logits directly: Olsson's copying, and the token that followed."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from mechlab.engine.readout import LinearReadout, exact, linear_readout
from mechlab.methods.induction.ablating import Runner
from mechlab.methods.induction.rows import Laid, same_length
from mechlab.progress import Progress, ProgressCallback

if TYPE_CHECKING:
    from mechlab.models import Model

__all__ = ["behavioural", "most_attended"]

Array = np.ndarray[Any, Any]
Seen = dict[tuple[str, int | None], Tensor]


def most_attended(
    runner: Runner, laid: Sequence[Laid], max_batch: int | None, report: ProgressCallback | None
) -> Array:
    """Return `[prompt, layer, head]`, the share of raised logits on the most attended token.

    Averaged over the queries that see two tokens or more, where anything is raised at all.
    """
    model = runner.model
    readout = linear_readout(model)

    def score(seen: Seen, row: int, one: Laid, layer: int, weight: Tensor) -> Tensor:
        front = one.front
        tokens = torch.tensor(one.tokens[front:], device=model.device)
        directions = readout.norm.pulled_back(readout.directions(tokens, centred=False))
        z = exact(seen["z", layer][row, front:])
        logits = torch.einsum("qhe,hed,kd->hqk", z, weight, directions)
        visible = torch.ones(len(tokens), len(tokens), device=model.device).tril().bool()
        mean = (logits * visible).sum(-1) / visible.sum(-1)
        raised = (logits - mean[..., None]).relu() * visible
        total = raised.sum(-1)
        best = seen["pattern", layer][row, :, front:, front:].argmax(-1)
        share = raised.gather(-1, best[..., None])[..., 0] / total
        there = total > 1e-9 * logits.abs().amax(-1).clamp(min=1e-30)
        there[:, 0] = False
        found = torch.where(there, share, 0.0).sum(-1) / there.sum(-1)
        return found

    layers = range(model.n_layers)
    places = [(site, layer) for layer in layers for site in ("pattern", "z")]
    return _over_rows(runner, laid, places, score, max_batch, report)


def behavioural(
    runner: Runner, laid: Sequence[Laid], max_batch: int | None, report: ProgressCallback | None
) -> Array:
    """Return `[prompt, layer, head]`, the direct logit of the token that followed the probe's."""
    model = runner.model
    readout = linear_readout(model)
    last = ("resid_post", model.n_layers - 1)

    def score(seen: Seen, row: int, one: Laid, layer: int, weight: Tensor) -> Tensor:
        queries, targets = _followed(one)
        directions, scales = _pulled(readout, seen[last][row, queries], targets, model)
        z = exact(seen["z", layer][row, queries])
        return torch.einsum("qhe,hed,qd->hq", z, weight, directions / scales[:, None]).mean(-1)

    places = [("z", layer) for layer in range(model.n_layers)]
    return _over_rows(runner, laid, [*places, last], score, max_batch, report)


def _followed(one: Laid) -> tuple[list[int], list[int]]:
    """Return positions of probes, and the tokens that followed them in the list."""
    pairs = [(query, place) for query, place in one.probes if place + 1 < one.length]
    return [query for query, _ in pairs], [one.tokens[one.front + place + 1] for _, place in pairs]


def _pulled(
    readout: LinearReadout, finals: Tensor, targets: Sequence[int], model: "Model"
) -> tuple[Tensor, Tensor]:
    tokens = torch.tensor(targets, device=model.device)
    directions = readout.directions(tokens, centred=True)
    return readout.norm.pulled_back(directions), readout.norm.scales(finals)


def _over_rows(
    runner: Runner,
    laid: Sequence[Laid],
    places: Sequence[tuple[str, int]],
    score: Callable[[Seen, int, Laid, int, Tensor], Tensor],
    max_batch: int | None,
    report: ProgressCallback | None,
) -> Array:
    """Run all prompts, keep what `places` name of a batch, and score layer by layer."""
    model = runner.model
    found = np.full((len(laid), model.n_layers, model.n_heads or 0), np.nan)
    rows = [one.tokens for one in laid]
    weights = [exact(block.attn.W_O.detach()) for block in model.bridge.blocks]
    done = 0
    for which in same_length(model, rows, max_batch):
        seen: Seen = {}
        tokens = torch.tensor([rows[i] for i in which], device=model.device)
        runner.run(tokens, {place: _into(seen, place) for place in places})
        with torch.no_grad():
            for row, index in enumerate(which):
                for layer, weight in enumerate(weights):
                    values = score(seen, row, laid[index], layer, weight)
                    found[index, layer] = values.cpu().numpy()
        done += len(which)
        if report is not None:
            report(Progress(done, len(rows), "prompts"))
    return found


def _into(seen: Seen, place: tuple[str, int]) -> Callable[[Tensor], None]:
    def read(tensor: Tensor) -> None:
        seen[place] = tensor.detach().clone()

    return read
