"""``studio jobs``: what is typed reaches the queue, and what the queue says reaches a person."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from tests.conftest import Said


def test_a_job_from_submission_to_asset(
    studio_command: Callable[..., Said], models: Path, quick_recipe: Path
) -> None:
    def submit(prompt: str) -> Said:
        return studio_command("jobs", "submit", prompt, "--preset", quick_recipe, "--prior", models)

    assert submit("a red cube").out == "    1  queued  0/4  a red cube\n"
    submit("a blue cube")
    submit("a blue cube")
    moved = studio_command("jobs", "move", "2", "--before", "1")
    assert moved.out == "0 jobs have their turn before job 2\n"
    assert studio_command("jobs", "cancel", "3").out == "    3  cancelled  0/4  a blue cube\n"
    assert studio_command("jobs", "pause", "1").code == 0
    assert studio_command("jobs", "work", "--until-empty").code == 0
    assert studio_command("jobs", "list").out.splitlines() == [
        "    1  paused  0/4  a red cube",
        "    3  cancelled  0/4  a blue cube",
        "    2  finished  4/4  a blue cube",
    ]
    shown = studio_command("jobs", "show", "2").out
    assert "folder         workspace/runs/000002-a-blue-cube" in shown
    assert Path("workspace/runs/000002-a-blue-cube/assets/asset.ply").is_file()


def test_what_is_wrong_is_said_in_one_line(studio_command: Callable[..., Said]) -> None:
    assert studio_command("jobs", "cancel", "9").err == (
        "studio: There is no job 9 in workspace; try: studio jobs list\n"
    )
    misspelt = studio_command("jobs", "cancle", "9")
    assert misspelt.code == 2 and "Did you mean 'jobs cancel'?" in misspelt.err
    assert "There is no preset 'defualt'" in studio_command("jobs", "submit", "x", "--preset", "defualt").err
