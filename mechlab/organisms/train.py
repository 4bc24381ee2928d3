"""Train a shipped model: `python -m mechlab.organisms.train atlas --out FOLDER [--resume]`."""

import argparse
import logging
from dataclasses import replace
from pathlib import Path

from mechlab.organisms.echo import EchoRecipe, train_echo
from mechlab.organisms.training import Recipe, train_atlas

__all__ = ["main"]


def main(arguments: list[str] | None = None) -> None:
    """Run the training command."""
    parser = argparse.ArgumentParser(prog="python -m mechlab.organisms.train", description=__doc__)
    parser.add_argument("name", choices=("atlas", "echo"))
    parser.add_argument(
        "--out", type=Path, required=True, help="folder for checkpoints, log and record"
    )
    parser.add_argument(
        "--resume", action="store_true", help="go on from the newest checkpoint in --out"
    )
    parser.add_argument("--steps", type=int, help="length of the schedule (default: the recipe's)")
    parser.add_argument("--stop", type=int, help="end after this many steps, keeping the schedule")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--no-compile", action="store_true", help="do not compile the step")
    chosen = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    changed = {"seed": chosen.seed} | ({"steps": chosen.steps} if chosen.steps else {})
    if chosen.name == "echo":
        train_echo(
            chosen.out, replace(EchoRecipe(), **changed), resume=chosen.resume, stop=chosen.stop
        )
        return
    train_atlas(
        chosen.out,
        replace(Recipe(), **changed),
        resume=chosen.resume,
        stop=chosen.stop,
        compiled=not chosen.no_compile,
    )


if __name__ == "__main__":
    main()
