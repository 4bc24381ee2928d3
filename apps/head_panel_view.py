"""What is known of one head on one prompt, as plain values. Nothing here touches Streamlit."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

import mechlab as ml
import runs
from request import Request

__all__ = [
    "HeadLook", "Score", "aimed", "answers_of", "attention_view", "look_at", "pattern_of",
    "previous_token", "scores_of", "sources", "tokens_of",
]  # fmt: skip

_LONG = 96  # tokens from which the last row is shown alone


@dataclass(frozen=True)
class Score:
    """What a detector says about a head."""

    name: str
    value: float
    about: str
    """Where the number comes from."""


@dataclass(frozen=True, eq=False)
class HeadLook:
    """One head on one prompt."""

    pattern: Any
    """Result of `ml.attention_pattern`."""
    tokens: Any
    """Result of `ml.head_tokens`; None on models whose heads cannot be decoded."""
    sources: Any
    """Result of `ml.direct_logit_attribution(by="head_source")`; None without an answer."""
    refused: str = ""
    """Why something is missing."""
    towards: tuple[str, ...] = ()
    """Answer, and wrong answer of a pair, between which `sources` splits the logits."""


def aimed(prompt: Any, target: str = "", foil: str = "") -> Any:
    """Return a fact or pair with other tokens as its answers; empty ones stay as they are.

    Raises:
        PromptError: when both are the same.
    """
    if hasattr(prompt, "clean"):
        right, wrong = target or prompt.answer, foil or prompt.wrong_answer
        return replace(prompt, answer=right, wrong_answer=wrong)
    if foil:
        return ml.prompts.PromptPair(prompt.prompt, prompt.prompt, target or prompt.target, foil)
    return replace(prompt, target=target or prompt.target)


def answers_of(prompt: Any) -> tuple[str, str]:
    """Return the answer and the wrong answer of a fact or pair, empty where it has none."""
    if hasattr(prompt, "clean"):
        return prompt.answer, prompt.wrong_answer
    return prompt.target or "", ""


def look_at(
    model: Any, prompt: Any, heads: list[str], *, run: str = "clean", aim: Any = None
) -> HeadLook:
    """Return what heads do on one prompt: one or three forward passes, or none if it is stored.

    Args:
        model: to look into.
        prompt: a fact or a pair.
        heads: such as `L5H1`.
        run: which prompt of a pair is read.
        aim: the prompt with the answers that writes are split between, if not its own; `aimed`.

    Raises:
        MechlabError: when there is no pattern: no attention, a head that is not there.
    """
    store, aim = ml.Store(), prompt if aim is None else aim
    pattern = store.run(ml.attention_pattern, model, prompt, heads=heads, run=run)
    try:
        tokens = store.run(ml.head_tokens, model, prompt, heads=heads, run=run)
    except (ml.SiteError, ml.ModelError) as error:
        return HeadLook(pattern, None, None, str(error).splitlines()[0])
    towards = tuple(filter(None, answers_of(aim)))
    if not towards:
        return HeadLook(pattern, tokens, None, "No answer is given, so there is no direct effect.")
    metric = "logit_diff" if len(towards) == 2 else "logit"
    direct = ml.direct_logit_attribution
    sources = store.run(direct, model, aim, by="head_source", metric=metric, run=run)
    return HeadLook(pattern, tokens, sources, towards=towards)


def attention_view(look: HeadLook, head: str) -> Any:
    """Return a head's pattern as a grid; of long texts only how the last token reads."""
    view = ml.plots.attention_views(look.pattern, heads=[head])[0]
    if view.shape[0] <= _LONG:
        return view
    return replace(
        view, values=view.values[-1:], state=view.state[-1:], row_labels=view.row_labels[-1:]
    )


def pattern_of(look: HeadLook, head: str) -> Any:
    """Return the weights as `[query, key]` without padding."""
    one = look.pattern["pattern"].sel(head_set=head).isel(prompt=0).values
    there = np.isfinite(one)
    return one[there.any(1)][:, there.any(0)]


def sources(look: HeadLook, layer: int, head: int) -> tuple[list[str], list[float], list[float]]:
    """Return tokens, what the head read at the last token from each, and what it wrote from it.

    The last list is empty where the head's writes have no direct effect to tell.
    """
    weights = pattern_of(look, f"L{layer}H{head}")[-1]
    row = [str(token) for token in look.pattern["token"].isel(prompt=0).values][: len(weights)]
    labels = [ml.plots.show_token(token, place) for place, token in enumerate(row)]
    if look.sources is None:
        return labels, weights.tolist(), []
    told = look.sources["source_attribution"].isel(prompt=0, layer=layer, head=head).values
    return labels, weights.tolist(), told[: len(weights)].tolist()


def tokens_of(look: HeadLook, head: str) -> tuple[list[tuple[str, float]], list[tuple[str, float]]]:
    """Return the tokens that the head raises most, and those that it lowers most, with logits."""
    if look.tokens is None:
        return [], []
    one = look.tokens.sel(head_set=head).isel(prompt=0)

    def listed(name: str) -> list[tuple[str, float]]:
        words = [ml.plots.show_token(str(token)) for token in one[f"{name}_token"].values]
        return list(zip(words, one[f"{name}_logit"].values.tolist(), strict=True))

    return listed("raised"), listed("lowered")


def previous_token(look: HeadLook, head: str) -> Score | None:
    """Return how much the head reads the token before, on average over this prompt."""
    weights = pattern_of(look, head)
    if weights.shape[0] < 3:
        return None
    mean = float(np.diagonal(weights, -1)[1:].mean())  # the second token has only one before it
    return Score("previous token", mean, "mean weight on the token before, on this prompt")


def scores_of(request: Request, layer: int, head: int) -> list[Score]:
    """Return what stored detector runs of this model say about a head."""
    found = []
    for name, method, variable, about in (
        ("retrieval", "retrieval_score", "retrieval_score", "share of needle tokens copied"),
        ("induction", "induction_scores", "prefix_matching", "weight behind the earlier copy"),
    ):
        record = next((r for r in runs.recent((method,)) if _same_model(r, request)), None)
        result = None if record is None else runs.load(record.id)
        if record is None or result is None or variable not in result:
            continue
        array = result[variable]
        mean = array.mean([d for d in array.dims if d not in ("layer", "head")], skipna=True)
        if layer < mean.sizes.get("layer", 0) and head < mean.sizes.get("head", 0):
            value = float(mean.transpose("layer", "head").values[layer, head])
            if np.isfinite(value):
                found.append(Score(name, value, f"{about}, run {record.id}"))
    return found


def _same_model(record: Any, request: Request) -> bool:
    about = record.provenance
    same_dtype = about.get("model_dtype", request.dtype) == request.dtype
    return bool(record.model_name == request.model_name and same_dtype)
