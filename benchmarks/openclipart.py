"""Other people's drawings through the studio: how many of a folder's SVG files give a sheet, and why not.

    python benchmarks/openclipart.py /usr/share/openclipart/svg --count 200

Reads files picked at random, the same ones for the same seed, lays a sheet under each and writes its curves
anew. Prints the message that a user gets for each file that is refused, a line for each whose curves look
unlike its picture, and the counts. Whatever is neither a sheet nor such a message is a bug, and ends it.
Debian's package ``openclipart-svg`` has 8121 such files.
"""

from __future__ import annotations

import io
import random
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import resvg_py
import tyro
from PIL import Image

from studio.clipart.drawing import Drawing, read_drawing
from studio.clipart.sheet import sheet_of
from studio.clipart.svg_writer import svg_of
from studio.errors import StudioError

TEXTURE_SIZE = 512
UNLIKE = 0.01
"""Mean absolute difference of premultiplied values in 0-1."""


@dataclass(frozen=True)
class Options:
    """What to read.

    Attributes:
        folder: searched for .svg files, folders in it included.
        count: how many of them, picked at random.
        seed: which ones.
    """

    folder: Annotated[Path, tyro.conf.Positional]
    count: int = 200
    seed: int = 0


def difference(drawing: Drawing) -> float:
    """How unlike a drawing's picture its own curves are."""
    png = resvg_py.svg_to_bytes(svg_string=svg_of(drawing.paths).decode(), width=TEXTURE_SIZE)
    curves, picture = Image.open(io.BytesIO(png)), Image.fromarray(drawing.rgba.numpy())
    one, other = (np.asarray(image.convert("RGBa"), dtype=float) / 255 for image in (curves, picture))
    return float(np.abs(one - other).mean())


def main() -> None:
    options = tyro.cli(Options)
    files = sorted(options.folder.rglob("*.svg"))
    chosen = random.Random(options.seed).sample(files, min(options.count, len(files)))  # noqa: S311
    refused, vertices, unlike, seconds = 0, [], [], []
    for file in chosen:
        start = time.process_time()
        try:
            drawing = read_drawing(file, TEXTURE_SIZE)
            vertices.append(len(sheet_of(drawing).vertices))
        except StudioError as error:
            refused += 1
            print(f"refused: {error}")
            continue
        seconds.append(time.process_time() - start)
        apart = difference(drawing)
        if apart > UNLIKE:
            unlike.append(file)
            lacking = f" (without {', '.join(drawing.not_in_paths)})" if drawing.not_in_paths else ""
            print(f"unlike its picture by {apart:.3f}: {file.name}{lacking}")
    print(f"{len(chosen)} files: {len(vertices)} gave a sheet, {refused} were refused.")
    print(f"{len(vertices) - len(unlike)} of {len(vertices)} have curves within {UNLIKE} of their picture.")
    print(f"Vertices: median {np.median(vertices):.0f}, most {max(vertices)}.")
    print(
        f"Seconds of one core, picture and sheet: median {np.median(seconds):.2f}, most {max(seconds):.2f}."
    )


if __name__ == "__main__":
    main()
