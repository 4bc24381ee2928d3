"""Loaded models of this process: at most two, keyed by every argument that they were loaded with.

Lives in an imported module because worker threads use it, and these never call Streamlit. Torch is
imported when the first model is loaded, not before.
"""

import gc
import sys
import threading
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

import mechlab as ml

__all__ = [
    "PromptCheck", "answer_problem", "check", "drop_all", "heads_per_key", "is_loaded", "load",
    "summary", "support", "tokens",
]  # fmt: skip

_MOST = 2
_lock = threading.Lock()
_models: OrderedDict[tuple[tuple[str, Any], ...], Any] = OrderedDict()


def load(arguments: dict[str, Any]) -> Any:
    """Return the model for these arguments of `load_model`, loading it if need be.

    Raises:
        ModelError: when it cannot be loaded.
    """
    key = _key(arguments)
    with _lock:  # one load at a time: two at once would need the memory twice
        if key not in _models:
            while len(_models) >= _MOST:
                _models.popitem(last=False)
                _free_memory()
            rest = {name: value for name, value in arguments.items() if name != "name"}
            _models[key] = ml.load_model(arguments["name"], **rest)
        _models.move_to_end(key)
        return _models[key]


def is_loaded(arguments: dict[str, Any]) -> bool:
    """Return whether a request with these arguments would start without loading."""
    return _key(arguments) in _models


def summary(arguments: dict[str, Any]) -> dict[str, str]:
    """Return facts about a loaded model, for people; empty when it is not loaded."""
    model = _models.get(_key(arguments))
    if model is None:
        return {}
    heads = "none (recurrent)" if model.n_heads is None else f"{model.n_heads} per layer"
    return {
        "architecture": str(model.family),
        "layers": str(model.n_layers),
        "width": str(model.d_model),
        "attention heads": heads,
        "vocabulary": f"{model.d_vocab:,}",
        "precision": str(model.dtype).removeprefix("torch."),
        "device": str(model.device),
        "fingerprint": str(model.fingerprint)[:12],
    }


def heads_per_key(arguments: dict[str, Any]) -> int:
    """Return how many query heads of a loaded model share keys; 1 when it is not loaded."""
    model = _models.get(_key(arguments))
    if model is None or model.n_heads is None:
        return 1
    return int(model.n_heads // model.n_kv_heads)


def tokens(arguments: dict[str, Any], text: str) -> list[str]:
    """Return the tokens that a loaded model sees in a text; empty when it is not loaded.

    Raises:
        PromptError: when the model cannot read the text.
    """
    model = _models.get(_key(arguments))
    return [] if model is None else list(model.token_strings(text))


def answer_problem(arguments: dict[str, Any], prompt: str, answer: str) -> str:
    """Return why an answer is not one token after a prompt; empty when it is, or nobody knows yet.

    Only a loaded model can tell.
    """
    model = _models.get(_key(arguments))
    if model is None:
        return ""
    try:
        (ids,) = model.answer_tokens([prompt], [answer], answer="full")
    except ml.MechlabError as error:
        return str(error).splitlines()[0]
    pieces = [model.token_string(token) for token in ids]
    return "" if len(pieces) == 1 else f"{len(pieces)} tokens ({' + '.join(map(repr, pieces))})"


def support(arguments: dict[str, Any]) -> dict[str, str] | None:
    """Return which sites a loaded model was proven to have: `ok`, or why one cannot be used.

    None before it was checked, which the first run does, and the button Load.
    """
    model = _models.get(_key(arguments))
    checks = getattr(model, "checks", None)
    if checks is None:
        return None
    return {
        str(site): "ok" if checks.usable(site) else checks.reason(site) for site in checks.sites
    }


@dataclass(frozen=True)
class PromptCheck:
    """What a loaded model makes of one fact."""

    tokens: list[str]
    """Of the prompt, BOS included."""
    subject: tuple[int, int] | None
    """First and last token of the subject."""
    target: list[str]
    """Tokens of the answer, as it continues the prompt; scored is the first one."""
    problems: list[str]
    """What does not fit, in sentences."""


def check(arguments: dict[str, Any], fact: Any) -> PromptCheck | None:
    """Return what a loaded model makes of a fact; None when it is not loaded."""
    model = _models.get(_key(arguments))
    if model is None:
        return None
    problems: list[str] = []
    seen: list[str] = []
    subject: tuple[int, int] | None = None
    target: list[str] = []
    try:
        seen = list(model.token_strings(fact.prompt))
        subject = model.subject_positions(fact)
        if fact.target:
            (ids,) = model.answer_tokens([fact.prompt], [fact.target], answer="full")
            target = [model.token_string(token) for token in ids]
    except ml.MechlabError as error:
        problems.append(str(error))
    if len(target) > 1:
        pieces = " + ".join(repr(token) for token in target)
        problems.append(
            f"The answer has {len(target)} tokens ({pieces}): only the first one is scored."
        )
    return PromptCheck(seen, subject, target, problems)


def drop_all() -> None:
    """Forget every loaded model and free its memory."""
    with _lock:
        if _models:
            _models.clear()
            _free_memory()


def _key(arguments: dict[str, Any]) -> tuple[tuple[str, Any], ...]:
    return tuple(sorted(arguments.items(), key=lambda item: item[0]))


def _free_memory() -> None:
    gc.collect()
    torch = sys.modules.get("torch")  # nothing was loaded if it is not there
    if torch is not None and torch.cuda.is_available():
        torch.cuda.empty_cache()
