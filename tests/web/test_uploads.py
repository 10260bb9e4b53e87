"""What browsers sent goes again: not while a job needs it, and not while somebody is at work with it."""

from __future__ import annotations

import os
import time
from collections import namedtuple
from dataclasses import replace
from pathlib import Path

import pytest

from studio.errors import StudioError
from studio.jobs import disk
from studio.jobs.queue import State
from studio.recipes.load import load
from studio.web.options import Options
from studio.web.service import Service
from studio.web.uploads import UNUSED_S

SQUARE = '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 9 9"><rect width="{}" height="3"/></svg>'


def served(workspace: Path) -> Service:
    """A server that has just been started, and looks at nothing that comes."""
    service = Service(Options(workspace))
    service.drawings._sent._look = lambda file, folder: None
    return service


def sent(service: Service, width: int) -> str:
    return service.keep("drawing", SQUARE.format(width).encode(), "a.svg", "ada")


def grow_old(workspace: Path, called: str) -> None:
    old = time.time() - UNUSED_S - 60
    os.utime(workspace / "drawings" / called, (old, old))


def test_uploads_go_when_nobody_needs_them(tmp_path: Path) -> None:
    service = served(tmp_path)
    named, unused, looked_at, young = (sent(service, width) for width in range(1, 5))
    recipe = load("draft", "a square")
    animated = replace(recipe, negative_prompt=service.drawings.path(named))
    (job,) = service.queue.submit([animated], "ada")
    for called in (named, unused, looked_at):
        grow_old(tmp_path, called)
    (tmp_path / "drawings" / "crab").mkdir()
    (tmp_path / "drawings" / ".half-written").mkdir()
    for called in ("crab", ".half-written"):
        grow_old(tmp_path, called)
    assert service.drawings.path(looked_at)

    def left() -> set[str]:
        return {path.name for path in (tmp_path / "drawings").iterdir()}

    # Tidied an hour ago at the earliest.
    latest = sent(service, 5)
    assert unused in left()
    again = served(tmp_path)
    assert sent(again, 5) == latest
    assert left() == {named, looked_at, young, latest, "crab"}
    with pytest.raises(StudioError, match="There is no drawing"):
        again.drawings.path(unused)

    # A job that is over may be made again; one that is deleted may not.
    again.queue.cancel(job.id)
    assert again.queue.job(job.id).state is State.CANCELLED
    grow_old(tmp_path, named)
    sent(served(tmp_path), 5)
    assert named in left()
    again.delete(job.id, "ada")
    sent(served(tmp_path), 5)
    assert named not in left()


def test_what_is_sent_again_is_young_again(tmp_path: Path) -> None:
    service = served(tmp_path)
    called = sent(service, 1)
    grow_old(tmp_path, called)
    assert sent(service, 1) == called
    sent(served(tmp_path), 2)
    assert Path(service.drawings.path(called)).is_file()


def test_a_disk_that_is_almost_full_takes_no_uploads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(disk.shutil, "disk_usage", lambda _: usage(2**32, 2**32 - 2**20, 2**20))
    with pytest.raises(StudioError, match=r"0\.0 GiB left, expected at least 1\.0\. Whoever runs the server"):
        sent(served(tmp_path), 1)
    assert not list((tmp_path / "drawings").glob("*"))
