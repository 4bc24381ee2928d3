"""Measure a shipped model: `python -m mechlab.organisms.evaluate atlas`, as JSON."""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from mechlab.organisms.runner import Runner
from mechlab.organisms.shipped import path
from mechlab.organisms.skills import measure

__all__ = ["AIMS", "GATES", "evaluate_atlas", "evaluate_echo", "main", "missed_gates", "runner_of"]

GATES: dict[str, tuple[float, float]] = {
    "facts seen / all": (0.98, 1.0),
    "facts held out / all": (0.95, 1.0),
    "repeats second copy nats": (0.0, 0.7),
    "conflicts / context": (0.40, 0.85),
    "conflicts / both in top two": (0.90, 1.0),
    "needles 256": (0.95, 1.0),
}
"""What `atlas` must reach: lowest and highest value."""

AIMS: dict[str, tuple[float, float]] = {
    "needles 512": (0.90, 1.0),
    "key-values 20 pairs": (0.90, 1.0),
    "two-hop seen": (0.90, 1.0),
    "two-hop held out": (0.90, 1.0),
    "lists / names valid": (0.90, 1.0),
    "lists / lists valid and distinct": (0.90, 1.0),
    "languages / fr": (0.90, 1.0),
    "languages / es": (0.90, 1.0),
    "languages / de": (0.90, 1.0),
}
"""What it aims at; a miss is reported."""


def runner_of(folder: Path) -> Runner:
    """Return the model of a folder, in float32 on the CPU, ready for measuring."""
    import torch
    from tokenizers import Tokenizer
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(str(folder), dtype=torch.float32)
    return Runner(model.eval(), Tokenizer.from_file(str(folder / "tokenizer.json")))


def evaluate_atlas(folder: Path) -> dict[str, Any]:
    """Return all skills of an `atlas` folder."""
    return dict(measure(runner_of(folder)))


def evaluate_echo(folder: Path) -> dict[str, float]:
    """Return the loss in nats on the second copy of 60 random bytes, by checkpoint."""
    from mechlab.organisms.echo import second_copy_loss

    folders = sorted((folder / "checkpoints").glob("step-*"))
    return {
        str(int(part.name.removeprefix("step-"))): round(second_copy_loss(runner_of(part).model), 4)
        for part in folders
    }


def missed_gates(skills: dict[str, Any], gates: dict[str, tuple[float, float]]) -> list[str]:
    """Return the names of the gates that measured skills do not reach."""
    missed = []
    for name, (low, high) in gates.items():
        value: Any = skills
        for part in name.split(" / "):
            value = value[part]
        if not low <= value <= high:
            missed.append(name)
    return missed


def main(arguments: list[str] | None = None) -> None:
    """Run the command; exit code 1 when a gate is missed."""
    parser = argparse.ArgumentParser(
        prog="python -m mechlab.organisms.evaluate", description=__doc__
    )
    parser.add_argument("name", choices=("atlas", "echo"))
    parser.add_argument("--folder", type=Path, help="a model folder other than the shipped one")
    chosen = parser.parse_args(arguments)
    if chosen.name == "echo":
        sys.stdout.write(json.dumps(evaluate_echo(path("echo").parents[1]), indent=1) + "\n")
        return
    skills = evaluate_atlas(chosen.folder or path("atlas"))
    missed = missed_gates(skills, GATES)
    report = {"skills": skills, "missed gates": missed, "missed aims": missed_gates(skills, AIMS)}
    sys.stdout.write(json.dumps(report, indent=1) + "\n")
    if missed:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
