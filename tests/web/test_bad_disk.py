"""A full or read-only disk, a clock that jumps, two tabs at once: all is told, and nothing is lost."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from studio.errors import StudioError
from studio.jobs.queue import Queue, State
from studio.recipes.load import load
from studio.web.app import build
from studio.web.options import Options
from studio.web.service import Service

ADA = {"x-studio-client": "ada" * 10}
TABLE = b"prompt,preset\n" + b"a red cube,draft\n" * 40


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("workspace")


@pytest.fixture(scope="module")
def app(workspace: Path) -> Iterator[TestClient]:
    with TestClient(build(Options(workspace)), "http://127.0.0.1", headers=ADA) as client:
        yield client


@pytest.fixture
def connected_with(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Has every connection to a queue begin with a pragma: SQLite's own way to be full or read-only."""
    connected = Queue._connected

    def arrange(pragma: str) -> None:
        def arranged(self: Queue) -> sqlite3.Connection:
            database = connected(self)
            database.execute(pragma)
            return database

        monkeypatch.setattr(Queue, "_connected", arranged)

    return arrange


def queued(folder: Path) -> list[int]:
    return [job.id for job in Queue(folder).jobs([State.QUEUED])]


@pytest.mark.parametrize(
    ("pragma", "says"),
    [
        ("PRAGMA max_page_count = 1", "database or disk is full; expected a writable file with space left"),
        ("PRAGMA query_only = ON", "attempt to write a readonly database; expected a writable file"),
    ],
)
def test_a_disk_that_takes_nothing(
    app: TestClient,
    workspace: Path,
    connected_with: Callable[[str], None],
    monkeypatch: pytest.MonkeyPatch,
    pragma: str,
    says: str,
) -> None:
    assert app.post("/batches", content=b"prompt\na bear\n").status_code == 200
    before = queued(workspace)
    connected_with(pragma)
    refused = app.post("/batches", content=TABLE)
    assert refused.status_code == 400 and says in refused.text
    # What was there can still be looked at; once there is room, all goes on as if nothing had been.
    assert app.get("/watched?job=1").json()["actions"] == ["pause", "cancel"]
    monkeypatch.undo()
    assert queued(workspace) == before
    assert app.post("/batches", content=TABLE).status_code == 200
    assert len(queued(workspace)) == len(before) + 40


def test_a_workspace_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StudioError, match="expected a folder with space left"):
        build(Options(tmp_path / "file" / "workspace"))


def test_a_clock_that_goes_backwards_changes_no_turn(tmp_path: Path) -> None:
    moments = iter([2e9, 1e9, 0.0, *[5.0] * 20])
    service = Service(Options(tmp_path))
    service.queue = Queue(tmp_path, clock=lambda: next(moments))
    recipe = load("draft", "a red cube")
    numbers = [service.submit_all([replace(recipe, seed=seed)], "ada")[0].id for seed in range(3)]
    assert numbers == [job.id for job in service.jobs("ada")] == [1, 2, 3]
    lease = service.queue.claim("w")
    assert lease is not None and lease.job.id == 1
    # However old its heartbeat looks, a job that is held is nobody else's.
    other = Queue(tmp_path, clock=lambda: 9e9).claim("late")
    assert other is not None and other.job.id == 2
    with lease, other:
        lease.end(State.FINISHED)
    assert [(job.id, job.state) for job in service.jobs("ada")][-1] == (1, State.FINISHED)


def test_two_tabs_cancel_a_job_that_runs(tmp_path: Path) -> None:
    service = Service(Options(tmp_path))
    number = service.submit_all([load("draft", "a red cube")], "ada")[0].id
    lease = service.queue.claim("w")
    assert lease is not None
    with lease:
        for _ in range(2):
            assert service.act("cancel", number, "ada").wish.value == "cancel"
        assert lease.report(1).value == "cancel"
        lease.end(State.CANCELLED)
    assert service.act("cancel", number, "ada").state is State.CANCELLED
    assert service.queue.claim("w") is None and service.queue.job(number).attempts == 1
