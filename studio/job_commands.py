"""What the commands about many runs do: batch and jobs."""

from __future__ import annotations

import contextlib
import os
import socket
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from rich.console import Console
from typing_extensions import assert_never

from studio import arguments
from studio.console import BatchProgress, stop_request
from studio.errors import StudioError
from studio.export.formats import format_of
from studio.jobs.batch import ERRORS, MANIFEST, Batch, Ending, Performer
from studio.jobs.on_processes import get_ready, process_performers
from studio.jobs.on_ray import ray_performers
from studio.jobs.on_slurm import slurm_performers
from studio.jobs.queue import Job, Queue
from studio.jobs.table import read_table
from studio.recipes.config import AssetFormat


def perform(command: arguments.JobsCommand) -> int:
    """Carries a command out; returns the exit code.

    Raises:
        StudioError: something that the user can mend.
    """
    queue = Queue(command.workspace)
    match command:
        case arguments.JobsSubmit():
            (job,) = queue.submit([command.asked().recipe()])
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
            from studio.jobs.worker import Worker

            name, parent = f"{socket.gethostname()} {os.getpid()}", os.getppid()
            with stop_request(terminate=True) as asked_to_stop:

                def wants_to_stop() -> bool:
                    return asked_to_stop() or (command.with_parent and os.getppid() != parent)

                Worker(queue, name).work(wants_to_stop, command.until_empty)
        case _:
            assert_never(command)
    return 0


def batch(command: arguments.Batch) -> int:
    """Makes a table's rows; returns 0 if every row is done, else 2.

    Raises:
        StudioError: the table, the folder or the cluster is not what it should be.
    """
    for option, number, least in (
        ("workers", command.workers, 1),
        ("slurm", command.slurm, 1),
        ("retries", command.retries, 0),
    ):
        if number is not None and number < least:
            raise StudioError(f"--{option} is {number}; expected at least {least}.")
    if sum(where is not None for where in (command.workers, command.ray, command.slurm)) > 1:
        raise StudioError("--workers, --ray and --slurm were given together; expected one of them at most.")
    if command.ray is None and command.slurm is None:
        get_ready()
    rows = read_table(command.table, command.preset, _formats(command.formats))
    if command.ray is not None:
        performers: Sequence[Performer] = ray_performers(command.ray)
    elif command.slurm is not None:
        performers = slurm_performers(command.slurm, command.out / "slurm")
    else:
        performers = process_performers(command.workers)
    making = Batch(rows, command.out, performers, command.retries)
    console, counts = Console(), Counter[Ending]()
    with BatchProgress(console, making) as progress, contextlib.closing(making.outcomes()) as outcomes:
        for outcome in outcomes:
            counts[outcome.ending] += 1
            progress.show(outcome)
    failed = counts[Ending.FAILED]
    done = f"{counts[Ending.DONE]} made, {counts[Ending.FOUND]} found done, {failed} failed"
    print(f"{done}: {command.out / MANIFEST}")
    if failed:
        print(f"studio: what is wrong with the {failed}: {command.out / ERRORS}", file=sys.stderr)
    return 2 if failed else 0


def _formats(text: str | None) -> tuple[AssetFormat, ...] | None:
    """The formats that are named with commas between them."""
    return None if text is None else tuple(format_of(Path(f"x.{part.strip()}")) for part in text.split(","))


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
