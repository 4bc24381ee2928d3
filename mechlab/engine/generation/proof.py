"""Is the twin equal to the bridge on this model? Tried before its first use, kept with the model.

The bridge runs a few tokens with its own eager attention, patterns and all. The twin runs the same
tokens in chunks, then step by step; logits, the most attended positions and watched sums must
agree, and silencing one head must change the logits as a hook on the bridge changes them.
"""

import weakref
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from mechlab.axes import Head
from mechlab.engine.batching import is_out_of_memory
from mechlab.engine.generation.masks import Factors, HeadMask
from mechlab.engine.generation.path import Path
from mechlab.engine.generation.prefixes import Part
from mechlab.engine.generation.steps import Steps
from mechlab.engine.generation.twin import Twin, make_twin
from mechlab.engine.verify import TOLERANCE
from mechlab.errors import ModelError, SiteError
from mechlab.hooks import Place, Placement, Scale, Site, attach, compile_edits, live_sites

if TYPE_CHECKING:
    from mechlab.models import Model

__all__ = ["check_attention", "proven_twin"]

LENGTH, STEPS, CHUNK = 20, 4, 7
"""Tokens of the trial, how many of them run step by step, and how many at once before that."""


@dataclass(frozen=True)
class _Proof:
    """What came of a trial: the twin, the edits in force during it, and what did not agree."""

    twin: Twin | None
    edits: tuple[str, ...]
    problem: str


_proofs: "weakref.WeakKeyDictionary[Model, _Proof]" = weakref.WeakKeyDictionary()


def check_attention(model: "Model") -> None:
    """Refuse a model without attention, which needs no trial.

    Raises:
        ModelError: when its blocks are recurrent.
    """
    if not model.has_attention:
        raise _refusal(model, "its blocks hold no attention")


def proven_twin(model: "Model") -> Twin:
    """Return a model's twin; it is compared with the bridge at first, and under each new edit.

    Raises:
        ModelError: when it cannot be made or does not agree.
    """
    proof = _proofs.get(model)
    if proof is None or proof.edits != model.edits:
        _proofs[model] = proof = _tried(model, None if proof is None else proof.twin)
    if proof.problem or proof.twin is None:
        raise _refusal(model, proof.problem)
    return proof.twin


def _refusal(model: "Model", problem: str) -> ModelError:
    return ModelError(
        f"{model.name} ({model.family}) cannot generate with masked heads and read attention: "
        f"{problem}.\n  Allowed: models with attention that transformers lets one replace; GPT-2, "
        "GPT-NeoX and Llama are proven, with weights='raw'.\n"
        "  Load it with raw weights, or choose another model."
    )


def _tried(model: "Model", twin: Twin | None) -> _Proof:
    try:
        known, twin = twin is not None, twin or make_twin(model)
        twin.link()
        return _Proof(twin, model.edits, _difference(model, twin, again=known))
    except Exception as error:  # an architecture that does not fit may raise anything
        if is_out_of_memory(error):
            raise
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        return _Proof(None, model.edits, reason)


def _difference(model: "Model", twin: Twin, *, again: bool = False) -> str:
    """Return in what twin and bridge differ, an empty string when in nothing.

    Args:
        model: the model.
        twin: its twin.
        again: whether it agreed before and only weights were edited: logits tell.
    """
    length = min(LENGTH, (model.n_ctx or LENGTH))
    ids = torch.arange(length).mul(7919).add(11).remainder(model.d_vocab).tolist()
    tolerance = TOLERANCE.get(model.dtype, 1e-2)
    logits, patterns = _bridge(model, ids)
    path = Path(model, twin, length, CHUNK)
    start = max(1, length - STEPS)
    path.reach(ids[: start - 1])
    if problem := _unlike(path.peek(ids[start - 1 :], None), logits[start - 1 :], tolerance):
        return f"logits of chunks differ from the bridge's by {problem}"
    if again:
        return ""
    watched = [0, start - 1]
    found = _stepped(path, ids, watched)
    for at, (stepped, attended, mass) in zip(range(start - 1, length), found, strict=True):
        if problem := _unlike(stepped, logits[at], tolerance):
            return f"logits of single steps differ from the bridge's by {problem}"
        rows = patterns[:, :, at, : at + 1]
        seen = rows.gather(-1, attended.long()[..., None])[..., 0]
        if bool((rows.amax(-1) - seen > tolerance).any()):
            return "the most attended positions are not the bridge's"
        if bool(((rows[..., watched].sum(-1) - mass).abs() > tolerance).any()):
            return "sums of attention are not the bridge's"
    head = Head(model.n_layers // 2, (model.n_heads or 1) - 1)
    silenced = path.peek(ids[start - 1 :], HeadMask((head,), "zero"))
    expected = _bridge(model, ids, silence=(head, start - 1))[0][start - 1 :]
    if problem := _unlike(silenced, expected, tolerance):
        return f"logits without {head} differ from the bridge's by {problem}"
    return ""


def _bridge(
    model: "Model", ids: list[int], silence: tuple[Head, int] | None = None
) -> tuple[Tensor, Tensor]:
    """Return the bridge's log-probabilities `[pos, vocab]`, patterns `[layer, head, query, key]`.

    Args:
        model: the model.
        ids: tokens.
        silence: a head whose output is zero from a position on.
    """
    if missing := {"pattern", "z"} - set(live_sites(model)):
        raise SiteError(f"the bridge has no {' and no '.join(sorted(missing))} to compare with")
    patterns: list[Tensor] = []
    reads: dict[Place, Callable[[Tensor], None]] = {
        ("pattern", layer): patterns.append for layer in range(model.n_layers)
    }
    changes: list[Scale] = []
    if silence is not None:
        head, first = silence
        where = [Site("z", head.layer, head=head.head, pos=at) for at in range(first, len(ids))]
        changes = [Scale(site, 0.0) for site in where]
    placement = Placement([0], [""], len(ids), model.d_model)
    edits = compile_edits([changes], placement, device=model.device)
    with attach(model, edits, reads) as attached:
        tokens = torch.tensor([ids], device=model.device)
        logits = model.bridge(tokens, use_cache=False)[0]
    attached.require_all_fired(model.name)
    return logits.float().log_softmax(-1), torch.stack([p[0].float() for p in patterns])


def _stepped(path: Path, ids: list[int], watched: list[int]) -> list[tuple[Tensor, Tensor, Tensor]]:
    """Run what follows the path token by token: logits, attended and mass after each."""
    model, length = path.model, len(path.tokens)
    device = model.device
    steps = Steps(
        [Part(path.keys, path.values, [length], [0], [0])],
        Factors([None], n_heads=model.n_heads or 0, device=device),
        (torch.tensor([watched], device=device), torch.ones(1, len(watched), device=device)),
        attention=True,
    )
    found = []
    for token in ids[length:]:
        column = torch.tensor([[token]], device=device)
        logits = path.twin.run(column, steps.positions, steps, keep=1)[0, -1]
        steps.done += 1
        layers = range(model.n_layers)
        attended = torch.stack([steps.attended[layer][0] for layer in layers])
        mass = torch.stack([steps.mass[layer][0] for layer in layers])
        found.append((logits, attended, mass))
    return found


def _unlike(ours: Tensor, theirs: Tensor, tolerance: float) -> str:
    """Return by how much log-probabilities differ, an empty string when within the tolerance."""
    gap = float((ours.log_softmax(-1) - theirs).abs().max())
    allowed = tolerance * max(1.0, float(theirs.abs().max()))
    return "" if gap <= allowed else f"{gap:.1e}"
