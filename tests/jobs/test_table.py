"""Tables of prompts as people and programs write them."""

from __future__ import annotations

from pathlib import Path

import pytest

from studio.errors import StudioError
from studio.jobs.table import BadRow, Row, read_table
from studio.recipes.load import load


def table(tmp_path: Path, text: str, encoding: str = "utf-8") -> Path:
    path = tmp_path / "prompts.csv"
    path.write_bytes(text.encode(encoding))
    return path


def test_cells_become_recipes(tmp_path: Path) -> None:
    path = table(
        tmp_path,
        "prompt,seed,preset,negative,steps,export.mesh_faces,stages.0.resolution\n"
        'a red chair,7,draft,"ugly, ""blurry""",100,500,\n'
        "an é mug,,,,,,\n"
        "\n"
        '"a long\ntable",,,,,,64\n',
    )
    first, second, third = read_table(path, preset="draft", formats=("glb",))
    assert isinstance(first, Row) and isinstance(second, Row) and isinstance(third, Row)
    assert (first.recipe.prompt, first.recipe.seed, first.recipe.total_steps) == ("a red chair", 7, 100)
    assert first.recipe.negative_prompt == 'ugly, "blurry"'
    assert first.recipe.export.mesh_faces == 500 and first.recipe.export.formats == ("glb",)
    draft = load("draft", "an é mug", ["export.formats=['glb']"])
    assert second.recipe == draft
    assert third.recipe.prompt == "a long table" and third.recipe.stages[0].resolution == 64


@pytest.mark.parametrize(("delimiter", "encoding"), [(";", "utf-8-sig"), ("\t", "utf-8"), (",", "utf-8")])
def test_spreadsheets_have_their_ways(tmp_path: Path, delimiter: str, encoding: str) -> None:
    path = table(tmp_path, f"prompt{delimiter}seed\r\na mug{delimiter}3\r\n", encoding)
    (row,) = read_table(path)
    assert isinstance(row, Row) and (row.recipe.prompt, row.recipe.seed) == ("a mug", 3)


def test_a_folder_follows_from_the_row_not_from_its_place(tmp_path: Path) -> None:
    before = read_table(table(tmp_path, "prompt\na mug\na chair\na mug\n"))
    after = read_table(table(tmp_path, "prompt\na lamp\na mug\na mug\na chair\n"))
    names = [{row.folder for row in rows if isinstance(row, Row)} for rows in (before, after)]
    assert len(names[0]) == 3 and names[0] < names[1]
    (odd,) = read_table(table(tmp_path, "prompt\n../../etc\n"))
    assert isinstance(odd, Row) and odd.folder.startswith("etc-")


def test_bad_rows_are_told_and_keep_no_other_back(tmp_path: Path) -> None:
    path = table(
        tmp_path,
        "prompt,seed,preset\n"
        ",1,\na mug,-1,\na mug,1.5,draft\na mug,1,drafft\na mug,1,draft,extra\na mug,1,draft\n",
    )
    *bad, good = read_table(path)
    assert isinstance(good, Row)
    said = [row.reason for row in bad if isinstance(row, BadRow)]
    assert len(said) == 5
    assert "prompt is empty" in said[0]
    assert said[1] == "seed is '-1'; expected a whole number of at least 0, or nothing."
    assert said[2].startswith("seed is '1.5'")
    assert "Did you mean 'draft'?" in said[3]
    assert said[4] == "4 cells, expected 3; put quotes around cells that hold commas."


@pytest.mark.parametrize(
    ("text", "encoding", "message"),
    [
        ("", "utf-8", "is empty; expected a heading"),
        ("promt\na mug\n", "utf-8", "has a column 'promt'.*Did you mean 'prompt'"),
        ("seed\n1\n", "utf-8", "has no column 'prompt'; its heading is: seed"),
        ("prompt,prompt\na,b\n", "utf-8", "has 2 columns 'prompt'"),
        ("prompt\nun café\n", "latin-1", r"is not in UTF-8 \(byte 13\); save it as CSV UTF-8"),
        ('prompt\n"never closed\n', "utf-8", "is no CSV: unexpected end of data"),
        ("prompt\n" + "x" * 200_000, "utf-8", "is no CSV: field larger than field limit"),
    ],
)
def test_what_is_no_table_is_refused(tmp_path: Path, text: str, encoding: str, message: str) -> None:
    with pytest.raises(StudioError, match=message):
        read_table(table(tmp_path, text, encoding))


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(StudioError, match=r"Cannot read .*none\.csv: No such file"):
        read_table(tmp_path / "none.csv")


def test_rows_alike_but_for_prompt_and_seed_are_read_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = "".join(f"a mug number {number},{number}\n" for number in range(300))
    path = table(tmp_path, "prompt,seed\n" + lines)
    from studio.jobs import table as module

    calls = []
    real = module.Asked.recipe
    monkeypatch.setattr(module.Asked, "recipe", lambda self: calls.append(self) or real(self))
    module._without_prompt.cache_clear()
    assert len({row.folder for row in read_table(path) if isinstance(row, Row)}) == 300
    assert len(calls) == 1
