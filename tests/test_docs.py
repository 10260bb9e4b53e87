"""What the documentation says is true: its commands parse, its links lead somewhere, its presets are all."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from studio.commands import parse
from studio.recipes import load

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links(page: Path) -> None:
    links = re.findall(r"\]\(([^)#]+)\)", page.read_text())
    missing = [link for link in links if "://" not in link and not (page.parent / link).exists()]
    assert missing == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands(page: Path) -> None:
    for line in re.findall(r"^studio (.+)$", page.read_text(), flags=re.MULTILINE):
        parse(shlex.split(line, comments=True))


def test_presets() -> None:
    rows = re.findall(r"^\| `([\w-]+)` \| (.+) \|$", (ROOT / "README.md").read_text(), flags=re.MULTILINE)
    described = {name: text for name, text in rows if name in load.preset_names()}
    presets = {name: load.load(name).description for name in load.preset_names()}
    assert described == presets
