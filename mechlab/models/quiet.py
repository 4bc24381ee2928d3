"""Loading without progress bars, notices and warnings of the libraries below."""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from huggingface_hub.utils.tqdm import (
    are_progress_bars_disabled,
    disable_progress_bars,
    enable_progress_bars,
)
from transformers.utils import logging as transformers_logging

__all__ = ["quiet"]


@contextmanager
def quiet() -> Iterator[None]:
    """Silence transformers, huggingface_hub and TransformerLens, and put their settings back."""
    bars = transformers_logging.is_progress_bar_enabled()
    hub_bars = not are_progress_bars_disabled()
    level, root = transformers_logging.get_verbosity(), logging.root.manager.disable
    transformers_logging.disable_progress_bar()
    disable_progress_bars()
    transformers_logging.set_verbosity_error()
    logging.disable(logging.WARNING)  # TransformerLens speaks through the root logger
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(root)
        transformers_logging.set_verbosity(level)
        if hub_bars:
            enable_progress_bars()
        if bars:
            transformers_logging.enable_progress_bar()
