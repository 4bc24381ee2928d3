"""The options of loading, checked before anything is read."""

from typing import Literal, get_args

import torch

from mechlab.errors import ModelError, OptionError

__all__ = ["DType", "Weights", "check_weights", "parse_device", "parse_dtype"]

DType = Literal["float32", "bfloat16", "float16", "float64"]
Weights = Literal["raw", "processed"]


def parse_dtype(dtype: str) -> torch.dtype:
    """Return the torch dtype of that name.

    Raises:
        OptionError: for a name that is not listed in `DType`.
    """
    if dtype not in get_args(DType):
        raise OptionError(
            f"dtype={dtype!r} is not a precision for weights.\n"
            f"  Allowed: {', '.join(get_args(DType))}.\n"
            "  Use 'float32' for exact comparisons, 'bfloat16' for large models on a GPU."
        )
    found = getattr(torch, dtype)
    assert isinstance(found, torch.dtype)
    return found


def check_weights(weights: str) -> None:
    """Refuse an unknown weight processing.

    Raises:
        OptionError: when it is neither 'raw' nor 'processed'.
    """
    if weights not in get_args(Weights):
        raise OptionError(
            f"weights={weights!r} is not a kind of weights.\n  Allowed: 'raw', 'processed'.\n"
            "  Use 'raw' for the trained weights, 'processed' to fold norms and centre them."
        )


def parse_device(device: str) -> torch.device:
    """Return the device, `auto` being the first GPU or else the CPU.

    Raises:
        OptionError: for text that names no device.
        ModelError: for a device that this machine does not have.
    """
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        found = torch.device(device)
    except RuntimeError as err:
        raise _unknown_device(device) from err
    if found.type not in ("cpu", "cuda", "mps"):
        raise _unknown_device(device)
    if (found.index or 0) >= _present(found.type):
        raise ModelError(
            f"device={device!r} was asked for and this machine has {_devices_here()}.\n"
            "  Allowed: 'auto', or a device that is present.\n"
            "  Use device='auto' or device='cpu', or install a build of torch for your device."
        )
    return found


def _unknown_device(device: str) -> OptionError:
    return OptionError(
        f"device={device!r} names no device.\n  Allowed: 'auto', 'cpu', 'cuda', 'cuda:0', 'mps'.\n"
        "  Use device='auto' for the first GPU if there is one."
    )


def _present(kind: str) -> int:
    if kind == "cuda":
        return torch.cuda.device_count() if torch.cuda.is_available() else 0
    return 1 if kind == "cpu" else int(torch.backends.mps.is_available())


def _devices_here() -> str:
    kinds = [f"{_present(kind)} {kind}" for kind in ("cpu", "cuda", "mps") if _present(kind)]
    return ", ".join([*kinds, *(["no CUDA device"] if not _present("cuda") else [])])
