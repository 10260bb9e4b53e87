"""Every page of the app on a phone, a tablet and a desk: ``make screenshots``, to be looked at.

Writes a sheet a page, its three widths beside each other, and says where something is wider than its page.
"""

from __future__ import annotations

import hashlib
import io
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from PIL import Image
from playwright.sync_api import Browser, Page, sync_playwright

from studio.jobs.queue import Job, Queue
from studio.jobs.worker import Worker
from studio.recipes.load import load
from studio.web.options import Options
from studio.web.service import Service
from tests.web.conftest import CHROMIUM, Server

WIDTHS_PX = (375, 768, 1440)
"""CSS pixels; a height is that of a screen held upright, except for the widest."""
HEIGHTS_PX = (812, 1024, 900)
SHEET_PX = 1600
WAIT_MS = 8000
WHO = {"x-studio-client": "somebody-who-takes-pictures"}
_GAP_PX = 16
_SMALL_MESH = ("export.mesh_faces=2000", "export.texture_size=128")


class Shown(NamedTuple):
    """What a workspace has to show: a job that is finished, and the tags of a table and of a comparison."""

    job: int
    table: str
    comparison: str


def filled(workspace: Path) -> Shown:
    """Makes all that is to be shown."""
    service = Service(Options(workspace))
    client = hashlib.sha256(WHO["x-studio-client"].encode()).hexdigest()[:16]

    def submitted(prompts: Sequence[str], tag: str, *overrides: str) -> Job:
        return service.submit_all([load("draft", prompt, overrides) for prompt in prompts], client, [tag])[0]

    files = ["export.formats=['glb', 'ply', 'mp4', 'png']", "export.turntable_frames=12"]
    job = submitted(["a teddy bear"], "for-the-game", "stages.0.steps=80", *files, *_SMALL_MESH)
    few = ["stages.0.steps=10", "stages.0.resolution=32", "export.formats=['ply']"]
    submitted(["a chair", "a mug", "a lamp"], table := "batch-furniture", *few)
    submitted(["a teddy bear", "a teddy bear"], comparison := "compare-a-teddy-bear", *few)
    Worker(Queue(workspace), "pictures", least_free_bytes=0).work(lambda: False, until_empty=True)
    return Shown(job.id, table, comparison)


def shots(browser: Browser, url: str, scheme: str) -> list[Image.Image]:
    """A page at all widths."""
    taken = []
    for width, height in zip(WIDTHS_PX, HEIGHTS_PX, strict=True):
        with browser.new_context(
            viewport={"width": width, "height": height},
            color_scheme=scheme,  # type: ignore[arg-type]  (a literal of theirs)
            extra_http_headers=WHO,
        ) as person:
            page = person.new_page()
            page.goto(url)
            page.locator("footer").wait_for()
            # Models and pictures come after the page, and it never stops asking.
            page.wait_for_timeout(WAIT_MS)
            for told in _too_wide(page):
                print(f"{url} at {width} px: {told}", flush=True)
            taken.append(Image.open(io.BytesIO(page.screenshot())))
    return taken


def _too_wide(page: Page) -> list[str]:
    """What sticks out of the page to the right, if the page can be moved that way."""
    found: list[str] = page.evaluate(
        """() => {
          const width = document.documentElement.clientWidth;
          if (document.documentElement.scrollWidth <= width) return [];
          return [...document.querySelectorAll('body *')]
            .filter(element => element.getBoundingClientRect().right > width + 1)
            .map(element => element.outerHTML.slice(0, 120)).slice(-3);
        }"""
    )
    return found


def sheet(pictures: Sequence[Image.Image]) -> Image.Image:
    """Pictures of the same height beside each other."""
    height = max(picture.height for picture in pictures)
    whole = Image.new(
        "RGB", (sum(picture.width + _GAP_PX for picture in pictures) - _GAP_PX, height), (128, 128, 128)
    )
    left = 0
    for picture in pictures:
        whole.paste(picture.convert("RGB"), (left, 0))
        left += picture.width + _GAP_PX
    return whole.resize((SHEET_PX, round(height * SHEET_PX / whole.width)), Image.Resampling.LANCZOS)


def main(folder: Path) -> None:
    """Writes the sheets to a folder."""
    with tempfile.TemporaryDirectory() as name:
        take(folder, Path(name), filled(Path(name)))


def take(folder: Path, workspace: Path, shown: Shown) -> None:
    """Writes the sheets of a workspace's pages to a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    pages = {
        "create": "",
        "animate": "animate",
        "4d": "4d",
        "watch": f"watch?job={shown.job}",
        "asset": f"asset?job={shown.job}",
        "gallery": "gallery",
        "batch": f"batch?tag={shown.table}",
        "compare": f"compare?tag={shown.comparison}",
    }
    server = Server.started(workspace, "--no-workers")
    try:
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
            for index, (page, address) in enumerate(pages.items()):
                scheme = ("light", "dark")[index % 2]
                taken = shots(browser, server.url + address, scheme)
                sheet(taken).save(folder / f"pages-{page}.webp", quality=80, method=6)
            browser.close()
    finally:
        server.process.terminate()
        server.process.wait()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
