"""One association written by a change of rank one: ROME, R-ROME and p-ROME."""

import time
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor

from mechlab.engine import check_choice, check_whole
from mechlab.errors import MechlabError, OptionError
from mechlab.methods.editing.contexts import check_contexts, check_templates, rome_contexts
from mechlab.methods.editing.continuing import at_projection, start
from mechlab.methods.editing.edits import Edit, unedited_fingerprint
from mechlab.methods.editing.meeting import meeting
from mechlab.methods.editing.modules import EditSite, Projection, default_site, projection
from mechlab.methods.editing.moments import KeyStatistics
from mechlab.methods.editing.recording import efficacy, measured, runs_plain
from mechlab.methods.editing.rows import as_requests, check_targets, prompt_rows, subject_rows
from mechlab.methods.editing.settings import default_clamp
from mechlab.methods.editing.values import Objective, Optimised, optimise
from mechlab.prompts import EditRequest

if TYPE_CHECKING:
    from mechlab.models import Model

__all__ = ["Variant", "rank_one_edit"]

Variant = Literal["r-rome", "rome", "p-rome"]
VARIANTS = ("r-rome", "rome", "p-rome")


def rank_one_edit(
    model: "Model",
    request: EditRequest,
    *,
    layer: int,
    key_statistics: KeyStatistics,
    variant: Variant = "r-rome",
    site: EditSite | None = None,
    contexts: Sequence[str] | None = None,
    key_templates: Sequence[str] = (),
    seed: int = 0,
    steps: int = 20,
    learning_rate: float = 0.5,
    kl_weight: float = 0.0625,
    decay_weight: float = 0.5,
    clamp: float | None = None,
    stop_loss: float = 0.05,
    kl_template: str = "{} is a",
    mode: Literal["auto", "wavefront", "plain"] = "auto",
) -> Edit:
    """Write one association into one projection by a change of rank one.

    ROME: Meng et al. 2022, section 3.1, in the form of the authors' code. R-ROME and p-ROME: Gupta
    et al. 2024. Mamba: Sharma et al. 2024. The value v* is W k + b plus a vector that is optimised
    so that, added to the projection's output at the subject's last token, it makes the new object
    likely after the prompt in every context. The change then gives that value to the key.

    Args:
        model: a model with raw weights; left bitwise as found. Edits in force on it stay in force:
            this edit is then one on top of them.
        request: the association.
        layer: zero-based block.
        key_statistics: of this model, layer and projection.
        variant: which key meets v* exactly: `rome` the key of the bare prompt, with the mean key's
            direction; `r-rome` the mean key over the contexts, throughout; `p-rome` the key of the
            bare prompt, throughout.
        site: which projection; the architecture's default when `None`.
        contexts: texts put before the prompt, the first one empty; `None` draws 20 from the model.
        key_templates: further sentences, `{}` for the subject, whose keys at the subject make up
            half of the mean key, such as `"{}"`: at the start of a text many tokenizers write the
            subject with other tokens, which the contexts never show. `p-rome` takes no notice.
        seed: of that drawing.
        steps: times that the loss is looked at; the last is not followed by a step of Adam.
        learning_rate: of Adam.
        kl_weight: of the divergence of what follows the subject in `kl_template`.
        decay_weight: of ||delta|| / ||v0||^2.
        clamp: largest ||delta|| / ||v0||; `None`: 4, or 3 on GPT-NeoX and recurrent models.
        stop_loss: a total loss below it ends the optimisation. Recurrent models also stop after
            more than 12 steps at a mean probability above 0.9.
        kl_template: unrelated sentence about the subject.
        mode: `plain` runs the whole model at each step (the reference); `auto` continues from the
            edited layer and the subject on, where the model passed the engine's self-check.

    Returns:
        The `Edit`. Its `details` hold: `key_mean`, `key_bare` (edit, d_in); `value_before`, `value`
        (edit, d_out); `division_factor` (edit), k.u for u of unit length: near 0 the change
        explodes; the terms of the loss in nats, `probability` and `delta_norm` (edit, step), NaN
        after the stop; `stopped` (edit); `residual` (edit), ||W'k + b - v*|| in the model's
        precision at the key that meets v*, `residual_bare` that at the key of the bare prompt, and
        `cast_error`, the former over ||v*||; `probability_new`, `probability_true` (edit) after the
        bare prompt, with the edit in force, and both `_before`; `norm` and `weight_norm` (delta);
        the contexts.

    Raises:
        OptionError: options out of range, statistics of another model, layer or projection, or
            without an inverse; all that can be known before anything is run, at once.
        PromptError: a request that cannot be tokenised, or whose objects share their first token.
        ModelError: processed weights, or a projection of an unknown kind.

    Differs from the paper: constants are those of the authors' code, not of the text. The solve is
    in float64, the cast comes last. Contexts are drawn with a seed and kept. `key_templates`.
    """
    started = time.time()
    site = default_site(model) if site is None else site
    objective = _checked(
        model, request, layer, site, key_statistics, variant, contexts, key_templates, seed,
        kl_template, mode,
        steps=steps, learning_rate=learning_rate, kl_weight=kl_weight, decay_weight=decay_weight,
        clamp=default_clamp(model) if clamp is None else clamp, stop_loss=stop_loss,
        stop_probability=None if model.has_attention else 0.9,
    )  # fmt: skip
    options = {
        "layer": layer, "site": site, "variant": variant, "key_statistics": key_statistics.digest,
        "contexts": None if contexts is None else list(contexts), "kl_template": kl_template,
        "key_templates": list(key_templates), **asdict(objective),
    }  # fmt: skip
    with model.lock, torch.inference_mode(False):
        place = projection(model, layer, site)
        before = efficacy(model, [request])
        used = rome_contexts(model, seed=seed) if contexts is None else tuple(contexts)
        plain = runs_plain(model, mode)
        rows = prompt_rows(model, [request], used) + subject_rows(model, [request], kl_template)
        batches = start(model, rows, layer, reading=place, plain=plain)
        keys = _keys(batches)[: len(used)]
        mean = _mean_key(model, request, place, keys, key_templates)
        value_before = place.value_of(keys[0])
        found = optimise(
            batches, lambda delta: at_projection(place, delta), value_before[None], objective
        )
        value = value_before + found.delta[0].double()
        delta, about = meeting(place, mean, keys[0], value, key_statistics.moment(layer), variant)
        edit = Edit((delta,), (request,), unedited_fingerprint(model), model.edits)
        data = {
            "key_mean": (("edit", "d_in"), mean[None].cpu().numpy()),
            "key_bare": (("edit", "d_in"), keys[:1].cpu().numpy()),
            "value_before": (("edit", "d_out"), value_before[None].cpu().numpy()),
            "value": (("edit", "d_out"), value[None].cpu().numpy()),
            **about,
            **curve_variables(found),
        }
        return measured(
            model, edit, before, data, method="rank_one_edit", options=options, contexts=used,
            seed=seed, started=started,
        )  # fmt: skip


def curve_variables(found: Optimised) -> dict[str, Any]:
    """Return the course of an optimisation as variables of the axes edit and step."""
    units = {"probability": "probability", "delta_norm": "activation"}
    held: dict[str, Any] = {
        name: (("edit", "step"), values, {"units": units.get(name, "nats")})
        for name, values in found.curves.items()
    }
    return {**held, "steps": ("edit", found.steps), "stopped": ("edit", list(found.stopped))}


def _keys(batches: Sequence[Any]) -> Tensor:
    return torch.cat([batch.keys for batch in batches]).double()


def _mean_key(
    model: "Model", request: EditRequest, place: Projection, keys: Tensor, templates: Sequence[str]
) -> Tensor:
    """Return the mean of the contexts' keys; half of it are those of the templates, if any."""
    rows = [row for text in templates for row in subject_rows(model, [request], text)]
    if not rows:
        return keys.mean(0)
    others = _keys(start(model, rows, place.layer, reading=place, plain=True))
    return (keys.mean(0) + others.mean(0)) / 2


def _checked(
    model: "Model",
    request: EditRequest,
    layer: int,
    site: str,
    key_statistics: object,
    variant: str,
    contexts: Sequence[str] | None,
    key_templates: Sequence[str],
    seed: int,
    kl_template: str,
    mode: str,
    **numbers: Any,
) -> Objective:
    """Check everything that can be checked before a forward pass; one error for all options."""
    as_requests(request)
    problems: list[str] = []
    objective: list[Objective] = []
    checks = (
        lambda: check_choice("variant", variant, VARIANTS),
        lambda: projection(model, layer, site),
        lambda: check_statistics(model, key_statistics, (layer,), site),
        lambda: check_contexts(contexts),
        lambda: check_templates(key_templates),
        lambda: check_whole("seed", seed, at_least=0),
        lambda: check_choice("mode", mode, ("auto", "wavefront", "plain")),
        lambda: objective.append(Objective(**numbers)),
        lambda: subject_rows(model, [request], kl_template),
    )
    collect(checks, problems)
    check_targets(model, [request])
    return objective[0]


def collect(checks: Sequence[Any], problems: list[str]) -> None:
    """Run checks and raise one OptionError for all that refuse; other errors pass.

    Raises:
        OptionError: listing everything that was refused.
    """
    for check in checks:
        try:
            check()
        except OptionError as err:
            problems.append(str(err))
        except MechlabError:
            if not problems:
                raise
    if problems:
        raise OptionError("\n".join(problems))


def check_statistics(
    model: "Model", key_statistics: object, layers: tuple[int, ...], site: str
) -> None:
    """Refuse what are not key statistics of these layers.

    Raises:
        OptionError: saying what does not fit.
    """
    if not isinstance(key_statistics, KeyStatistics):
        raise OptionError(
            f"key_statistics is {type(key_statistics).__name__}. Allowed: what "
            "ml.key_statistics(model, layer=...) returned. Make them first."
        )
    key_statistics.check(model, layers, site)
