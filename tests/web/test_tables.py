"""Tables that come through the browser: all rows are queued or none is, and they choose as forms do."""

from __future__ import annotations

import io
import json
import zipfile
import zlib
from pathlib import Path

import pytest

from studio.errors import StudioError
from studio.jobs.queue import State
from studio.web.options import Options
from studio.web.service import Service
from studio.web.tables import recipes_of

OPTIONS = Options(presets=("draft", "default"), most_waiting=50)


def test_rows_are_what_forms_hold() -> None:
    heading = b"prompt,negative,preset,seed,steps,stages.0.resolution\n"
    data = heading + b'a bear,,draft,3,50,32\n"a chair, red",ugly,,,,\n'
    first, second = recipes_of(data, "x.csv", OPTIONS)
    assert (first.prompt, first.preset, first.seed, first.total_steps) == ("a bear", "draft", 3, 50)
    assert first.stages[0].resolution == 32
    assert (second.prompt, second.negative_prompt, second.preset) == ("a chair, red", "ugly", "default")


def png_header(side: int) -> bytes:
    head = b"IHDR" + side.to_bytes(4, "big") * 2 + b"\x08\x02\0\0\0"
    return b"\x89PNG\r\n\x1a\n" + (13).to_bytes(4, "big") + head + zlib.crc32(head).to_bytes(4, "big")


def zip_bomb() -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("prompts.csv", b"0" * 50_000_000)
    return packed.getvalue()


SVG_BOMB = b'<!DOCTYPE s [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;&a;&a;">]><svg>&b;</svg>'


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "is empty"),
        (b"text,seed\na bear,1\n", "has a column 'text'"),
        (b"seed\n1\n", "no column 'prompt'"),
        (b"prompt,prompt\na,b\n", "2 columns 'prompt'"),
        ("prompt\nun café\n".encode("latin-1"), "not in UTF-8"),
        ("prompt\na bear\n".encode("utf-16"), "not in UTF-8"),
        (b'prompt\n"a bear\n', "no CSV"),
        (b"prompt\n", "has 0 rows"),
        (b"prompt\n" + b"a bear\n" * 100_000, "100000 rows; expected 1 to 50"),
        (b"prompt\n" + b"x" * 200_000, "no CSV: field larger"),
        (b"prompt\na\0b\n", "unprintable|no CSV"),
        (b"prompt,seed\na,-1\n", "Row 1: seed is '-1'"),
        (b"prompt,preset\na,../../etc/passwd\n", "Row 1: There is no preset"),
        (b"prompt,prior\na,/etc\n", "Row 1: There is no prior"),
        (b"prompt,prior.folder\na,/etc\n", "Row 1: There is no setting 'prior.folder'"),
        (b"prompt,seed\na,1,2\n", "Row 1: 3 cells, expected 2"),
        (b"prompt\n" + b"\xe2\x80\xae\n" * 9, "9 of 9 rows do not fit, so none is queued"),
        (png_header(30_000), "not in UTF-8"),
        (zip_bomb(), "not in UTF-8|no CSV"),
        (SVG_BOMB, "no CSV"),
    ],
)
def test_other_files_are_refused(data: bytes, says: str) -> None:
    with pytest.raises(StudioError, match=says):
        recipes_of(data, "../../x.csv", OPTIONS)


@pytest.fixture
def service(tmp_path: Path) -> Service:
    return Service(Options(tmp_path / "workspace", most_waiting=3))


def test_all_rows_or_none(service: Service) -> None:
    with pytest.raises(StudioError, match="Row 2"):
        service.submit_table(b"prompt,preset\na bear,draft\na chair,nothing\n", "t.csv", "ada")
    assert service.jobs("ada") == []
    tag = service.submit_table(b"prompt\na bear\na chair\n", "../../My Table.csv", "ada")
    assert tag.startswith("batch-my-table-")
    assert [job.prompt for job in service.tagged(tag, "ada")] == ["a bear", "a chair"]
    with pytest.raises(StudioError, match="at most 3"):
        service.submit_table(b"prompt\na bear\na chair\n", "t.csv", "ada")
    assert len(service.jobs("ada")) == 2


def test_an_archive_holds_what_was_made(service: Service, tmp_path: Path) -> None:
    tag = service.submit_table(b"prompt\na bear\na chair\n", "t.csv", "ada")
    bear, chair = service.tagged(tag, "ada")
    assets = bear.folder / "assets"
    assets.mkdir(parents=True)
    (assets / "asset.glb").write_bytes(b"glTF")
    (assets / "asset.obj").symlink_to("/etc/passwd")
    service.queue.end(bear.id, State.FINISHED, "")
    service.queue.end(chair.id, State.FAILED, "no room")
    with zipfile.ZipFile(service.archive(tag, "ada")) as archive:
        assert archive.namelist() == [f"{bear.folder.name}/asset.glb", "manifest.jsonl"]
        told = [json.loads(line) for line in archive.read("manifest.jsonl").splitlines()]
    assert [(row["prompt"], row["state"], row["reason"]) for row in told] == [
        ("a bear", "finished", ""),
        ("a chair", "failed", "no room"),
    ]
    for stranger in ("eve", None):
        with pytest.raises(StudioError, match="No job of yours has the tag"):
            service.archive(tag, stranger)


def test_tags_are_plain_words(service: Service) -> None:
    job = service.submit_all(recipes_of(b"prompt\na bear\n", "t", OPTIONS), "ada")[0]
    tagged = service.tag(job.id, "For the Game, <b>red</b>,, ../../etc", "ada")
    assert tagged.tags == ("b-red-b", "etc", "for-the-game")
    assert service.tags("ada") == ["b-red-b", "etc", "for-the-game"]
    assert [found.id for found in service.jobs("ada", tag="for-the-game")] == [job.id]
    assert service.jobs("ada", tag="game") == service.jobs("eve", tag="etc") == []
    with pytest.raises(StudioError, match="at most 8"):
        service.tag(job.id, ",".join(map(str, range(9))), "ada")
    with pytest.raises(StudioError, match="There is no job"):
        service.tag(job.id, "mine", "eve")
    service.queue.cancel(job.id)
    service.delete(job.id, "ada")
    assert service.tags("ada") == []
