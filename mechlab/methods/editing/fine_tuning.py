"""Baselines: fine-tuning one weight on the request, with or without a bound on the change."""

import time
from typing import TYPE_CHECKING

import numpy as np
import torch

from mechlab.engine import check_number, check_whole
from mechlab.errors import OptionError
from mechlab.methods.editing.continuing import start, through_weight
from mechlab.methods.editing.deltas import DenseDelta
from mechlab.methods.editing.edits import Edit, unedited_fingerprint
from mechlab.methods.editing.modules import EditSite, default_site, projection
from mechlab.methods.editing.rank_one import collect
from mechlab.methods.editing.recording import efficacy, measured
from mechlab.methods.editing.rows import as_requests, check_targets, prompt_rows
from mechlab.methods.editing.values import row_losses
from mechlab.prompts import EditRequest

if TYPE_CHECKING:
    from mechlab.models import Model

__all__ = ["fine_tune_edit"]


def fine_tune_edit(
    model: "Model",
    request: EditRequest,
    *,
    layer: int,
    max_change: float | None = None,
    site: EditSite | None = None,
    steps: int = 25,
    learning_rate: float = 5e-4,
    stop_loss: float = 0.01,
) -> Edit:
    """Fine-tune one projection on one association: the baselines FT and FT+L of Meng et al. 2022.

    Adam on the weight, the new object's mean negative log-probability after the bare prompt as the
    loss, nothing else. The change is optimised beside the weight, which is never written to.

    Args:
        model: a model with raw weights; left bitwise as found. Edits in force stay in force.
        request: the association.
        layer: zero-based block.
        max_change: largest change of any entry of the weight (FT+L); `None` for no limit (FT).
        site: which projection; the architecture's default when `None`.
        steps: largest number of steps.
        learning_rate: of Adam.
        stop_loss: a loss below it, in nats, ends the optimisation.

    Returns:
        The `Edit`, with a dense change. Its `details` hold `nll` (edit, step), `steps` (edit) and
        the probabilities before and after as in `rank_one_edit`.

    Raises:
        OptionError, PromptError, ModelError: as `rank_one_edit`.

    Differs from the authors' code: an object of several tokens is read token by token, each after
    those before it; there every token is scored at the prompt's last position.
    """
    started = time.time()
    as_requests(request)
    site = default_site(model) if site is None else site
    collect(
        (
            lambda: projection(model, layer, site),
            lambda: check_whole("steps", steps, at_least=1),
            lambda: _check_positive("learning_rate", learning_rate),
            lambda: None if max_change is None else _check_positive("max_change", max_change),
            lambda: check_number("stop_loss", stop_loss, at_least=0),
        ),
        [],
    )
    check_targets(model, [request])
    options = {
        "layer": layer, "site": site, "max_change": max_change, "steps": steps,
        "learning_rate": learning_rate, "stop_loss": stop_loss,
    }  # fmt: skip
    with model.lock, torch.inference_mode(False):
        place = projection(model, layer, site)
        before = efficacy(model, [request])
        (batch,) = start(model, prompt_rows(model, [request], ("",)), layer)
        wide = torch.float64 if place.weight.dtype == torch.float64 else torch.float32
        change = torch.zeros(place.weight.shape, dtype=wide, device=place.weight.device)
        adam = torch.optim.Adam([change.requires_grad_()], lr=learning_rate)
        nll = np.full((1, steps), np.nan)
        for step in range(steps):
            adam.zero_grad()
            with torch.enable_grad():
                logits = batch.continued(through_weight(place, change), everywhere=True)
                loss = row_losses(batch, logits).nll.sum()
                loss.backward()
            nll[0, step] = float(loss.detach())
            if nll[0, step] < stop_loss:
                break
            adam.step()
            if max_change is not None:
                with torch.no_grad():
                    change.clamp_(-max_change, max_change)
        delta = DenseDelta(layer, place.site, change.detach())  # type: ignore[arg-type]
        edit = Edit((delta,), (request,), unedited_fingerprint(model), model.edits)
        taken = int(np.isfinite(nll).sum())
        data = {"nll": (("edit", "step"), nll, {"units": "nats"}), "steps": ("edit", [taken])}
        return measured(
            model, edit, before, data, method="fine_tune_edit", options=options, contexts=("",),
            seed=None, started=started,
        )  # fmt: skip


def _check_positive(name: str, value: float) -> None:
    check_number(name, value, at_least=0)
    if value == 0:
        raise OptionError(f"{name}=0. Allowed: numbers above 0. Give one of these.")
