"""Clips that tests of vector formats write: an emoji and a drawing with all kinds of paint, bending."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import resvg_py
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from studio.clipart.drawing import CANVAS_PX, Drawing, read_drawing
from studio.clipart.sheet import Sheet, sheet_of
from studio.export.animated_svg import svg_frame
from studio.export.vector import MovingSheet, VectorClip, vector_clip

PAINTS = """<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 100 100">
<linearGradient id="a" x2="1" y2="1"><stop stop-color="#f40"/>
<stop offset="1" stop-color="#04f"/></linearGradient>
<radialGradient id="b" fx=".3"><stop stop-color="#fff"/><stop offset="1" stop-color="#0a0"/></radialGradient>
<rect x="10" y="30" width="80" height="50" rx="9" fill="url(#a)" stroke="#222" stroke-width="3"/>
<circle cx="35" cy="50" r="14" fill="url(#b)"/>
<path d="M55 40h25v25h-25zM60 45h15v15h-15z" fill="#ff0" fill-rule="evenodd" fill-opacity=".8"/>
<path d="M20 72q30 -14 60 0" fill="none" stroke="#fff" stroke-width="3" stroke-dasharray="6 3"
 stroke-linecap="round"/>
</svg>"""


def bent(points: Float[Tensor, "v 2"], time: float) -> Float[Tensor, "v 2"]:
    """Points of the canvas sheared and waved, at rest at time 0 and at its most at time 0.5."""
    x, y = ((points - CANVAS_PX / 2) / CANVAS_PX).unbind(-1)
    swing = float(np.sin(np.pi * time))
    steps = torch.stack([60 * y * swing, 24 * torch.sin(4 * x) * swing], dim=-1)
    return points + steps


def on_one_sheet(drawing: Drawing, sheet: Sheet, frames: Float[Tensor, "t v 2"]) -> list[MovingSheet]:
    """All paths of a drawing on the same sheet."""
    return [MovingSheet(range(len(drawing.paths)), sheet, frames)]


def bending(svg: Path, frames: int = 6, loops: bool = True, seconds: float = 1.0) -> VectorClip:
    """A clip that goes from rest to the most and back."""
    drawing = read_drawing(svg, texture_size=CANVAS_PX)
    sheet = sheet_of(drawing)
    places = torch.stack([bent(sheet.vertices, 0.5 * index / (frames - 1)) for index in range(frames)])
    order = [*range(frames), *range(frames - 2, 0, -1)]
    return vector_clip(drawing, on_one_sheet(drawing, sheet, places), order, seconds, loops)


def drawn(svg: bytes, size: int) -> Float[np.ndarray, "h w 3"]:
    """An SVG over white as resvg draws it, 0-1."""
    png = resvg_py.svg_to_bytes(svg_string=svg.decode(), width=size, background="white")
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB"), dtype=np.float32) / 255


def drawn_frame(clip: VectorClip, frame: int, size: int) -> Float[np.ndarray, "h w 3"]:
    """A frame of a clip over white as resvg draws it, 0-1."""
    return drawn(svg_frame(clip, frame), size)
