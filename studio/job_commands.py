"""What each command about jobs does."""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields
from typing import Any

from typing_extensions import assert_never

from studio import arguments
from studio.jobs.queue import Job, Queue
from studio.jobs.worker import Worker
from studio.run.asked import Asked


def perform(
    command: arguments.JobsSubmit | arguments.JobsList | arguments.OneJob | arguments.JobsWork,
) -> int:
    """Carries a command out; returns the exit code.

    Raises:
        StudioError: something that the user can mend.
    """
    queue = Queue(command.workspace)
    match command:
        case arguments.JobsSubmit():
            asked = Asked(
                command.prompt,
                command.preset,
                prior=command.prior,
                steps=command.steps,
                seed=command.seed,
                overrides=command.set,
            )
            (job,) = queue.submit([asked.recipe()])
            print(line(job))
        case arguments.JobsList():
            for job in queue.jobs(words=command.words, most=command.most):
                print(line(job))
        case arguments.JobsShow():
            job = queue.job(command.job)
            for field in fields(job):
                print(f"{field.name:<14} {_readable(getattr(job, field.name))}")
        case arguments.JobsCancel():
            print(line(queue.cancel(command.job)))
        case arguments.JobsPause():
            print(line(queue.pause(command.job)))
        case arguments.JobsResume():
            print(line(queue.resume(command.job)))
        case arguments.JobsRetry():
            print(line(queue.retry(command.job)))
        case arguments.JobsMove():
            queue.move(command.job, command.before)
            print(f"{queue.ahead_of(command.job)} jobs have their turn before job {command.job}")
        case arguments.JobsWork():
            name = f"{socket.gethostname()} {os.getpid()}"
            with _asked_to_stop() as stopped:
                Worker(queue, name).work(stopped.is_set, command.until_empty)
        case arguments.OneJob():
            raise AssertionError("only its kinds are commands")
        case _:
            assert_never(command)
    return 0


def line(job: Job) -> str:
    """A job in one line."""
    going_to = f", will {job.wish.value}" if job.wish.value else ""
    why = f": {job.reason}" if job.reason else ""
    return f"{job.id:>5}  {job.state.value}{going_to}  {job.step}/{job.total_steps}  {job.prompt}{why}"


def _readable(value: Any) -> str:
    match value:
        case float():
            return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(value))
        case None:
            return "-"
        case _:
            return str(getattr(value, "value", value))


@contextmanager
def _asked_to_stop() -> Iterator[threading.Event]:
    """Set by Ctrl-C or a polite kill: the run is saved after the step at hand and left to the next worker."""
    stop = threading.Event()
    before = {
        number: signal.signal(number, lambda *_: stop.set()) for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
