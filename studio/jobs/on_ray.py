"""Rows of a batch on the machines of a Ray cluster, which must share the output folder."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from studio.errors import StudioError
from studio.jobs.batch import Performer, WorkerDied
from studio.jobs.making import make


def ray_performers(address: str) -> list[Performer]:
    """One for each GPU of the cluster, or for each of its cores where it has no GPU.

    Args:
        address: of the cluster; ``auto`` is the one that this machine belongs to, ``local`` a new one here.

    Raises:
        StudioError: Ray is not installed, or there is no such cluster.
    """
    try:
        import ray
    except ImportError as error:
        raise StudioError(
            "--ray needs Ray, which is not installed; try: pip install 'studio[batch]'"
        ) from error
    try:
        ray.init(
            address=address,
            ignore_reinit_error=True,
            logging_level=logging.ERROR,
            log_to_driver=False,
        )
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise StudioError(
            f"--ray is {address!r}, and there is no cluster ({str(error).splitlines()[0]}); expected auto, "
            "local or HOST:PORT. Start one with: ray start --head"
        ) from error
    resources = ray.cluster_resources()
    gpus, cores = int(resources.get("GPU", 0)), int(resources.get("CPU", 0))
    return [RayPerformer(ray, gpus=1 if gpus else 0) for _ in range(gpus or max(cores, 1))]


class RayPerformer:
    """Implements ``Performer``: each row is a task on one GPU, or on one core."""

    def __init__(self, ray: Any, gpus: int) -> None:
        self._ray = ray
        # A row that dies is tried again by the batch, which waits in between.
        self._make = ray.remote(num_cpus=1, num_gpus=gpus, max_retries=0)(make)
        self._task: Any = None

    def __call__(self, recipe: str, folder: Path) -> None:
        """See ``Performer``."""
        self._task = self._make.remote(recipe, folder.resolve())
        try:
            self._ray.get(self._task)
        except self._ray.exceptions.RayTaskError as error:
            raise error.cause if isinstance(error.cause, Exception) else error from None
        except self._ray.exceptions.RayError as error:
            raise WorkerDied(f"its worker died ({str(error).splitlines()[0]})") from error

    def close(self) -> None:
        """See ``Performer``."""
        if self._task is not None:
            self._ray.cancel(self._task, force=True)
            self._task = None
