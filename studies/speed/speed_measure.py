"""Clocks: alternating repetitions, memory, operations really done, and the matrix-product rate."""

import contextlib
import ctypes
import gc
import os
import statistics
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import psutil
import torch
from torch import nn

import mechlab as ml

__all__ = [
    "Work",
    "alternate",
    "block_list",
    "counted_work",
    "give_back",
    "machine",
    "matmul_rate",
    "peak_growth",
    "summary",
]


def alternate(runs: Mapping[str, Callable[[], object]], repeats: int) -> dict[str, list[float]]:
    """Return seconds per run and repetition; A B C A B C, so that a busy spell hits all of them."""
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(repeats):
        for name, run in runs.items():
            _wait()
            started = time.perf_counter()
            run()
            _wait()
            seconds[name].append(time.perf_counter() - started)
    return seconds


def _wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def summary(values: list[float]) -> dict[str, float]:
    """Return median and smallest value."""
    return {"median": statistics.median(values), "min": min(values)}


def peak_growth(run: Callable[[], object]) -> float:
    """Return by how many MB the process grew at most while `run` ran.

    The process is looked at every 5 ms, which costs time: never measure both at once. What earlier
    runs freed is given back to the system first where the C library can, so that it is seen again.
    """
    give_back()
    process, done = psutil.Process(), threading.Event()
    before = process.memory_info().rss
    most = [before]

    def watch() -> None:
        while not done.wait(0.005):
            most[0] = max(most[0], process.memory_info().rss)

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        run()
    finally:
        done.set()
        watcher.join()
    return (max(most[0], process.memory_info().rss) - before) / 1e6


def give_back() -> None:
    """Return to the system what earlier runs freed, where the C library can."""
    gc.collect()
    with contextlib.suppress(OSError, AttributeError):  # glibc alone has it
        ctypes.CDLL(None).malloc_trim(0)


def matmul_rate(size: int) -> float:
    """Return operations per second of one large float32 matrix product, the best of three."""
    a, b = torch.randn(size, size), torch.randn(size, size)
    times = []
    for _ in range(3):
        started = time.perf_counter()
        a @ b
        times.append(time.perf_counter() - started)
    return 2 * size**3 / min(times)


@dataclass
class Work:
    """What a run really did.

    Attributes:
        operations: 2 x weights read x token positions, over all matrix products with weights.
    """

    operations: int = 0


@contextlib.contextmanager
def counted_work(model: ml.Model) -> Iterator[Work]:
    """Count what goes into each weight matrix of a model while the context is open.

    Counted are the calls themselves, not what the engine says about them; base runs and the
    read-out are among them. Embeddings are looked up, not multiplied, and count nothing.
    """
    work = Work()

    def count(module: nn.Module, args: tuple[Any, ...]) -> None:
        positions = args[0].numel() // args[0].shape[-1]
        work.operations += 2 * int(module.weight.numel()) * positions  # type: ignore[operator, union-attr]

    holders = {
        module
        for module in model.bridge.modules()
        if not isinstance(module, nn.Embedding)
        and any(own is not None and own.ndim == 2 for own in module._parameters.values())
    }
    handles = [module.register_forward_pre_hook(count) for module in holders]
    try:
        yield work
    finally:
        for handle in handles:
            handle.remove()


def block_list(hf: nn.Module) -> nn.ModuleList:
    """Return the blocks of a Hugging Face decoder."""
    count = int(hf.config.num_hidden_layers)  # type: ignore[union-attr, arg-type]
    lists = (part for part in hf.modules() if isinstance(part, nn.ModuleList))
    return next(part for part in lists if len(part) == count)


def machine() -> dict[str, object]:
    """Return what a reader needs to judge the times."""
    affinity = getattr(os, "sched_getaffinity", None)
    return {
        "threads": torch.get_num_threads(),
        "cores_allowed": len(affinity(0)) if affinity else os.cpu_count(),
        "load_average_1min": round(os.getloadavg()[0], 2),
        "torch": torch.__version__,
        "mechlab": ml.__version__,
    }
