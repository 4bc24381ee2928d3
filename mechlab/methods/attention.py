"""`attention_pattern`: where a few heads look, token by token."""

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from mechlab import engine
from mechlab.axes import Head
from mechlab.errors import OptionError
from mechlab.hooks import Intervention
from mechlab.models import chosen_heads
from mechlab.progress import Progress, ProgressCallback
from mechlab.prompts import Fact, PromptPair, PromptSet, as_prompt_set
from mechlab.results import analysis, new_result

if TYPE_CHECKING:
    from mechlab.models import Model

__all__ = ["attention_pattern"]

AT_ONCE = 8
_HINTS = ("model", "prompts", "progress", "max_batch", "started")


@analysis(version=1, prompt_kind="any", default_plot="attention")
def attention_pattern(
    model: "Model",
    prompts: PromptSet[Any] | Sequence[Fact] | Sequence[PromptPair] | Fact | PromptPair,
    *,
    heads: Sequence[Head | str],
    queries: Literal["all", "last"] = "all",
    run: Literal["clean", "corrupted"] = "clean",
    interventions: Sequence[Intervention] = (),
    max_batch: int | None = None,
    progress: ProgressCallback | None = None,
) -> xr.Dataset:
    """Return the attention weights of the heads named: for each token, how it reads the others.

    Only the heads named are kept, as all patterns of a large model on a long text are gigabytes.

    Args:
        model: a model with attention.
        prompts: facts or pairs; answers are not needed.
        heads: heads (`ml.Head` or `"L9H6"`), in the order of the axis `head_set`.
        queries: the rows kept: `all` tokens, or the `last` alone (the axis `query` is then -1).
        run: which prompt of a pair is run.
        interventions: changes that hold in the run.
        max_batch: prompts that run side by side.
        progress: called between batches; may raise `Cancelled`.

    Returns:
        Dataset with `pattern[prompt, head_set, query, key]`, weights behind the softmax, which add
        up to 1 over `key`; a key after its query is 0. Positions count from the first token of the
        unpadded prompt, and beyond its end cells are NaN. Coordinates: `token` of (prompt, key) and
        `query_token` of (prompt, query), empty beyond the end; `prompt_text`.

    Raises:
        OptionError: an option outside its choices, no head or what is none, facts with
            `run="corrupted"`.
        SiteError: a recurrent model; heads out of range, all at once; patterns that are not proven.
        PromptError: prompts that cannot be tokenised, all at once.
        Cancelled: when `progress` asked to stop.
    """
    started = time.time()
    options = {name: value for name, value in locals().items() if name not in _HINTS}
    engine.require_heads(model, "models with attention")
    engine.check_choice("queries", queries, ("all", "last"))
    engine.check_choice("run", run, ("clean", "corrupted"))
    engine.check_whole("max_batch", max_batch, at_least=1, optional=True)
    chosen = chosen_heads(model, heads)
    if not chosen:
        raise OptionError("heads=[]. Allowed: at least one, such as ['L5H3']. Name one.")
    options["heads"] = [str(head) for head in chosen]
    given = as_prompt_set(prompts, kind="any")
    texts = _texts(given, run)
    lengths = model.tokenize(texts).lengths
    bases = engine.check_bases(model, texts, lengths, interventions)
    checks = engine.verify(model)
    engine.require_proven(model, ["pattern"])
    places = [("pattern", layer) for layer in sorted({head.layer for head in chosen})]
    found: list[Tensor] = []
    for seen in engine.record(model, bases, places, at_once=max_batch or AT_ONCE):
        kept = [seen.values["pattern", head.layer][head.head] for head in chosen]
        found.append(torch.stack([p[-1:] if queries == "last" else p for p in kept]).cpu())
        if progress is not None:
            progress(Progress(len(found), len(bases), "prompts"))
    return new_result(
        {
            "pattern": (
                ("prompt", "head_set", "query", "key"),
                _padded(found, max(lengths)),
                {"units": "attention weight"},
            )
        },
        _coordinates(model, given, texts, [str(head) for head in chosen], queries),
        method="attention_pattern",
        version=1,
        model=model,
        prompts=given,
        options=options,
        seed=None,
        started=started,
        checks={"verify": checks.summary()},
    )


def _texts(prompts: PromptSet[Any], run: str) -> list[str]:
    if prompts.kind == "pair":
        return [pair.clean if run == "clean" else pair.corrupted for pair in prompts]
    if run == "corrupted":
        raise OptionError(
            "run='corrupted' of facts, which have one prompt. Allowed: 'clean'. Use pairs."
        )
    return [fact.prompt for fact in prompts]


def _padded(found: Sequence[Tensor], width: int) -> np.ndarray:
    """Return patterns of all prompts, `[prompt, head_set, query, key]`, NaN beyond their ends."""
    rows = max(pattern.shape[1] for pattern in found)
    out = np.full((len(found), found[0].shape[0], rows, width), np.nan, np.float32)
    for place, pattern in enumerate(found):
        out[place, :, : pattern.shape[1], : pattern.shape[2]] = pattern.float().numpy()
    return out


def _coordinates(
    model: "Model", prompts: PromptSet[Any], texts: Sequence[str], names: list[str], queries: str
) -> dict[str, Any]:
    strings = [list(model.token_strings(text)) for text in texts]
    width = max(map(len, strings))
    keys = [[*row, *[""] * (width - len(row))] for row in strings]
    last = queries == "last"
    return {
        "prompt": list(prompts.labels),
        "head_set": names,
        "query": [-1] if last else np.arange(width),
        "key": np.arange(width),
        "token": (("prompt", "key"), keys),
        "query_token": (("prompt", "query"), [row[-1:] for row in strings] if last else keys),
        "prompt_text": ("prompt", list(texts)),
    }
