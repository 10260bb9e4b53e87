"""The jobs of a workspace: what is to be made, in which order, and how far it is.

A workspace is a folder: ``queue.sqlite`` holds the jobs, ``runs/`` a run for each of them and ``locks/`` a
file for each that a worker has taken. A worker keeps its job's file locked for as long as it works at it. The
system drops the lock when the process ends, however it ends, so neither a clock nor a time-out decides
whether a job may be taken again: no two workers ever hold one job, and one that a dead worker held is free
at once. The heartbeat beside it is there to be looked at.
"""

from __future__ import annotations

import enum
import re
import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO

from studio.errors import StudioError
from studio.locks import try_lock
from studio.prompts import clean_prompt, slug
from studio.recipes.config import Recipe
from studio.recipes.load import parse, to_toml

REPORT_EVERY_S = 0.2
"""A worker's steps are written down at most this often."""
MOST_FRUITLESS_ATTEMPTS = 3
"""A job whose workers die this often without a step of progress has failed."""

_LARGEST_NUMBER = 2**63 - 1
_SCHEMA = """
CREATE TABLE IF NOT EXISTS jobs (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    client TEXT NOT NULL,
    prompt TEXT NOT NULL,
    preset TEXT NOT NULL,
    recipe TEXT NOT NULL,
    folder TEXT NOT NULL,
    state TEXT NOT NULL,
    wish TEXT NOT NULL DEFAULT '',
    place INTEGER NOT NULL,
    step INTEGER NOT NULL DEFAULT 0,
    total_steps INTEGER NOT NULL,
    attempts INTEGER NOT NULL DEFAULT 0,
    fruitless INTEGER NOT NULL DEFAULT 0,
    worker TEXT NOT NULL DEFAULT '',
    reason TEXT NOT NULL DEFAULT '',
    submitted_at REAL NOT NULL,
    heartbeat_at REAL,
    ended_at REAL
);
CREATE TABLE IF NOT EXISTS tags (job INTEGER NOT NULL, tag TEXT NOT NULL, PRIMARY KEY (tag, job));
CREATE INDEX IF NOT EXISTS tags_of_job ON tags (job);
CREATE INDEX IF NOT EXISTS jobs_in_turn ON jobs (state, place);
CREATE INDEX IF NOT EXISTS jobs_of_client ON jobs (client, state);
"""
_COLUMNS = (
    "id, client, prompt, preset, folder, state, wish, step, total_steps, attempts, worker, reason, "
    "submitted_at, heartbeat_at, ended_at, "
    "(SELECT group_concat(tag, ' ') FROM (SELECT tag FROM tags WHERE job = id ORDER BY tag)) AS tags"
)
MOST_TAGS = 8
"""Of one job."""


class State(str, enum.Enum):
    """What becomes of a job."""

    QUEUED = "queued"
    RUNNING = "running"
    PAUSED = "paused"
    FINISHED = "finished"
    FAILED = "failed"
    CANCELLED = "cancelled"


OVER = frozenset((State.FINISHED, State.FAILED, State.CANCELLED))
"""The states of a job that nobody works at any more."""


class Wish(str, enum.Enum):
    """What a person wants of a job that is running."""

    NONE = ""
    PAUSE = "pause"
    CANCEL = "cancel"


@dataclass(frozen=True)
class Job:
    """One job as it was when it was looked at.

    Attributes:
        id: counts up from 1 and is never used again.
        client: whose it is; empty on a workspace of one person.
        prompt, preset: what it makes.
        folder: of its run; not there before the first worker has begun it.
        state: what has become of it.
        wish: what its worker is to do at the next step.
        step, total_steps: how far it is, as far as its worker has told.
        attempts: how often a worker has begun or gone on with it.
        worker: who had it last.
        reason: why it failed or was paused, for a person to read.
        submitted_at, heartbeat_at, ended_at: seconds since 1970, by the clock at that time.
        tags: words by which people find it again, in order.
    """

    id: int
    client: str
    prompt: str
    preset: str
    folder: Path
    state: State
    wish: Wish
    step: int
    total_steps: int
    attempts: int
    worker: str
    reason: str
    submitted_at: float
    heartbeat_at: float | None
    ended_at: float | None
    tags: tuple[str, ...]


class Queue:
    """The jobs of a workspace; any number of processes and threads may use one at a time.

    Args:
        workspace: the folder; it is made.
        most_waiting: jobs that one client may have waiting.
        clock: seconds since 1970.

    Raises:
        StudioError: the folder cannot be written to, or holds no queue of the studio.
    """

    def __init__(
        self, workspace: Path, most_waiting: int = 1_000_000, clock: Callable[[], float] = time.time
    ) -> None:
        self.workspace = workspace
        self.runs = workspace / "runs"
        self._file = workspace / "queue.sqlite"
        self._most_waiting = most_waiting
        self._clock = clock
        try:
            self.runs.mkdir(parents=True, exist_ok=True)
            (workspace / "locks").mkdir(exist_ok=True)
        except OSError as error:
            raise StudioError(
                f"Cannot write to {workspace}: {error.strerror or error}; expected a folder with space left."
            ) from error
        with self._open() as database:
            database.execute("PRAGMA journal_mode = WAL")
            database.executescript(_SCHEMA)
        # The last connection to close tidies the log away, which takes longer than a submission: this one is
        # looked at once, to have the log open, and kept.
        with self._told():
            self._last = self._connected()
            self._last.execute("SELECT COUNT(*) FROM jobs").fetchone()

    # --------------------------------------------------------------------------------------------- asking

    def submit(self, recipes: Sequence[Recipe], client: str = "", tags: Sequence[str] = ()) -> list[Job]:
        """Put recipes at the end of the queue, all or none; they are safe on the disk on return.

        Raises:
            StudioError: a recipe has no prompt, or there are too many tags or jobs of the client waiting.
        """
        prompts = [clean_prompt(recipe.prompt) for recipe in recipes]
        with self._writing() as database:
            waiting = _count(
                database.execute("SELECT COUNT(*) FROM jobs WHERE client = ? AND state = 'queued'", (client,))
            )
            if waiting + len(recipes) > self._most_waiting:
                raise StudioError(
                    f"{waiting} of your jobs are waiting and {len(recipes)} more came; expected at most "
                    f"{self._most_waiting} in all. Wait for some, or cancel some."
                )
            place = _count(database.execute("SELECT COALESCE(MAX(place), 0) FROM jobs"))
            ids = []
            for offset, (recipe, prompt) in enumerate(zip(recipes, prompts, strict=True)):
                row = database.execute(
                    "INSERT INTO jobs (client, prompt, preset, recipe, folder, state, place, total_steps, "
                    "submitted_at) VALUES (?, ?, ?, ?, '', 'queued', ?, ?, ?) RETURNING id",
                    (
                        client,
                        prompt,
                        recipe.preset,
                        to_toml(recipe),
                        place + 1 + offset,
                        recipe.total_steps,
                        self._clock(),
                    ),
                ).fetchone()
                ids.append(int(row["id"]))
                database.execute(
                    "UPDATE jobs SET folder = ? WHERE id = ?", (f"{ids[-1]:06d}-{slug(prompt)}", ids[-1])
                )
                _set_tags(database, ids[-1], tags)
            return [self._job(database, number) for number in ids]

    def job(self, number: int) -> Job:
        """One job.

        Raises:
            StudioError: there is no such job.
        """
        with self._open() as database:
            return self._job(database, number)

    def recipe(self, number: int) -> Recipe:
        """What a job makes.

        Raises:
            StudioError: there is no such job.
        """
        with self._open() as database:
            row = database.execute("SELECT recipe FROM jobs WHERE id = ?", (number,)).fetchone()
        if row is None:
            raise self._unknown(number)
        return parse(row["recipe"], f"the recipe of job {number}")

    def jobs(
        self,
        states: Sequence[State] = tuple(State),
        client: str | None = None,
        words: str = "",
        tag: str | None = None,
        most: int = -1,
        skip: int = 0,
    ) -> list[Job]:
        """Jobs that are not over in the order of their turn, then the others, the last one first.

        Args:
            states: only these.
            client: only this one's.
            words: only those whose prompt contains them.
            tag: only those that have it.
            most, skip: a page of the list.
        """
        marks = ", ".join("?" * len(states))
        # The only text put together is of question marks.
        query = (
            f"SELECT {_COLUMNS} FROM jobs WHERE state IN ({marks}) "  # noqa: S608
            "AND (? IS NULL OR client = ?) AND instr(lower(prompt), ?) > 0 "
            "AND (? IS NULL OR id IN (SELECT job FROM tags WHERE tag = ?)) "
            "ORDER BY CASE WHEN state IN ('running', 'queued', 'paused') THEN place END ASC NULLS LAST, "
            "id DESC LIMIT ? OFFSET ?"
        )
        asked = (*(state.value for state in states), client, client, words.lower(), tag, tag, most, skip)
        with self._open() as database:
            return [self._as_job(row) for row in database.execute(query, asked)]

    def tags(self, client: str, most: int = 50) -> list[str]:
        """The tags that a client's jobs have, that of the newest job first."""
        with self._open() as database:
            rows = database.execute(
                "SELECT tag FROM tags JOIN jobs ON id = job WHERE client = ? GROUP BY tag "
                "ORDER BY MAX(id) DESC, tag LIMIT ?",
                (client, most),
            )
            return [str(row["tag"]) for row in rows]

    def ahead_of(self, number: int) -> int:
        """How many jobs have their turn before this one; running ones do not count."""
        with self._open() as database:
            return _count(
                database.execute(
                    "SELECT COUNT(*) FROM jobs WHERE state = 'queued' AND place < "
                    "(SELECT place FROM jobs WHERE id = ?)",
                    (number,),
                )
            )

    # --------------------------------------------------------------------------------------------- wishes

    def cancel(self, number: int) -> Job:
        """End a job: at once if it waits, at its next step if it runs. Cancelling it again changes nothing.

        Raises:
            StudioError: there is no such job, or it is over.
        """
        return self._wished(number, Wish.CANCEL, State.CANCELLED, (State.QUEUED, State.PAUSED))

    def pause(self, number: int) -> Job:
        """Let a job rest, from its next step on if it runs; ``resume`` lets it go on from there.

        Raises:
            StudioError: there is no such job, or it is over.
        """
        return self._wished(number, Wish.PAUSE, State.PAUSED, (State.QUEUED,))

    def resume(self, number: int) -> Job:
        """Put a paused job back in its place, or take back the wish that it pause.

        Raises:
            StudioError: there is no such job, or it is neither paused nor about to be.
        """
        with self._writing() as database:
            job = self._job(database, number)
            match job.state, job.wish:
                case (State.PAUSED, _):
                    self._set_state(database, number, State.QUEUED, "")
                case (State.RUNNING, Wish.PAUSE):
                    database.execute("UPDATE jobs SET wish = '' WHERE id = ?", (number,))
                case (State.QUEUED, _) | (State.RUNNING, Wish.NONE):
                    pass
                case _:
                    raise StudioError(f"Job {number} is {job.state.value}; expected a paused one.")
            return self._job(database, number)

    def retry(self, number: int) -> Job:
        """Put a failed or cancelled job at the end of the queue; it goes on from its last checkpoint.

        Raises:
            StudioError: there is no such job, or it has neither failed nor been cancelled.
        """
        with self._writing() as database:
            job = self._job(database, number)
            if job.state not in (State.FAILED, State.CANCELLED):
                raise StudioError(f"Job {number} is {job.state.value}; expected a failed or cancelled one.")
            self._set_state(database, number, State.QUEUED, "")
            database.execute(
                "UPDATE jobs SET fruitless = 0, ended_at = NULL, "
                "place = (SELECT MAX(place) + 1 FROM jobs) WHERE id = ?",
                (number,),
            )
            return self._job(database, number)

    def move(self, number: int, before: int | None = None) -> None:
        """Give a waiting job its turn just before another waiting one, or after all of them.

        Raises:
            StudioError: one of them does not wait.
        """
        with self._writing() as database:
            rows = database.execute("SELECT id, place FROM jobs WHERE state = 'queued' ORDER BY place")
            waiting = {int(row["id"]): int(row["place"]) for row in rows}
            for asked in (number, before):
                if asked is not None and asked not in waiting:
                    state = self._job(database, asked).state.value
                    raise StudioError(f"Job {asked} is {state}; expected one that waits.")
            order = [waits for waits in waiting if waits != number]
            order.insert(len(order) if before is None or before == number else order.index(before), number)
            places = zip(sorted(waiting.values()), order, strict=True)
            database.executemany("UPDATE jobs SET place = ? WHERE id = ?", places)

    def tag(self, number: int, tags: Sequence[str]) -> Job:
        """Give a job these tags in the place of those it has; a tag is lower-case words joined by hyphens.

        Raises:
            StudioError: there is no such job, or there are too many tags.
        """
        with self._writing() as database:
            self._job(database, number)
            _set_tags(database, number, tags)
            return self._job(database, number)

    def delete(self, number: int) -> None:
        """Forget a job that is over; its run folder is the caller's to remove.

        Raises:
            StudioError: there is no such job, or it is not over.
        """
        with self._writing() as database:
            job = self._job(database, number)
            if job.state not in OVER:
                raise StudioError(f"Job {number} is {job.state.value}; expected one that is over: cancel it.")
            database.execute("DELETE FROM jobs WHERE id = ?", (number,))
            _set_tags(database, number, ())

    def mentioned(self, pattern: re.Pattern[str]) -> set[str]:
        """All that fits a pattern in the recipes of all jobs that have not been deleted."""
        with self._open() as database:
            rows = database.execute("SELECT recipe FROM jobs")
            return {found for row in rows for found in pattern.findall(row["recipe"])}

    # -------------------------------------------------------------------------------------------- working

    def claim(self, worker: str) -> Lease | None:
        """Take the job whose turn it is, if there is any; one that a dead worker held comes first.

        Args:
            worker: a name for people to read.
        """
        with self._open() as database:
            rows = database.execute(
                "SELECT id FROM jobs WHERE state IN ('running', 'queued') "
                "ORDER BY state = 'queued', place LIMIT 100"
            )
            candidates = [int(row["id"]) for row in rows]
        for number in candidates:
            lock = try_lock(self.workspace / "locks" / str(number))
            if lock is None:
                continue
            if (job := self._begun(number, worker)) is not None:
                return Lease(self, job, lock)
            lock.close()
        return None

    def _begun(self, number: int, worker: str) -> Job | None:
        """The job in its new worker's hands; None if it needs no worker any more. Its lock is held."""
        with self._writing() as database:
            row = database.execute("SELECT * FROM jobs WHERE id = ?", (number,)).fetchone()
            if row is None:
                return None
            state, wish, fruitless = State(row["state"]), Wish(row["wish"]), int(row["fruitless"])
            if state not in (State.RUNNING, State.QUEUED):
                return None
            if state is State.RUNNING:
                # Its worker died, and with it whoever would have heard the wish.
                if wish is not Wish.NONE:
                    self._set_state(database, number, _ENDS[wish], "")
                    return None
                if fruitless >= MOST_FRUITLESS_ATTEMPTS:
                    self._set_state(
                        database,
                        number,
                        State.FAILED,
                        f"{fruitless} workers died at it without a step of progress; out of memory, perhaps. "
                        "Try a smaller resolution, then retry.",
                    )
                    return None
            database.execute(
                "UPDATE jobs SET state = 'running', wish = '', reason = '', worker = ?, heartbeat_at = ?, "
                "attempts = attempts + 1, fruitless = fruitless + 1 WHERE id = ?",
                (worker, self._clock(), number),
            )
            return self._job(database, number)

    def heard(self, number: int, step: int) -> Wish:
        """Note how far a running job is; returns what a person wants of it."""
        with self._writing(durable=False) as database:
            row = database.execute(
                "UPDATE jobs SET fruitless = CASE WHEN ? > step THEN 0 ELSE fruitless END, step = ?, "
                "heartbeat_at = ? WHERE id = ? RETURNING wish",
                (step, step, self._clock(), number),
            ).fetchone()
        # A job that was deleted meanwhile is nobody's any more.
        return Wish.CANCEL if row is None else Wish(row["wish"])

    def end(self, number: int, state: State, reason: str) -> None:
        """Note what has become of a job, once its worker is done with it."""
        with self._writing() as database:
            self._set_state(database, number, state, reason)

    # ------------------------------------------------------------------------------------------- database

    def _wished(self, number: int, wish: Wish, end: State, waiting: tuple[State, ...]) -> Job:
        with self._writing() as database:
            job = self._job(database, number)
            if job.state in waiting:
                self._set_state(database, number, end, "")
            elif job.state is State.RUNNING:
                # Of two wishes the firmer one counts.
                if job.wish is not Wish.CANCEL:
                    database.execute("UPDATE jobs SET wish = ? WHERE id = ?", (wish.value, number))
            elif job.state is not end:
                raise StudioError(f"Job {number} is {job.state.value} already.")
            return self._job(database, number)

    def _set_state(self, database: sqlite3.Connection, number: int, state: State, reason: str) -> None:
        over = state in OVER
        database.execute(
            "UPDATE jobs SET state = ?, wish = '', reason = ?, ended_at = ? WHERE id = ?",
            (state.value, reason, self._clock() if over else None, number),
        )

    def _job(self, database: sqlite3.Connection, number: int) -> Job:
        if abs(number) > _LARGEST_NUMBER:
            raise self._unknown(number)
        # The columns are a constant of this file.
        row = database.execute(f"SELECT {_COLUMNS} FROM jobs WHERE id = ?", (number,)).fetchone()  # noqa: S608
        if row is None:
            raise self._unknown(number)
        return self._as_job(row)

    def _as_job(self, row: sqlite3.Row) -> Job:
        values = {name: row[name] for name in row.keys()}
        values |= {
            "folder": self.runs / row["folder"],
            "state": State(row["state"]),
            "wish": Wish(row["wish"]),
            "tags": tuple((row["tags"] or "").split()),
        }
        return Job(**values)

    def _unknown(self, number: int) -> StudioError:
        return StudioError(f"There is no job {number} in {self.workspace}; try: studio jobs list")

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        with self._told(), closing(self._connected()) as database:
            yield database

    def _connected(self) -> sqlite3.Connection:
        database = sqlite3.connect(self._file, timeout=30.0, isolation_level=None, check_same_thread=False)
        database.row_factory = sqlite3.Row
        return database

    @contextmanager
    def _told(self) -> Iterator[None]:
        """What the database refuses, for a person to read."""
        try:
            yield
        except sqlite3.Error as error:
            raise StudioError(
                f"The queue {self._file} refuses: {error}; expected a writable file with space left on its "
                "disk."
            ) from error

    @contextmanager
    def _writing(self, durable: bool = True) -> Iterator[sqlite3.Connection]:
        """A transaction that is whole or not at all; a durable one also outlives a power cut."""
        with self._open() as database:
            database.execute(f"PRAGMA synchronous = {'FULL' if durable else 'NORMAL'}")
            database.execute("BEGIN IMMEDIATE")
            try:
                yield database
            except BaseException:
                database.execute("ROLLBACK")
                raise
            database.execute("COMMIT")


_ENDS = {Wish.CANCEL: State.CANCELLED, Wish.PAUSE: State.PAUSED}


class Lease:
    """A job in the hands of one worker, until the block ends or the process does::

        with lease:
            for report in run:
                if lease.report(report.step) is not Wish.NONE:
                    break
            lease.end(State.FINISHED)

    A block that ends without saying so leaves the job to the next worker.
    """

    def __init__(self, queue: Queue, job: Job, lock: IO[bytes]) -> None:
        self.job = job
        self._queue = queue
        self._lock = lock
        self._reported_at = -REPORT_EVERY_S
        self._wish = Wish.NONE

    def __enter__(self) -> Lease:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._lock.close()

    def report(self, step: int) -> Wish:
        """Say how far the job is; returns what a person wants of it, within a fraction of a second."""
        now = time.monotonic()
        if now - self._reported_at >= REPORT_EVERY_S or step == self.job.total_steps:
            self._reported_at = now
            self._wish = self._queue.heard(self.job.id, step)
        return self._wish

    def end(self, state: State, reason: str = "") -> None:
        """Say what has become of the job."""
        self._queue.end(self.job.id, state, reason)


def _set_tags(database: sqlite3.Connection, number: int, tags: Sequence[str]) -> None:
    if len(tags) > MOST_TAGS:
        raise StudioError(f"{len(tags)} tags came; expected at most {MOST_TAGS}.")
    database.execute("DELETE FROM tags WHERE job = ?", (number,))
    database.executemany("INSERT OR IGNORE INTO tags VALUES (?, ?)", [(number, slug(tag)) for tag in tags])


def _count(cursor: sqlite3.Cursor) -> int:
    return int(cursor.fetchone()[0])
