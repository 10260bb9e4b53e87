"""Vector clips in a browser beside their frames: ``make browse-clips``.

A headless Chromium plays the animated SVG by itself and the Lottie file by lottie-web. At each instant either
must look like that frame drawn by resvg, and unlike the frame before. Prints how like they are and writes
what both showed of the last drawing at the first and the last instant.
"""

from __future__ import annotations

import io
import json
import shutil
import sys
import tempfile
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image

from studio.export.animated_svg import write_animated_svg
from studio.export.images import to_pixels
from studio.export.lottie import write_lottie
from studio.export.pictures import write_contact_sheet
from studio.export.vector import VectorClip
from studio.resources import clipart
from tests.export.vector_clips import PAINTS, bending, drawn_frame

if TYPE_CHECKING:
    from playwright.sync_api import Page

SIZE = 256
SHOWN = (0, 2, 5)
"""Frames that are looked at, of which the last is the most bent."""
MOST_UNLIKE, LEAST_MOTION = 0.01, 0.02
"""Mean absolute differences in 0-1: of a player from its frame, and of an instant from the one before it."""

Pixels = Float[np.ndarray, "h w 3"]


def smil(page: Page, clip: VectorClip, folder: Path) -> list[Pixels]:
    """The instants of an animated SVG."""
    write_animated_svg(clip, folder / "clip.svg")
    page.set_content((folder / "clip.svg").read_text(), wait_until="load")
    page.add_style_tag(content="body { margin: 0 } svg { display: block; width: 256px; height: 256px }")
    seek = """seconds => {
      const svg = document.querySelector('svg'); svg.pauseAnimations(); svg.setCurrentTime(seconds) }"""
    return [shown(page, seek, frame * clip.seconds / len(clip.order)) for frame in SHOWN]


def lottie(page: Page, clip: VectorClip, folder: Path, player: Path) -> list[Pixels]:
    """The instants of a Lottie file."""
    page.set_content(
        "<body style='margin: 0'><div id='clip' style='width: 256px; height: 256px'></div></body>"
    )
    page.add_script_tag(path=player)
    load = """data => { window.clip = lottie.loadAnimation({container: document.getElementById('clip'),
      renderer: 'svg', autoplay: false, animationData: data}) }"""
    write_lottie(clip, folder / "clip.json")
    page.evaluate(load, json.loads((folder / "clip.json").read_text()))
    return [shown(page, "frame => window.clip.goToAndStop(frame, true)", frame) for frame in SHOWN]


def shown(page: Page, seek: str, instant: float) -> Pixels:
    page.evaluate(seek, instant)
    with Image.open(
        io.BytesIO(page.screenshot(clip={"x": 0, "y": 0, "width": SIZE, "height": SIZE}))
    ) as image:
        return np.asarray(image.convert("RGB"), dtype=np.float32) / 255


def main() -> None:
    """Print a line for each drawing and player."""
    from playwright.sync_api import sync_playwright

    player, sheet = Path(sys.argv[1]) / "lottie-web/build/player/lottie.min.js", Path(sys.argv[2])
    failed = False
    print("| drawing | player | unlike its frame, mean | at worst | unlike the instant before |")
    print("| --- | --- | --- | --- | --- |")
    with tempfile.TemporaryDirectory() as name, sync_playwright() as playwright:
        folder = Path(name)
        (folder / "paints.svg").write_text(PAINTS)
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"))
        page = browser.new_page(viewport={"width": SIZE, "height": SIZE})
        for drawing in (folder / "paints.svg", clipart("man-dancing"), clipart("crab")):
            clip = bending(drawing)
            truth = [drawn_frame(clip, frame, SIZE) for frame in SHOWN]
            players = {
                "SVG in Chromium": smil(page, clip, folder),
                "Lottie in lottie-web": lottie(page, clip, folder, player),
            }
            for who, pictures in players.items():
                unlike = [float(np.abs(one - two).mean()) for one, two in zip(pictures, truth, strict=True)]
                motion = min(float(np.abs(one - two).mean()) for one, two in pairwise(pictures))
                numbers = f"{np.mean(unlike):.4f} | {max(unlike):.4f} | {motion:.4f}"
                print(f"| {drawing.stem} | {who} | {numbers} |")
                failed |= max(unlike) > MOST_UNLIKE or motion < LEAST_MOTION
        browser.close()
    ends = {f"{who}, frame {SHOWN[end]}": shots[end] for who, shots in players.items() for end in (0, -1)}
    write_contact_sheet(
        to_pixels(torch.tensor(np.stack(list(ends.values()))).movedim(-1, 1)), list(ends), len(ends), sheet
    )
    if failed:
        sys.exit(f"A picture is more than {MOST_UNLIKE} unlike its frame, or nothing moved.")


if __name__ == "__main__":
    main()
