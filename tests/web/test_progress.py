"""What the pages say of a run is what its events say, however they come."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from studio.run.events import EventLog
from studio.web.progress import Listener, Progress, progress


def write(path: Path, first: int, last: int) -> None:
    log = EventLog(path)
    for step in range(first, last + 1):
        log.append(
            "step", step, {"elapsed_s": step / 4, "losses": {"sds": 1.0 / step}, "statistics": {"n": 7}}
        )


def told(path: Path) -> Progress:
    """What one who comes late hears."""
    return Listener(path).progress()


def test_nothing_is_told_of_no_run(tmp_path: Path) -> None:
    assert progress(tmp_path / "nowhere") == Progress(0, 0.0, None, (), ())


def test_listening_all_along_or_coming_late_is_the_same(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    listener = Listener(path)
    for last in range(1, 1001):
        write(path, last, last)
        if last % 7 == 0:
            listener.progress()
    found = listener.progress()
    assert found == told(path)
    assert (found.step, found.seconds, found.steps_per_second) == (1000, 250.0, pytest.approx(4.0))
    assert found.seconds_left(1200) == pytest.approx(50.0)
    (curve,) = found.curves
    assert curve.points[0] == (1.0, 1.0) and curve.points[-1] == (1000.0, 0.001)
    assert all(value == 1.0 / step for step, value in curve.points)
    gaps = {right[0] - left[0] for left, right in zip(curve.points[:-2], curve.points[1:-1], strict=True)}
    assert len(gaps) == 1 and 60 <= len(curve.points) <= 122
    assert len(found.log) == 12 and found.log[-1] == "step 1000: sds 0.001"


def test_a_torn_line_is_heard_once_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    write(path, 1, 2)
    listener, line = Listener(path), json.dumps({"event": "step", "step": 3, "elapsed_s": 1.0}) + "\n"
    with path.open("a") as file:
        file.write(line[:10])
    assert listener.progress().step == 2
    with path.open("a") as file:
        file.write(line[10:])
    assert listener.progress().step == 3


def test_a_resumed_run_takes_back_what_it_told(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    write(path, 1, 40)
    listener = Listener(path)
    assert listener.progress().step == 40
    EventLog(path).cut(10)
    assert listener.progress() == told(path) and listener.progress().step == 10
    write(path, 11, 60)
    assert listener.progress() == told(path)
    path.unlink()
    assert listener.progress().step == 0
