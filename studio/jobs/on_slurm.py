"""Rows of a batch as jobs of a Slurm cluster, whose machines must share the output folder."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

from studio.errors import StudioError
from studio.jobs.batch import Performer, WorkerDied
from studio.jobs.making import DONE, make

_LONGEST_MIN = 24 * 60
"""A row's, unless ``SBATCH_TIMELIMIT`` says otherwise; it goes on from its last checkpoint then."""
_LOOK_EVERY_S = 1.0


def slurm_performers(count: int, logs: Path) -> list[Performer]:
    """So many rows side by side.

    Args:
        logs: the folder of what Slurm and the jobs say.

    Raises:
        StudioError: submitit is not installed, or this machine hands nothing to Slurm.
    """
    try:
        import submitit
    except ImportError as error:
        raise StudioError(
            "--slurm needs submitit, which is not installed; try: pip install 'studio[slurm]'"
        ) from error
    try:
        executor = submitit.AutoExecutor(logs, cluster="slurm")
    except RuntimeError as error:
        raise StudioError(f"--slurm: {error} Give the command where sbatch and srun are there.") from error
    executor.update_parameters(name="studio", timeout_min=_LONGEST_MIN)
    return [SlurmPerformer(executor) for _ in range(count)]


class SlurmPerformer:
    """Implements ``Performer``: each row is a job.

    Args:
        executor: submitit's.
    """

    def __init__(self, executor: Any) -> None:
        self._executor = executor
        self._closed = threading.Event()

    def __call__(self, recipe: str, folder: Path) -> None:
        """See ``Performer``."""
        from submitit.core.utils import FailedJobError, FailedSubmissionError, UncompletedJobError

        try:
            job = self._executor.submit(_refusal, recipe, folder.resolve())
            while not job.done():
                if self._closed.wait(_LOOK_EVERY_S):
                    job.cancel(check=False)
                    raise WorkerDied("it was stopped")
            refusal = job.result()
        except FailedSubmissionError as error:
            raise StudioError(f"Slurm refuses the job: {error}") from error
        except FailedJobError:
            raise
        except UncompletedJobError as error:
            raise WorkerDied(f"its job ended early ({str(error).splitlines()[0]})") from error
        if refusal is not None:
            raise StudioError(refusal)

    def close(self) -> None:
        """See ``Performer``."""
        self._closed.set()


def _refusal(recipe: str, folder: Path) -> str | None:
    """Makes a row; what is wrong with it, if it cannot be made: errors come back from a job as mere text."""
    try:
        # A job may have waited while another batch made its row.
        if not (folder / DONE).is_file():
            make(recipe, folder)
    except StudioError as error:
        return str(error)
    return None
