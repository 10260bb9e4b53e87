"""Renderings of captioned models, and the captioned samples that training draws from them.

A training set is a folder:

* ``objects.json``: for each object its names (the first is the noun, the others synonyms);
* ``views.safetensors``: for each object ``rgba`` pictures with straight colour over black and coverage,
  uint8, with the ``azimuth_deg`` and ``elevation_deg`` of their cameras; and, from cameras that all objects
  share and training never sees, ``held_out_rgba``, ``held_out_azimuth_deg`` and ``held_out_elevation_deg``.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from studio.cameras import orbit
from studio.errors import StudioError
from studio.interfaces import Renderer
from studio.priors.training.config import RenderDataConfig
from studio.priors.vocabulary import COLOURS
from studio.randomness import generator
from studio.types import Cameras, Mesh
from studio.view_prompts import direction_of

HUE_SHIFTS = 6
VIEW_WORDS = ("front", "side", "back", "overhead")


@dataclass(frozen=True)
class CaptionedMesh:
    """An object to learn: its noun, then synonyms, in lower case; and its shape, within the ball of radius
    0.5.
    """

    names: tuple[str, ...]
    mesh: Mesh


@dataclass(frozen=True)
class TrainingViews:
    """Renderings of ``m`` objects from ``v`` cameras each.

    Attributes:
        names: of each object, the noun first.
        rgba: premultiplied colour and coverage.
        azimuth_deg, elevation_deg: of each picture.
        held_out_rgba: the same objects from the cameras ``held_out``.
        held_out: cameras that training never sees.
        colours: colour word of each object under each hue shift, index 0 being its own colours.
    """

    names: tuple[tuple[str, ...], ...]
    rgba: UInt8[Tensor, "m v 4 s s"]
    azimuth_deg: Float[Tensor, "m v"]
    elevation_deg: Float[Tensor, "m v"]
    held_out_rgba: UInt8[Tensor, "m k 4 s s"]
    held_out: Cameras
    colours: tuple[tuple[str, ...], ...]

    @property
    def nouns(self) -> tuple[str, ...]:
        """Each noun once, in order of first appearance."""
        return tuple(dict.fromkeys(names[0] for names in self.names))

    @property
    def words(self) -> tuple[str, ...]:
        """Every word that a caption may hold, sorted."""
        text = " ".join(" ".join(names) for names in self.names)
        return tuple(sorted({*text.split(), *COLOURS, *VIEW_WORDS, "a", "view"}))


@dataclass(frozen=True)
class Batch:
    """One step's samples: images in 0-1, what they are called, and their cameras (``has_camera`` 0: none
    told).
    """

    rgb: Float[Tensor, "b 3 s s"]
    captions: tuple[str, ...]
    azimuth_deg: Float[Tensor, "b"]
    elevation_deg: Float[Tensor, "b"]
    has_camera: Float[Tensor, "b"]


def render_data(objects: Iterable[CaptionedMesh], config: RenderDataConfig, folder: Path) -> None:
    """Draw every object and write a training set. An existing set in ``folder`` is replaced."""
    from safetensors.torch import save_file

    from studio.renderers.raster import MeshRenderer

    renderer = MeshRenderer()
    held_out = _band_cameras(config, config.held_out_views, "held out", 0)
    names, rgba, azimuths, elevations, held_out_rgba = [], [], [], [], []
    for index, captioned in enumerate(objects):
        cameras = _band_cameras(config, config.views, "views", index + 1)
        names.append(captioned.names)
        rgba.append(_draw(renderer, captioned.mesh, cameras))
        held_out_rgba.append(_draw(renderer, captioned.mesh, held_out))
        azimuths.append(cameras.azimuth_deg)
        elevations.append(cameras.elevation_deg)
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {
        "rgba": torch.stack(rgba),
        "azimuth_deg": torch.stack(azimuths),
        "elevation_deg": torch.stack(elevations),
        "held_out_rgba": torch.stack(held_out_rgba),
        "held_out_azimuth_deg": held_out.azimuth_deg,
        "held_out_elevation_deg": held_out.elevation_deg,
    }
    save_file(tensors, folder / "views.safetensors")
    (folder / "objects.json").write_text(json.dumps({"names": names}, indent=1) + "\n")


def load_views(folder: Path) -> TrainingViews:
    """Read a training set.

    Raises:
        StudioError: when the folder is not one.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        names = json.loads((folder / "objects.json").read_text())["names"]
        tensors = load_file(folder / "views.safetensors")
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        raise StudioError(
            f"{folder} is not a folder of training views ({error}); make one with 'studio prior render-data'."
        ) from error
    rgba = tensors["rgba"]
    return TrainingViews(
        names=tuple(tuple(each) for each in names),
        rgba=rgba,
        azimuth_deg=tensors["azimuth_deg"],
        elevation_deg=tensors["elevation_deg"],
        held_out_rgba=tensors["held_out_rgba"],
        held_out=orbit(
            tensors["held_out_azimuth_deg"], tensors["held_out_elevation_deg"], rgba.shape[-1], rgba.shape[-1]
        ),
        colours=tuple(_colours_under_shifts(pictures) for pictures in rgba),
    )


def draw_batch(views: TrainingViews, size: int, rng: torch.Generator) -> Batch:
    """Random samples: nouns equally often, then an object, a view, a background and a caption.

    * Background: white, always: a second background would be one more thing to guess.
    * Caption: "a [colour] <noun>", a synonym instead of the noun in one of five, the colour in half; ",
      <front, side, back, overhead> view" in half. One sample in ten has its hues shifted and is named with
      its new colour.
    * A word that the model does not know stands somewhere in one caption of ten, so that it learns to pass
      over them.
    * The whole caption is left out in one of ten, and so is the camera, independently.
    """
    nouns = views.nouns
    members = {noun: [i for i, names in enumerate(views.names) if names[0] == noun] for noun in nouns}
    chance = torch.rand(size, 10, generator=rng).tolist()
    picked, shifts, captions = [], [], []
    for row in chance:
        group = members[nouns[int(row[0] * len(nouns))]]
        model = group[int(row[1] * len(group))]
        view = int(row[2] * views.rgba.shape[1])
        shift = 1 + int(row[3] * 10 * (HUE_SHIFTS - 1)) if row[3] < 0.1 else 0
        azimuth, elevation = float(views.azimuth_deg[model, view]), float(views.elevation_deg[model, view])
        picked.append((model, view))
        shifts.append(shift)
        caption = _caption(views, model, shift, row[4:7], view_word(azimuth, elevation))
        if row[9] < 0.1:
            words = caption.split(" ")
            words.insert(int(row[9] * 10 * (len(words) + 1)), "[UNK]")
            caption = " ".join(words)
        captions.append("" if row[7] < 0.1 else caption)
    models, index = torch.tensor(picked).T
    rgba = views.rgba[models, index].float() / 255
    colour = hue_shifted(rgba[:, :3], torch.tensor(shifts) / HUE_SHIFTS)
    return Batch(
        rgb=colour + 1 - rgba[:, 3:],
        captions=tuple(captions),
        azimuth_deg=views.azimuth_deg[models, index],
        elevation_deg=views.elevation_deg[models, index],
        has_camera=torch.tensor([float(row[8] >= 0.1) for row in chance]),
    )


def view_word(azimuth_deg: float, elevation_deg: float) -> str:
    """The view word of a camera: front, side, back or overhead."""
    return direction_of(azimuth_deg, elevation_deg).value.removesuffix(" view")


def hue_shifted(rgb: Float[Tensor, "b 3 h w"], turns: Float[Tensor, "b"]) -> Float[Tensor, "b 3 h w"]:
    """Colours with their hue turned by a fraction of the circle; HSV saturation and value stay."""
    if not bool(turns.any()):
        return rgb
    high, low = rgb.amax(1, keepdim=True), rgb.amin(1, keepdim=True)
    hue = _hue(rgb)[:, None] + turns[:, None, None, None]
    offsets = torch.tensor([5.0, 3.0, 1.0])[None, :, None, None]
    sector = (offsets + 6 * hue) % 6
    shifted = high - (high - low) * torch.minimum(sector, 4 - sector).clamp(0, 1)
    return torch.where(turns[:, None, None, None] > 0, shifted, rgb)


def dominant_colour(rgb: Float[Tensor, "3 n"], weight: Float[Tensor, "n"]) -> str:
    """The colour word that covers most of the given pixels."""
    red_green_blue = rgb[None, :, :, None]
    hue = _hue(red_green_blue)[0, :, 0] * 360
    high, low = rgb.amax(0), rgb.amin(0)
    saturation = (high - low) / high.clamp(min=1e-6)
    words = torch.full_like(hue, COLOURS.index("red"), dtype=torch.long)
    # Upper limits of the hues in degrees, falling; above the first it is red again.
    limits = (
        (345, "pink"),
        (290, "purple"),
        (255, "blue"),
        (165, "green"),
        (70, "yellow"),
        (42, "orange"),
        (15, "red"),
    )
    for limit, word in limits:
        words = torch.where(hue < limit, COLOURS.index(word), words)
    warm = (hue > 8) & (hue < 60)
    words = torch.where(
        warm & (hue < 48) & (high < 0.72) & (saturation < 0.85), COLOURS.index("brown"), words
    )
    words = torch.where(warm & (high >= 0.72) & (saturation < 0.4), COLOURS.index("beige"), words)
    grey = saturation < 0.15
    words = torch.where(grey, COLOURS.index("grey"), words)
    words = torch.where(grey & (high > 0.66), COLOURS.index("white"), words)
    words = torch.where(high < 0.2, COLOURS.index("black"), words)
    counts = torch.zeros(len(COLOURS)).index_add(0, words, weight)
    return COLOURS[int(counts.argmax())]


def _caption(views: TrainingViews, model: int, shift: int, chance: Sequence[float], view: str) -> str:
    names = views.names[model]
    synonym, colour, viewed = chance
    name = names[1 + int(synonym * 5 * (len(names) - 1))] if len(names) > 1 and synonym < 0.2 else names[0]
    coloured = f"{views.colours[model][shift]} {name}" if shift or colour < 0.5 else name
    return f"a {coloured}, {view} view" if viewed < 0.5 else f"a {coloured}"


def _colours_under_shifts(rgba: UInt8[Tensor, "v 4 s s"]) -> tuple[str, ...]:
    pictures = rgba[::6].float() / 255
    covered = pictures[:, 3:] > 0.5
    rgb = torch.where(covered, pictures[:, :3] / pictures[:, 3:].clamp(min=0.5), 0.0)
    turns = torch.arange(HUE_SHIFTS) / HUE_SHIFTS
    weight = covered[:, 0].flatten().float()
    words = []
    for turn in turns:
        shifted = hue_shifted(rgb, turn.expand(len(rgb)))
        words.append(dominant_colour(shifted.transpose(0, 1).flatten(1), weight))
    return tuple(words)


def _hue(rgb: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b h w"]:
    red, green, blue = rgb.unbind(1)
    high, low = rgb.amax(1), rgb.amin(1)
    spread = (high - low).clamp(min=1e-6)
    sector = torch.where(
        high == red,
        (green - blue) / spread % 6,
        torch.where(high == green, (blue - red) / spread + 2, (red - green) / spread + 4),
    )
    return sector / 6


def _band_cameras(config: RenderDataConfig, count: int, purpose: str, index: int) -> Cameras:
    """Cameras evenly around, jittered; elevations uniform in the range, but every eighth view above it."""
    rng = generator(config.seed, purpose, index)
    jitter, height = torch.rand(2, count, generator=rng)
    azimuth = (torch.arange(count) + jitter) * (360.0 / count)
    low, high = config.elevation_range_deg
    elevation = torch.where(
        torch.arange(count) % 8 == 7, high + (80 - high) * height, low + (high - low) * height
    )
    return orbit(azimuth, elevation, config.image_size, config.image_size)


def _draw(renderer: Renderer[Mesh], mesh: Mesh, cameras: Cameras) -> UInt8[Tensor, "v 4 s s"]:
    drawn = renderer(mesh, cameras, torch.zeros(len(cameras), 3))
    rgba = torch.cat([drawn.rgb, drawn.alpha], dim=1)
    return (rgba.clamp(0, 1) * 255).round().to(torch.uint8)
