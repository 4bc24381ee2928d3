"""How far an edit moves predictions on fixed sentences, kept beside the edit's result.

Nothing here touches Streamlit.
"""

import hashlib
from typing import Any

import numpy as np

import mechlab as ml

__all__ = ["measure", "sentences", "told"]


def sentences(count: int, subject: str) -> tuple[str, ...]:
    """Return true sentences about countries, none about the subject: the same ones every time."""
    facts = ml.prompts.world_facts(relations=("capital", "language", "currency", "continent"))
    others = [f"{one.prompt} {one.target}." for one in facts if one.subject != subject]
    return tuple(others[:: max(1, len(others) // count)][:count])


def measure(store: Any, model: Any, story: Any, key: str, count: int, progress: Any) -> None:
    """Compare predictions before and with the edit of a result, and keep the comparison.

    The edit is in force for the second look only.
    """
    edit = ml.swept_edit(story)
    source = _source(story, key, count)
    if store.kept(source) is not None:
        return
    reference = ml.next_token_reference(
        model, sentences(count, edit.requests[0].subject), progress=progress
    )
    with edit.applied(model):
        moved = ml.prediction_drift(model, reference, progress=progress)
    store.keep(source, moved, name=f"drift by {edit.requests[0].label}")


def told(story: Any, key: str, count: int) -> tuple[float, float, float, int] | None:
    """Return the mean divergence in nats with its 95 % interval, and how many sentences there were.

    None when it was not measured.
    """
    held = ml.Store().kept(_source(story, key, count))
    if held is None:
        return None
    each = held["kl"].mean("pos")
    found = ml.statistics.bootstrap_interval(each)
    ends = (float(found["low"]), float(found["high"]))
    return float(np.nanmean(each.values)), max(ends[0], 0.0), ends[1], int(each.sizes["prompt"])


def _source(story: Any, key: str, count: int) -> dict[str, Any]:
    texts = "\n".join(sentences(count, str(story["request_subject"].values[0])))
    return {
        "method": "prediction_drift",
        "method_version": 1,
        "model": str(story.attrs["model_fingerprint"]),
        "options": {"edit_of_run": key, "sentences": count},
        "prompts": hashlib.sha256(texts.encode()).hexdigest(),
    }
