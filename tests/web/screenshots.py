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
WHO = {"x-studio-client": "somebody-who-takes-pictures"}
_GAP_PX = 16


def filled(workspace: Path) -> tuple[Job, str, str]:
    """A workspace with a finished job, a table and a comparison: the job and the two tags."""
    service = Service(Options(workspace))
    client = hashlib.sha256(WHO["x-studio-client"].encode()).hexdigest()[:16]
    small = ["stages.0.steps=60", "export.formats=['glb', 'ply', 'mp4', 'png']", "export.turntable_frames=12"]
    (job,) = service.submit_all([load("draft", "a teddy bear", small)], client, ["for-the-game"])
    few = "prompt,preset,steps\na chair,draft,10\na mug,draft,10\na lamp,draft,10\n"
    table = service.submit_table(few.encode(), "furniture.csv", client)
    recipes = [load("draft", "a teddy bear", ["stages.0.steps=10"]) for _ in range(2)]
    service.submit_all(recipes, client, [comparison := "compare-a-teddy-bear"])
    Worker(Queue(workspace), "pictures", least_free_bytes=0).work(lambda: False, until_empty=True)
    return service.job(job.id, client), table, comparison


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
            page.wait_for_load_state("networkidle")
            page.wait_for_timeout(2500)
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
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as name, sync_playwright() as playwright:
        workspace = Path(name)
        job, table, comparison = filled(workspace)
        server = Server.started(workspace, "--no-workers")
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        pages = {
            "create": "",
            "animate": "animate",
            "4d": "4d",
            "watch": f"watch?job={job.id}",
            "asset": f"asset?job={job.id}",
            "gallery": "gallery",
            "batch": f"batch?tag={table}",
            "compare": f"compare?tag={comparison}",
        }
        try:
            for index, (page, address) in enumerate(pages.items()):
                scheme = ("light", "dark")[index % 2]
                sheet(shots(browser, server.url + address, scheme)).save(
                    folder / f"app-{page}.webp", quality=80, method=6
                )
        finally:
            browser.close()
            server.process.terminate()
            server.process.wait()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
