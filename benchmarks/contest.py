"""A contest: the studio and a peer do the same work, have to agree, and are timed in turn."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch

ROUNDS = 5
SECONDS_A_ROUND = 0.1


@dataclass(frozen=True)
class Contest:
    """One row of the table.

    Args:
        work: what both do.
        ours: does it with the studio.
        peer: who else does it, with the version.
        theirs: does it with the peer.
        differ: compares both sides' results; returns the largest relative difference, or exits where it is
            too large for times to mean anything.
        aim: how many times the studio's processor time the peer is to take; None where none was set.
    """

    work: str
    ours: Callable[[], object]
    peer: str
    theirs: Callable[[], object]
    differ: Callable[[], float]
    aim: float | None = None


@dataclass(frozen=True)
class NotRun:
    """A row for a peer that cannot be timed here."""

    work: str
    peer: str
    why: str


@dataclass(frozen=True)
class Seconds:
    """Processor time (all threads together) and wall time of one run, each the least of several."""

    cpu: float
    wall: float

    def and_(self, other: Seconds) -> Seconds:
        return Seconds(min(self.cpu, other.cpu), min(self.wall, other.wall))


def least(run: Callable[[], object], at_most: float = SECONDS_A_ROUND) -> Seconds:
    """Runs again and again for ``at_most`` seconds, but at least once."""
    best = Seconds(float("inf"), float("inf"))
    until = time.perf_counter() + at_most
    while True:
        wall_start, cpu_start = time.perf_counter(), time.process_time()
        run()
        best = best.and_(Seconds(time.process_time() - cpu_start, time.perf_counter() - wall_start))
        if time.perf_counter() > until:
            return best


COLUMNS = (
    f"{'forward and backward, where nothing is said':52}{'peer':22}{'differ by':>10}"
    f"{'ours':>11}{'peer':>11}{'ratio':>8}{'aim':>5}{'1 thread':>11}{'all':>10}{'gain':>6}"
)


def row(contest: Contest | NotRun, all_threads: int) -> str:
    """Times one contest: the peer and ours in turn with one thread, and ours with all."""
    if isinstance(contest, NotRun):
        return f"{contest.work:52}{contest.peer:22} not run: {contest.why}"
    torch.set_num_threads(1)
    difference = contest.differ()
    contest.ours()
    slow = least(contest.theirs, 0).wall > 1  # a run to warm up; a second of it needs no repetition
    ours = theirs = both = Seconds(float("inf"), float("inf"))
    for turn in range(ROUNDS):
        torch.set_num_threads(1)
        ours = ours.and_(least(contest.ours))
        if turn == 0 or not slow:
            theirs = theirs.and_(least(contest.theirs))
        torch.set_num_threads(all_threads)
        both = both.and_(least(contest.ours))
    aim = f"{contest.aim:5g}" if contest.aim else f"{'-':>5}"
    return (
        f"{contest.work:52}{contest.peer:22}{difference:10.0e}{milliseconds(ours.cpu)}{milliseconds(theirs.cpu)}"
        f"{theirs.cpu / ours.cpu:7.1f}x{aim}{milliseconds(ours.wall)}{milliseconds(both.wall)[1:]}"
        f"{ours.wall / both.wall:5.1f}x"
    )


def milliseconds(seconds: float) -> str:
    return f"{1000 * seconds:8.2f} ms"


def print_table(contests: Iterable[Contest | NotRun]) -> None:
    """Prints each row as soon as it is there."""
    all_threads = torch.get_num_threads()
    print(COLUMNS)
    for contest in contests:
        print(row(contest, all_threads), flush=True)
