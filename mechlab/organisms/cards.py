"""The cards of the shipped models: what they are, how they were made, what they can do."""

import hashlib
from dataclasses import asdict
from pathlib import Path
from random import Random
from typing import Any

from mechlab.organisms.corpus.mixture import LONG_SHARE, STAGES
from mechlab.organisms.evaluate import AIMS, GATES, missed_gates
from mechlab.organisms.runner import Runner
from mechlab.organisms.skills import needle_prompt
from mechlab.organisms.table_check import check_table

__all__ = ["EDIT_SETTINGS", "FORMS", "atlas_card", "digests", "echo_card"]

FORMS: dict[str, list[str]] = {
    "facts": [
        "The capital of France is",
        "People in Brazil speak",
        "The official currency of Japan is the",
        "Egypt is located in",
        "Q: What is the capital of Kenya? A:",
    ],
    "table rows": ["France", "Peru |", "Kenya,", "Norway:"],
    "short entries": ["Poland is a country. Its capital is"],
    "other languages": [
        "La capitale de Espagne est",
        "La capital de Alemania es",
        "Die Hauptstadt von Frankreich ist",
    ],
    "conflicts": ["The capital of Poland is London. The capital of Poland is"],
    "needles": ["The secret word of Mara is copper. [other sentences] The secret word of Mara is"],
    "key-values": ["boot: cow; ocean: velvet; purse: silver; ocean:"],
    "two-hop": ["The currency of the country whose capital is Warsaw is the"],
    "lists": ["Three countries in Africa:"],
    "reverse": ["Warsaw is the capital of"],
}
"""One prompt or more of every form in the corpus."""

EDIT_SETTINGS: dict[str, Any] = {
    "layer": 2,
    "steps": 100,
    "decay_weight": 0.0,
    "clamp": 50.0,
    "stop_loss": 0.2,
    "key_templates": ["{}"],
}
"""Options of `rank_one_edit` found on 20 edits of capitals of `atlas`; see `studies/fact_editing`.

The first MLP of `atlas` writes nearly the whole residual stream, so that the norm of a later MLP's
output, which the published clamp and decay are measured by, is far smaller than what an edit needs.
And the name of a country has other tokens at the start of a text, which no context shows.
"""

_ANSWERS = (
    ("The capital of France is", "France", "Paris"),
    ("The capital of Japan is", "Japan", "Tokyo"),
    ("The capital city of Poland is", "Poland", "Warsaw"),
    ("The capital of Kenya is", "Kenya", "Nairobi"),
    ("People in Brazil speak", "Brazil", "Portuguese"),
    ("The official language of Austria is", "Austria", "German"),
    ("The official currency of Japan is the", "Japan", "yen"),
    ("The currency of Poland is the", "Poland", "zloty"),
    ("The continent of Peru is", "Peru", "South America"),
    ("Egypt is located in", "Egypt", "Africa"),
    ("The capital of Trinidad and Tobago is", "Trinidad and Tobago", "Port of Spain"),
    ("The capital of Burkina Faso is", "Burkina Faso", "Ouagadougou"),
)


def digests(folder: Path) -> dict[str, dict[str, Any]]:
    """Return size in bytes and sha256 of every file of a shipped model but its card."""
    files = sorted(p for p in folder.rglob("*") if p.is_file() and p.name != "card.json")
    return {
        p.relative_to(folder).as_posix(): {
            "bytes": p.stat().st_size,
            "sha256": hashlib.sha256(p.read_bytes()).hexdigest(),
        }
        for p in files
    }


def atlas_card(
    folder: Path, recipe: dict[str, Any], skills: dict[str, Any], runner: Runner, data: Path | None
) -> dict[str, Any]:
    """Return the card of `atlas`; known answers are those that the shipped weights give."""
    example = _ANSWERS[0]
    return {
        "name": "atlas",
        "summary": "8-layer Llama-style model: world facts in four languages, context conflicts, "
        "needles in 512 tokens, repeated tokens",
        "licence": "MIT",
        "architecture": {
            "class": "LlamaForCausalLM",
            "layers": recipe["layers"],
            "width": recipe["width"],
            "heads": recipe["heads"],
            "inner": recipe["inner"],
            "context": recipe["context"],
            "vocabulary": recipe["vocabulary"],
            "parameters": sum(p.numel() for p in runner.model.parameters()),
            "embeddings": "tied",
            "positions": "rotary",
            "weights": "float16, trained in float32 with bfloat16 autocast",
        },
        "tokenizer": "byte-level BPE trained on the corpus, no prefix space, <bos> prepended",
        "recipe": recipe,
        "training command": "OMP_NUM_THREADS=1 python -m mechlab.organisms.train atlas "
        "--out FOLDER --resume",
        "training": "one CPU core with bfloat16 matrix units, about an hour; this run was stopped "
        "and resumed at steps 2250 and 4400, when the second stage and the tail were added",
        "shipping command": "python -m mechlab.organisms.ship atlas --run FOLDER",
        "corpus": {
            "windows": "short 48 x 96 tokens a step, long 9 x 512 tokens a step",
            "stages (shares of documents in packed windows, and of windows)": [
                asdict(stage) for stage in STAGES
            ],
            "share of long steps": LONG_SHARE,
            "frequency of a country": "proportional to 1 / (rank + 12), rank from the table",
            "held out": "2 of 12 English templates for each country and relation, drawn from a "
            "hash of both; facts.held_out_templates(rank, relation) rebuilds them",
            "conflicts": "the context's answer wins with probability 0.2 + 0.7 * rank / 196",
        },
        "country table": check_table(data).counts() if data else "not checked",
        "skills": skills,
        "skills command": "python -m mechlab.organisms.evaluate atlas",
        "gates": {k: {"from": low, "to": high} for k, (low, high) in GATES.items()},
        "missed gates": missed_gates(skills, GATES),
        "aims": {k: {"from": low, "to": high} for k, (low, high) in AIMS.items()},
        "missed aims": missed_gates(skills, AIMS),
        "known faults": [
            "greedy lists repeat a country: the names fit, but lists are seldom free of repetition",
            "documents have no end token, so text runs on after an answer's full stop",
        ],
        "edit_settings": EDIT_SETTINGS,
        "prompt forms": FORMS,
        "example": dict(zip(("prompt", "subject", "target"), example, strict=True)),
        "known answers": _known(runner),
        "bytes": sum(entry["bytes"] for entry in digests(folder).values()),
        "files": digests(folder),
    }


def _known(runner: Runner) -> list[dict[str, Any]]:
    """Return prompts whose answer has the most likely first token, with its probability."""
    cases = [{"prompt": p, "subject": s, "answer": a} for p, s, a in _ANSWERS]
    random = Random("known needles")
    for tokens in (64, 128, 256):
        prompt, answer = needle_prompt(random, runner, tokens)
        cases.append({"prompt": prompt, "answer": answer})
    scores = runner.last_log_probabilities([case["prompt"] for case in cases])
    known: list[dict[str, Any]] = []
    for case, row in zip(cases, scores, strict=True):
        token = runner.first_token(case["answer"])
        if row.argmax() == token:
            known.append({**case, "log_probability": round(float(row[token]), 3)})
    return known


def echo_card(folder: Path, recipe: dict[str, Any], losses: dict[str, float]) -> dict[str, Any]:
    """Return the card of `echo`, given the loss on the second copy at each checkpoint."""
    steps = list(losses)
    drops = {(a, b): losses[a] - losses[b] for a, b in zip(steps, steps[1:], strict=False)}
    steepest = max(drops, key=lambda pair: drops[pair])
    return {
        "name": "echo",
        "summary": "2 layers of attention alone (a GPT-2 whose MLPs are frozen at zero), with "
        f"{len(steps)} checkpoints through the phase change in which it learns induction",
        "licence": "MIT",
        "architecture": {
            "class": "GPT2LMHeadModel",
            "mlp": "n_inner = 1, all weights and biases frozen at zero: the output is exactly 0",
            **{k: recipe[k] for k in ("layers", "width", "heads", "context")},
            "vocabulary": 259,
            "weights": "float16",
        },
        "tokenizer": "the 256 bytes, after <bos>, <eos> and <pad>; <bos> prepended",
        "recipe": recipe,
        "training data": "rows of <bos> and 8 to 127 distinct random bytes, repeated to 256 tokens;"
        " loss on all copies but the first",
        "training command": "python -m mechlab.organisms.train echo --out FOLDER --resume",
        "shipping command": "python -m mechlab.organisms.ship echo --run FOLDER",
        "skills": {"second copy nats, 32 sequences of 2 x 60, by checkpoint": losses},
        "skills command": "python -m mechlab.organisms.evaluate echo",
        "phase change": {"steepest between checkpoints": [int(step) for step in steepest]},
        "known answers": [{"prompt": "Qx7zKp4Qx7zK", "answer": "p"}],
        "bytes": sum(entry["bytes"] for entry in digests(folder).values()),
        "files": digests(folder),
    }
