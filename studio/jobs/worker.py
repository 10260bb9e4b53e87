"""A worker: takes one job after another and iterates its run, as the command line does.

Each device has one worker, a process of its own. One that is killed leaves its job to the next, which goes on
from the last checkpoint.
"""

from __future__ import annotations

import contextlib
import gc
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from studio.errors import StudioError
from studio.export.files import write_bytes
from studio.jobs.disk import GIBIBYTE, shortage
from studio.jobs.queue import Lease, Queue, State, Wish
from studio.run import checkpoint
from studio.run.session import Run

_POLL_S = 0.25
_CRASH_REPORT = "error.txt"
_ENDS = {Wish.PAUSE: State.PAUSED, Wish.CANCEL: State.CANCELLED}


class _Interrupted(Exception):
    """An export was stopped between two of its parts."""


@dataclass(frozen=True)
class Worker:
    """What a worker is told.

    Attributes:
        queue: where the jobs come from.
        name: for people to read.
        least_free_bytes: a job is paused where the workspace's disk has less room than this.
    """

    queue: Queue
    name: str
    least_free_bytes: int = GIBIBYTE

    def work(self, wants_to_stop: Callable[[], bool], until_empty: bool = False) -> int:
        """Take jobs until asked to stop; returns how many came to an end.

        Args:
            wants_to_stop: asked between two steps; the job at hand is saved and left to the next worker.
            until_empty: also stop once no job waits.
        """
        ended = 0
        while not wants_to_stop():
            lease = self.queue.claim(self.name)
            if lease is None:
                if until_empty:
                    break
                time.sleep(_POLL_S)
                continue
            with lease:
                ended += self._perform(lease, wants_to_stop)
            # The last run's tensors are gone before the next run's come.
            gc.collect()
        return ended

    def _perform(self, lease: Lease, wants_to_stop: Callable[[], bool]) -> bool:
        """Take a job as far as it goes; whether it is over."""
        folder = lease.job.folder
        try:
            state, reason = self._taken(lease, wants_to_stop)
        except StudioError as error:
            state, reason = State.FAILED, str(error)
        except Exception as error:  # noqa: BLE001  (one job's bug must not stop the others)
            if folder.is_dir():
                with contextlib.suppress(StudioError):
                    write_bytes(folder / _CRASH_REPORT, traceback.format_exc().encode())
            state, reason = State.FAILED, f"A bug in the studio: {type(error).__name__}: {error}"
        lease.end(state, reason)
        if state is State.FINISHED:
            _drop_older_checkpoints(folder)
        return state not in (State.QUEUED, State.PAUSED)

    def _taken(self, lease: Lease, wants_to_stop: Callable[[], bool]) -> tuple[State, str]:
        """What becomes of a job, and why."""
        job = lease.job
        if (reason := self._no_room()) is not None:
            return State.PAUSED, reason
        run = Run.at(job.folder, self.queue.recipe(job.id))

        def ending() -> tuple[State, str] | None:
            """Why to stop now, if there is a reason."""
            if (wish := lease.report(run.step)) is not Wish.NONE:
                return _ENDS[wish], ""
            if wants_to_stop():
                return State.QUEUED, ""
            reason = self._no_room()
            return None if reason is None else (State.PAUSED, reason)

        with contextlib.closing(iter(run)) as steps:
            for _ in steps:
                if not run.is_finished and (ends := ending()) is not None:
                    return ends

        found: list[tuple[State, str]] = []

        def between_parts(_: str) -> None:
            if (ends := ending()) is not None:
                found.append(ends)
                raise _Interrupted

        try:
            run.export(progress=between_parts)
        except _Interrupted:
            return found[0]
        return State.FINISHED, ""

    def _no_room(self) -> str | None:
        """What to say where the disk is almost full."""
        reason = shortage(self.queue.workspace, self.least_free_bytes)
        return None if reason is None else f"{reason} Make room, then resume."


def _drop_older_checkpoints(folder: Path) -> None:
    """A finished run's last state is all that later exports need."""
    for old in checkpoint.checkpoints(folder / "state")[:-1]:
        old.unlink(missing_ok=True)
