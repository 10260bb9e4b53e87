"""The project file of a drawing in motion: what comes back from it, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from studio.errors import StudioError
from studio.recipes.config import LayerConfig
from studio.recipes.project import Project, ProjectMotion, project_json, project_of, read_project

CURVE = ((0.5, 1.0), (2.0, -3.25), (4.0, 0.0))
PROJECT = Project(
    drawing="crab",
    prompt='the "crab" is naïve',
    keypoints=((100.0, 120.5), (140.25, 120.0)),
    bones=((0, 1),),
    layers=(LayerConfig(name='the "claw"', paths=(2, 0), keypoints=(1,)), LayerConfig(name="b", paths=(1,))),
    motion=ProjectMotion(delta=(CURVE, CURVE), loop="cyclic", frames=30, fps=15.0),
)


def test_a_project_comes_back_and_is_a_line_a_key(tmp_path: Path) -> None:
    data = project_json(PROJECT)
    (tmp_path / "clipart.json").write_bytes(data)
    read = read_project(tmp_path / "clipart.json")
    assert read == PROJECT and project_json(read) == data
    assert len(data.splitlines()) == 2 + len(json.loads(data))


def test_a_drawing_is_found_from_the_projects_folder(tmp_path: Path) -> None:
    project = Project(drawing=str(tmp_path / "drawings" / "cat.svg"), keypoints=((1.0, 2.0),))
    data = project_json(project, tmp_path / "runs")
    assert json.loads(data)["drawing"] == "../drawings/cat.svg"
    found = Path(project_of(data, "clipart.json", tmp_path / "runs").drawing)
    assert found.resolve() == (tmp_path / "drawings" / "cat.svg").resolve()


def test_keypoints_are_enough() -> None:
    project = project_of(b'{"keypoints": [[1, 2], [3, 4]]}', "by hand")
    assert project.keypoints == ((1.0, 2.0), (3.0, 4.0)) and project.bones is None and project.motion is None


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("{", "no project of clipart: .*JSON"),
        ("[1, 2]", "no project"),
        ('{"keypoints": 3}', "keypoints is 3; expected a valid array"),
        ('{"bones": []}', "keypoints is missing; expected version, drawing"),
        ('{"keypoints": [[1, NaN]]}', r"keypoints.0.1 is nan; expected a finite number"),
        ('{"keypoints": [[1, "a"]]}', r"keypoints.0.1 is 'a'; expected a valid number"),
        ('{"keypoints": [[1, 2, 3]]}', "keypoints.0"),
        (
            '{"keypoints": [[1, 2]], "bones": [[-1, 0]]}',
            r"bones.0.0 is -1; expected greater than or equal to 0",
        ),
        ('{"keypoints": [[1, 2]], "bones": [[0.5, 0]]}', r"bones.0.0 is 0.5; expected a valid integer"),
        (
            '{"keypoints": [[1, 2]], "layers": [{"name": "a", "paths": [-1]}]}',
            r"layers.0.paths.0 is -1; expected greater than or equal to 0",
        ),
        (
            '{"keypoints": [[1, 2]], "layers": [{"name": "a"}]}',
            r"layers.0.paths is missing; expected name, paths, keypoints",
        ),
        ('{"keypoints": [[1, 2]], "version": 2}', "version is 2; expected 1"),
        ('{"keypoints": [[1, 2]], "canvas": 512}', "canvas is 512; expected 256"),
        (
            '{"keypoints": [[1, 2]], "color": "red"}',
            "there is no key color; expected version, drawing, canvas",
        ),
        (
            '{"keypoints": [[1, 2]], "motion": {"delta": [], "loop": "back"}}',
            "loop is 'back'; expected",
        ),
    ],
)
def test_what_is_no_project_is_refused(text: str, says: str) -> None:
    with pytest.raises(StudioError, match=says) as refused:
        project_of(text.encode(), "a.json")
    assert "\n" not in str(refused.value)


def test_files_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    with pytest.raises(StudioError, match=r"Cannot read .*nowhere.json: No such file"):
        read_project(tmp_path / "nowhere.json")
    (tmp_path / "large.json").write_bytes(b" " * 2**21)
    with pytest.raises(StudioError, match="has more than"):
        read_project(tmp_path / "large.json")
