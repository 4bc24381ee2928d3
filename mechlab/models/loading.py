"""Loading a model by name: shipped with mechlab, a local folder, or the Hugging Face hub."""

from pathlib import Path

from mechlab.errors import OptionError
from mechlab.models.folder import read_folder
from mechlab.models.hub import download, shipped_names, unknown_model
from mechlab.models.model import Model, Origin
from mechlab.models.options import DType, Weights, check_weights, parse_device, parse_dtype
from mechlab.models.wrapping import wrap

__all__ = ["load_model"]


def load_model(
    name: str | Path,
    *,
    device: str = "auto",
    dtype: DType = "float32",
    weights: Weights = "raw",
    revision: str | None = None,
    checkpoint: int | str | None = None,
    prepend_bos: bool | None = None,
) -> Model:
    """Load a language model.

    Only safetensors are read, and code that comes with a model is never run.

    Args:
        name: a shipped model (`atlas`, `echo`), else a local folder, else a hub name, looked up
            in that order. Write `./atlas` for a folder that has a shipped model's name.
        device: `auto` (the first GPU, else the CPU), `cpu`, `cuda`, `cuda:1`, `mps`.
        dtype: precision of the weights.
        weights: `raw` as trained, or `processed`: norms folded into the weights after them,
            writing weights and unembedding centred. Processing leaves log-probabilities as they
            are, moves raw logits, and has a fingerprint of its own.
        revision: branch, tag or commit of a hub model.
        checkpoint: training step. For a shipped model one of its checkpoints; for a hub model a
            short form of `revision`: `step{checkpoint}`, as the Pythia models name theirs.
        prepend_bos: whether texts get a beginning-of-sequence token; `None` follows the
            tokenizer's own convention.

    Returns:
        The model, in evaluation mode with frozen parameters.

    Raises:
        OptionError: for an option outside its choices.
        ModelError: for a model that is not there, cannot be read safely, is not proven, or has
            weights that are not finite; for a device that is not there.
    """
    wanted, place = parse_dtype(dtype), parse_device(device)
    check_weights(weights)
    folder, origin = _locate(name, revision, checkpoint, weights)
    hf, tokenizer = read_folder(origin.name, folder, wanted, place)
    return wrap(hf, tokenizer, origin, prepend_bos=prepend_bos)


def _locate(
    name: str | Path, revision: str | None, checkpoint: int | str | None, weights: str
) -> tuple[Path, Origin]:
    if revision is not None and checkpoint is not None:
        raise OptionError(
            f"revision={revision!r} and checkpoint={checkpoint!r} both name a version.\n"
            "  Allowed: one of them.\n  Pass checkpoint= for a training step, revision= otherwise."
        )
    if not str(name).strip():
        raise unknown_model(str(name), "no name was given")
    if isinstance(name, str) and name in shipped_names():
        return _shipped(name, revision, checkpoint, weights)
    try:
        folder = Path(name).expanduser()
        is_folder = folder.is_dir()
    except (OSError, RuntimeError) as err:  # too long for a path, or the home of nobody
        raise unknown_model(f"{str(name):.80}", "it cannot be a folder's name") from err
    if is_folder:
        return _local(folder, revision, checkpoint, weights)
    if folder.is_file():
        raise unknown_model(str(name), "it is a file, not the folder that holds the model")
    if isinstance(name, Path) or str(name).startswith((".", "/", "~")):
        raise unknown_model(str(name), "there is no such folder")
    return _from_hub(name, revision, checkpoint, weights)


def _shipped(
    name: str, revision: str | None, checkpoint: int | str | None, weights: str
) -> tuple[Path, Origin]:
    from mechlab import organisms

    if revision is not None:
        raise _no_versions(f"the shipped model {name!r}", f"revision={revision!r}")
    folder = organisms.path(name, checkpoint)
    steps = organisms.checkpoints(name)
    # The last checkpoint is the model itself: both ways of asking give one fingerprint.
    step = steps[-1] if checkpoint is None and steps else checkpoint
    label = None if step is None else str(step)
    return folder, Origin(name, "shipped", revision=label, weights=weights)


def _local(
    folder: Path, revision: str | None, checkpoint: int | str | None, weights: str
) -> tuple[Path, Origin]:
    if revision is not None or checkpoint is not None:
        given = f"revision={revision!r}" if revision is not None else f"checkpoint={checkpoint!r}"
        raise _no_versions(f"the folder {folder}", given)
    # The last part of the path, so that a folder that moves keeps its fingerprint.
    return folder, Origin(folder.resolve().name, "folder", weights=weights)


def _from_hub(
    name: str, revision: str | None, checkpoint: int | str | None, weights: str
) -> tuple[Path, Origin]:
    version = f"step{checkpoint}" if checkpoint is not None else revision
    folder = download(name, version)
    return folder, Origin(name, "hub", revision=version, commit=folder.name, weights=weights)


def _no_versions(what: str, given: str) -> OptionError:
    return OptionError(
        f"{given} was given for {what}, which has no such versions.\n"
        "  Allowed: revision for hub models; checkpoint for shipped and hub models.\n"
        "  Leave it out, or name the folder of the version you want."
    )
