"""Reading one model folder: safetensors, no code from the folder, everything checked first."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import transformers

from mechlab.errors import ModelError
from mechlab.models.admission import check_config
from mechlab.models.quiet import quiet

__all__ = ["check_weight_files", "read_folder"]

_PICKLED = (".bin", ".pt", ".pth", ".ckpt", ".pkl")
_OTHER_FORMATS = (".h5", ".msgpack", ".gguf", ".onnx")
_TOKENIZERS = (
    ("tokenizer.json",),
    ("tokenizer.model",),
    ("spiece.model",),
    ("vocab.json", "merges.txt"),
    ("vocab.txt",),
)
"""Any of these is enough; transformers would make an empty tokenizer from less, without a word."""


def read_folder(
    name: str, folder: Path, dtype: torch.dtype, device: torch.device
) -> tuple[Any, Any]:
    """Return the Hugging Face model and tokenizer kept in a folder.

    Args:
        name: what the model is called, for messages.
        folder: a folder as `save_pretrained` writes it.
        dtype: precision to load the weights in.
        device: where to put them.

    Raises:
        ModelError: when the folder is not a model, asks for its own code, has weights in another
            format than safetensors, lacks a tokenizer, or holds an architecture that is not
            proven. All of this is looked at before any weight is read.
    """
    _check_code(name, folder)
    check_weight_files(name, [path.name for path in folder.iterdir() if path.is_file()])
    _check_tokenizer_files(name, folder)
    with quiet():
        config = _read_config(name, folder)
        check_config(name, config)
        tokenizer = _read_tokenizer(name, folder)
        return _read_weights(name, folder, dtype).to(device), tokenizer


def _check_code(name: str, folder: Path) -> None:
    for file in ("config.json", "tokenizer_config.json"):
        if (content := _read_json(name, folder / file)) and content.get("auto_map"):
            raise ModelError(
                f"{name} asks to run its own code ({file} has an auto_map: "
                f"{', '.join(sorted(content['auto_map']))}).\n"
                "  Allowed: architectures that are part of the transformers package.\n"
                "  mechlab never runs code that comes with weights; choose a model without it."
            )
    if not (folder / "config.json").is_file():
        raise ModelError(
            f"{name} is not a model: {folder} has no config.json.\n"
            "  Allowed: a folder with config.json, *.safetensors and a tokenizer.\n"
            "  Write one with model.save_pretrained(folder); tokenizer.save_pretrained(folder)."
        )


def check_weight_files(name: str, files: Sequence[str]) -> None:
    """Refuse a model whose files hold no safetensors.

    Args:
        name: what the model is called, for the message.
        files: the names of its files.

    Raises:
        ModelError: naming the weights that are there instead, and how to convert them.
    """
    if any(file.endswith(".safetensors") for file in files):
        return
    pickled = [
        file for file in sorted(files) if file.endswith(_PICKLED) and file != "training_args.bin"
    ]
    other = [file for file in sorted(files) if file.endswith(_OTHER_FORMATS)]
    found = (
        f"only pickled weights ({', '.join(pickled)}), and reading a pickle can run code"
        if pickled
        else f"only weights in another format ({', '.join(other)})"
        if other
        else "no weights"
    )
    raise ModelError(
        f"{name} has {found}.\n  Allowed: weights in safetensors (model.safetensors, or several "
        "with model.safetensors.index.json).\n  Convert it on a machine where you trust it: "
        "AutoModelForCausalLM.from_pretrained(old).save_pretrained(new) writes safetensors."
    )


def _check_tokenizer_files(name: str, folder: Path) -> None:
    if not any(all((folder / file).is_file() for file in files) for files in _TOKENIZERS):
        kinds = ", ".join(" + ".join(files) for files in _TOKENIZERS)
        raise ModelError(
            f"{name} has no tokenizer: none of {kinds} is there.\n"
            "  Allowed: a folder that holds the model's own tokenizer.\n"
            "  Save it beside the weights: tokenizer.save_pretrained(folder)."
        )


def _read_json(name: str, path: Path) -> dict[str, Any] | None:
    if not path.is_file():
        return None
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as err:
        raise _unreadable(name, path.name, err) from err
    return content if isinstance(content, dict) else None


def _read_config(name: str, folder: Path) -> Any:
    try:
        return transformers.AutoConfig.from_pretrained(
            folder, local_files_only=True, trust_remote_code=False
        )
    except Exception as err:
        raise _unreadable(name, "config.json", err) from err


def _read_tokenizer(name: str, folder: Path) -> Any:
    try:
        return transformers.AutoTokenizer.from_pretrained(
            folder, local_files_only=True, trust_remote_code=False
        )
    except Exception as err:
        raise _unreadable(name, "tokenizer", err) from err


def _read_weights(name: str, folder: Path, dtype: torch.dtype) -> Any:
    try:
        model, report = transformers.AutoModelForCausalLM.from_pretrained(
            folder,
            dtype=dtype,
            attn_implementation="eager",
            use_safetensors=True,
            local_files_only=True,
            trust_remote_code=False,
            output_loading_info=True,
        )
    except Exception as err:
        raise _unreadable(name, "weights", err) from err
    if absent := sorted(report["missing_keys"]):  # they would keep random values
        raise ModelError(
            f"{name} lacks {len(absent)} weights, such as {', '.join(absent[:3])}.\n"
            "  Allowed: a complete causal language model with its head.\n"
            "  Fetch or save the model again."
        )
    return model


def _unreadable(name: str, what: str, err: Exception) -> ModelError:
    return ModelError(
        f"the {what} of {name} cannot be read: {type(err).__name__}: {err}\n"
        "  Allowed: a folder as transformers' save_pretrained writes it.\n"
        "  Fetch or save the model again."
    )
