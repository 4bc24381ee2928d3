"""Silence while loading, and nothing changed afterwards, also with several threads."""

import logging
import threading
import warnings

import pytest
from transformers.utils import logging as transformers_logging

from mechlab.models.quiet import quiet


def _settings() -> tuple[object, ...]:
    return (
        transformers_logging.get_verbosity(),
        transformers_logging.is_progress_bar_enabled(),
        logging.root.manager.disable,
        list(warnings.filters),
    )


def test_warnings_are_silent_inside_and_heard_outside() -> None:
    with quiet():
        warnings.warn("inside", UserWarning, stacklevel=1)
    with pytest.warns(UserWarning, match="outside"):
        warnings.warn("outside", UserWarning, stacklevel=1)


def test_settings_come_back_also_after_an_error() -> None:
    before = _settings()
    with pytest.raises(RuntimeError), quiet():
        assert _settings() != before
        raise RuntimeError
    assert _settings() == before


def test_overlapping_threads_leave_the_settings_as_they_were() -> None:
    before = _settings()
    entered, leave = threading.Event(), threading.Event()

    def load() -> None:
        with quiet():
            entered.set()
            leave.wait()

    thread = threading.Thread(target=load)
    with quiet():
        thread.start()
        entered.wait()
    assert _settings() != before  # the other thread is still loading
    leave.set()
    thread.join()
    assert _settings() == before
