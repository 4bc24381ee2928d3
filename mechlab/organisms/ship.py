"""Turn a training run into a shipped folder: `python -m mechlab.organisms.ship atlas --run DIR`."""

import argparse
import json
import os
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mechlab.organisms.cards import atlas_card, echo_card
from mechlab.organisms.echo import EchoRecipe, build_echo, echo_tokenizer
from mechlab.organisms.evaluate import evaluate_atlas, evaluate_echo, runner_of
from mechlab.organisms.states import restore_state, saved_states
from mechlab.organisms.tokenizing import save_tokenizer
from mechlab.organisms.training import Recipe, build_model

if TYPE_CHECKING:
    import torch

__all__ = ["main", "ship_atlas", "ship_echo"]

HERE = Path(__file__).parent


def ship_atlas(run: Path, into: Path, data: Path | None) -> None:
    """Write the newest state of an `atlas` run as a model folder with its card.

    Args:
        run: the folder given to training as `--out`.
        into: the model folder, made anew.
        data: folder of the public tables that the country table is checked against.
    """
    state = saved_states(run)[-1]
    recipe = Recipe(**json.loads((state / "recipe.json").read_text(encoding="utf-8")))
    model = build_model(recipe)
    restored = restore_state(run, model, None)
    _fresh(into)
    _save(model, into)
    for name in ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"):
        if (run / name).exists():
            shutil.copy(run / name, into / name)
    shutil.copy(run / "acquisition.npz", into / "acquisition.npz")
    skills = evaluate_atlas(into)
    step = restored[0] if restored else 0
    card = atlas_card(into, asdict(recipe) | {"steps done": step}, skills, runner_of(into), data)
    _write(card, into)


def ship_echo(run: Path, into: Path) -> None:
    """Write all checkpoints of an `echo` run as model folders, with one card."""
    from safetensors.torch import load_file

    recipe = EchoRecipe()
    model = build_echo(recipe)
    _fresh(into)
    for file in sorted((run / "checkpoints").glob("step-*.safetensors")):
        folder = into / "checkpoints" / file.stem
        model.load_state_dict(load_file(str(file)), strict=False)
        _save(model, folder)
        save_tokenizer(echo_tokenizer(), folder, recipe.context)
    _write({}, into)  # names the model, so that its checkpoints can be measured
    _write(echo_card(into, asdict(recipe), evaluate_echo(into)), into)


def _save(model: "torch.nn.Module", folder: Path) -> None:
    """Write weights in float16 and the configuration."""
    from copy import deepcopy

    saved: Any = deepcopy(model).half()
    saved.save_pretrained(str(folder))


def _fresh(folder: Path) -> None:
    if folder.exists():
        shutil.rmtree(folder)
    folder.mkdir(parents=True)


def _write(card: dict[str, Any], folder: Path) -> None:
    text = json.dumps(card, indent=1, ensure_ascii=False) + "\n"
    (folder / "card.json").write_text(text, encoding="utf-8")


def main(arguments: list[str] | None = None) -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(prog="python -m mechlab.organisms.ship", description=__doc__)
    parser.add_argument("name", choices=("atlas", "echo"))
    parser.add_argument("--run", type=Path, required=True, help="what training wrote")
    parser.add_argument("--into", type=Path, help="folder to write (default: the package's own)")
    chosen = parser.parse_args(arguments)
    into = chosen.into or HERE / chosen.name
    if chosen.name == "echo":
        ship_echo(chosen.run, into)
    else:
        data = os.environ.get("MECHLAB_DATA")
        ship_atlas(chosen.run, into, Path(data) if data else None)


if __name__ == "__main__":
    main()
