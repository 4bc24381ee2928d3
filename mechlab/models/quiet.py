"""Loading without progress bars, notices and warnings of the libraries below."""

import logging
import threading
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from huggingface_hub.utils.tqdm import (
    are_progress_bars_disabled,
    disable_progress_bars,
    enable_progress_bars,
)
from transformers.utils import logging as transformers_logging

__all__ = ["quiet"]

_guard = threading.Lock()
_inside = 0
_undo = ExitStack()


@contextmanager
def quiet() -> Iterator[None]:
    """Silence transformers, huggingface_hub and TransformerLens, and put their settings back.

    These settings belong to the process. When several threads load models at once, the first one
    in changes them and the last one out restores them.
    """
    global _inside
    with _guard:
        if _inside == 0:
            _silence(_undo)
        _inside += 1
    try:
        yield
    finally:
        with _guard:
            _inside -= 1
            if _inside == 0:
                _undo.close()


def _silence(undo: ExitStack) -> None:
    undo.callback(transformers_logging.set_verbosity, transformers_logging.get_verbosity())
    transformers_logging.set_verbosity_error()
    if transformers_logging.is_progress_bar_enabled():
        undo.callback(transformers_logging.enable_progress_bar)
    transformers_logging.disable_progress_bar()
    if not are_progress_bars_disabled():
        undo.callback(enable_progress_bars)
    disable_progress_bars()
    undo.callback(logging.disable, logging.root.manager.disable)
    logging.disable(logging.WARNING)  # TransformerLens speaks through the root logger
    undo.enter_context(warnings.catch_warnings())
    warnings.simplefilter("ignore")
