"""What making an edit would take, said without running the model (`--estimate`)."""

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mechlab.cli.editing.plan import EditPlan
    from mechlab.methods import Edit
    from mechlab.models import Model
    from mechlab.prompts import EditRequest
    from mechlab.store import Store

__all__ = ["print_estimate"]


def print_estimate(
    store: "Store",
    model: "Model",
    plan: "EditPlan",
    requests: "Sequence[EditRequest]",
    loaded: "Edit | None",
    *,
    as_json: bool,
) -> None:
    """Say what making the edit would take, without running the model."""
    from mechlab.canonical import digest

    key = digest(plan.source(model, requests))
    alone = plan.method == "memit" or len(requests) == 1
    stored = loaded is not None or (alone and key in store)
    contexts = {"rank-one": 22, "memit": 7, "fine-tune": 1}[plan.method]
    if plan.options.get("contexts"):
        contexts = len(plan.options["contexts"]) + 1  # and the sentence that shall stay as it was
    steps = int(plan.options.get("steps", 25 if plan.method == "fine-tune" else 20))
    rows = 0 if stored else len(requests) * steps * contexts
    tokens = 0
    if not stored and plan.needs_statistics:
        tokens = int(plan.statistics.get("tokens", 100_000))
    about = {
        "stored": stored,
        "layers": list(plan.layers) if loaded is None else sorted(set(loaded.layers)),
        "key_statistics_tokens": tokens,
        "optimised_rows": rows,
    }
    if as_json:
        print(json.dumps(about))
    elif stored:
        print("the edit is made already; only what it does would be measured")
    else:
        counted = f"key statistics of {tokens:,} tokens, unless they are stored; " if tokens else ""
        print(
            f"{len(requests)} request(s), layers {list(plan.layers)}: {counted}up to {rows:,} runs "
            "of a prompt forward and back from the edited layer on"
        )
