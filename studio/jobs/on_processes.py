"""Rows of a batch on processes of this machine.

On Linux they are forked from one server process that has loaded all that a run needs, so that any number of
them is ready as soon as one would be, and another in the place of one that died at once.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import forkserver, get_context
from pathlib import Path

from studio.jobs.batch import Performer, WorkerDied
from studio.jobs.making import make
from studio.jobs.supervisor import Device, devices

_FORKS = sys.platform == "linux"
# The system's own libraries on macOS start threads, which a fork does not survive.
_CONTEXT = get_context("forkserver" if _FORKS else "spawn")
_CONTEXT.set_forkserver_preload(["studio.run.session"])


def get_ready() -> None:
    """Begin to load what a run needs, beside whatever the caller does next."""
    if _FORKS:
        forkserver.ensure_running()


class ProcessPerformer:
    """Implements ``Performer``: a process of its own, with one device and its share of the cores."""

    def __init__(self, device: Device, threads: int) -> None:
        self._device = device
        self._threads = threads
        self._pool: ProcessPoolExecutor | None = None

    def __call__(self, recipe: str, folder: Path) -> None:
        """See ``Performer``."""
        try:
            self._pool_ready().submit(make, recipe, folder).result()
        except BrokenProcessPool as error:
            self._pool = None
            raise WorkerDied("its process died; out of memory, perhaps") from error

    def _pool_ready(self) -> ProcessPoolExecutor:
        if self._pool is None:
            self._pool = ProcessPoolExecutor(
                1, _CONTEXT, _settle, (self._device.environment(), self._threads)
            )
        return self._pool

    def close(self) -> None:
        """See ``Performer``."""
        if self._pool is not None:
            for process in list((self._pool._processes or {}).values()):
                process.terminate()
            self._pool.shutdown(cancel_futures=True)


def process_performers(workers: int | None = None) -> list[Performer]:
    """Processes on this machine.

    Args:
        workers: how many; by default one for each GPU, or for each core where there is none. They share the
            GPUs and the cores evenly.
    """
    # Asked in a process, where torch is loaded already or will have to be.
    with ProcessPoolExecutor(1, _CONTEXT) as pool:
        here, cores = pool.submit(devices).result(), os.cpu_count() or 1
    if workers is None:
        workers = cores if here == (Device("cpu"),) else len(here)
    threads = max(1, cores // workers)
    return [ProcessPerformer(here[index % len(here)], threads) for index in range(workers)]


def _settle(environment: Mapping[str, str], threads: int) -> None:
    import torch

    os.environ.update(environment)
    torch.set_num_threads(threads)
