"""Saved states of a training run: weights and optimiser in safetensors, resumed exactly."""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch

__all__ = ["restore_state", "save_state", "saved_states"]


def saved_states(out: Path) -> list[Path]:
    """Return the complete states under `out`, oldest first."""
    return sorted(p for p in (out / "state").glob("step-*") if p.suffix != ".part")


def save_state(
    out: Path,
    step: int,
    model: "torch.nn.Module",
    optimiser: "torch.optim.Optimizer",
    counts: np.ndarray,
    recipe: Mapping[str, object],
    keep: int = 2,
) -> None:
    """Write the state of `step` under a temporary name, rename it, and drop older ones."""
    from safetensors.torch import save_file

    folder = out / "state" / f"step-{step:06d}"
    temporary = folder.with_name(f"{folder.name}.part")
    temporary.mkdir(parents=True, exist_ok=True)
    tensors = {f"model.{name}": p.detach() for name, p in model.named_parameters()}
    for name, parameter in model.named_parameters():
        for key, value in optimiser.state.get(parameter, {}).items():
            tensors[f"adam.{name}.{key}"] = value
    save_file({k: v.contiguous() for k, v in tensors.items()}, str(temporary / "state.safetensors"))
    np.save(temporary / "exposures.npy", counts, allow_pickle=False)
    (temporary / "recipe.json").write_text(json.dumps(recipe, indent=1), encoding="utf-8")
    if folder.exists():
        shutil.rmtree(folder)
    temporary.rename(folder)
    for old in saved_states(out)[:-keep]:
        shutil.rmtree(old)


def restore_state(
    out: Path, model: "torch.nn.Module", optimiser: "torch.optim.Optimizer | None"
) -> tuple[int, np.ndarray] | None:
    """Load the newest state into model and optimiser (or, without one, the model only).

    Returns:
        Its step and counts, or `None` when there is no state.
    """
    import torch
    from safetensors.torch import load_file

    if not (states := saved_states(out)):
        return None
    tensors: dict[str, torch.Tensor] = load_file(str(states[-1] / "state.safetensors"))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(tensors[f"model.{name}"])
            start = f"adam.{name}."
            kept = {k.removeprefix(start): v for k, v in tensors.items() if k.startswith(start)}
            if kept and optimiser is not None:
                optimiser.state[parameter] = kept
    counts = np.load(states[-1] / "exposures.npy", allow_pickle=False)
    return int(states[-1].name.removeprefix("step-")), counts
