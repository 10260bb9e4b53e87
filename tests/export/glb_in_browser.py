"""A .glb in a browser beside the studio's own pictures of what it was written from: ``make browse-glb``.

three.js reads and draws the files in a headless Chromium, without a GPU. Prints how like the two are, each
picture at least 40 dB, and writes the pictures of the first two files.
"""

from __future__ import annotations

import base64
import io
import math
import shutil
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor
from torch.nn.functional import avg_pool2d

from studio.cameras import frame_times, orbit
from studio.evaluate.metrics import psnr
from studio.export.animation import shape_at
from studio.export.asset import export_files
from studio.export.images import to_pixels
from studio.export.pictures import write_contact_sheet
from studio.export.reconstruction import MeshBudget, textured_surface
from studio.export.views import pictures
from studio.ops.surfaces import Light
from studio.priors.catalogue import Catalogue
from studio.priors.motions import bend
from studio.recipes.config import DeformableConfig, ExportConfig, NodesConfig, TexturedMeshConfig
from studio.renderers.meshes import RasterRenderer
from studio.renderers.raster import MeshRenderer
from studio.scenes.deformation import Deformable
from studio.scenes.mesh import TexturedMesh
from studio.types import Animation, Cameras, Mesh

if TYPE_CHECKING:
    from playwright.sync_api import Page

MODEL = "cat"
SIZE, SHOWN_SIZE, SUPERSAMPLE = 224, 112, 3
VIEWS, SECONDS = 8, 2.0
KEYFRAMES, INSTANTS = 16, (0.25, 0.8)
LEAST_DB = 40.0
SITE = "http://studio/"
PAGE = Path(__file__).with_suffix(".html")


@dataclass(frozen=True)
class Case:
    """A file, when to look at it and from where, and the shape that it then has to show."""

    glb: str
    seconds: float
    cameras: Cameras
    shape: Mesh


def still() -> Mesh:
    """A model of the catalogue with the studio's light in its texture."""
    (entry,) = (entry for entry in Catalogue.load().entries if entry.id == MODEL)
    model = entry.mesh()
    surface, device = Mesh(model.vertices, model.faces), model.vertices.device
    return textured_surface(surface, model, MeshRenderer(), device, MeshBudget(8000, 512), lambda part: None)


def bending(mesh: Mesh) -> Animation[Mesh]:
    """The mesh, carried by nodes that bend it."""
    config = DeformableConfig(shape=TexturedMeshConfig(texture_size=512), motion=NodesConfig(count=128))
    scene = Deformable.of(TexturedMesh.of(mesh, config.shape), config, torch.Generator())
    poses = [bent(scene.nodes, float(time)) for time in frame_times(KEYFRAMES)]
    places, quats_wxyz = (torch.stack(rows) for rows in zip(*poses, strict=True))
    moves = {"motion/translations": places - scene.nodes, "motion/quats_wxyz": quats_wxyz}
    animation = Deformable.from_state(scene.state() | moves, config).animation(KEYFRAMES, SECONDS)
    assert isinstance(animation.rest, Mesh)
    return animation


def bent(nodes: Float[Tensor, "n 3"], time: float) -> tuple[Float[Tensor, "n 3"], Float[Tensor, "n 4"]]:
    """Where ``bend`` takes nodes, and how it turns what is around them: as the direction of its arc."""
    ahead = bend(nodes + torch.tensor([0.0, 1e-3, 0.0]), time) - bend(nodes, time)
    half = torch.atan2(ahead[:, 0], ahead[:, 1]) / 2
    zero = torch.zeros_like(half)
    return bend(nodes, time), torch.stack([half.cos(), zero, zero, -half.sin()], dim=1)


def cases(folder: Path) -> tuple[Case, ...]:
    """Writes a mesh that stands still, and as a skin and as a flip book one that bends."""
    mesh = still()
    skin = bending(mesh)
    assets = {"still.glb": mesh, "skin.glb": skin, "flip book.glb": replace(skin, rig=None)}
    for name, asset in assets.items():
        export_files(asset, RasterRenderer(), [folder / name], ExportConfig())
    azimuth = torch.arange(VIEWS) * (360.0 / VIEWS)
    around = orbit(azimuth, torch.full_like(azimuth, 15.0), SIZE, SIZE)
    every_other = around[list(range(0, VIEWS, 2))]
    instants = [
        Case(name, SECONDS * time, every_other, shape_at(skin, time))
        for name in ("skin.glb", "flip book.glb")
        for time in INSTANTS
    ]
    return (Case("still.glb", 0.0, around, mesh), *instants)


def in_browser(cases: Sequence[Case], folder: Path, node_modules: Path) -> list[Float[Tensor, "b 3 h w"]]:
    """What a browser shows of each file."""
    from playwright.sync_api import Route, sync_playwright

    def answer(route: Route) -> None:
        path = unquote(route.request.url.removeprefix(SITE))
        file = PAGE if path == "" else folder / path if path.endswith(".glb") else node_modules.parent / path
        route.fulfill(path=file)

    with sync_playwright() as playwright:
        arguments = ["--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"]
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=arguments)
        page = browser.new_page()
        page.route("**/*", answer)
        page.goto(SITE)
        page.wait_for_function("'pictures' in window")
        return [shown(page, case) for case in cases]


def shown(page: Page, case: Case) -> Float[Tensor, "b 3 h w"]:
    """What the page shows of a file, drawn large and made small for smooth outlines."""
    views = []
    for world_to_camera, intrinsics in zip(
        case.cameras.world_to_camera, case.cameras.intrinsics, strict=True
    ):
        # The studio's cameras look along +z with y down, those of three.js along -z with y up.
        turned = torch.diag(torch.tensor([1.0, -1.0, -1.0, 1.0])) @ world_to_camera
        half = math.atan(case.cameras.height / 2 / float(intrinsics[1, 1]))
        columns = turned.inverse().T.flatten().tolist()
        views.append({"field_of_view_deg": math.degrees(2 * half), "camera_to_world": columns})
    wanted = {"glb": case.glb, "size": SUPERSAMPLE * SIZE, "cameras": views, "seconds": case.seconds}
    urls = page.evaluate("wanted => window.pictures(wanted)", wanted)
    files = [io.BytesIO(base64.b64decode(url.partition(",")[2])) for url in urls]
    rows = np.stack([np.asarray(Image.open(file).convert("RGB")) for file in files])
    return avg_pool2d(torch.tensor(rows).movedim(3, 1) / 255.0, SUPERSAMPLE)


def main() -> None:
    """Print a line for each file and instant, and write both rows of each."""
    node_modules, sheet = Path(sys.argv[1]), Path(sys.argv[2])
    renderer = MeshRenderer(supersample=SUPERSAMPLE, light=Light())
    with tempfile.TemporaryDirectory() as folder:
        found = cases(Path(folder))
        theirs = in_browser(found, Path(folder), node_modules)
    ours = [pictures(renderer, case.shape, case.cameras, 1.0).rgb for case in found]
    print("| file | seconds | mean dB | worst view dB |\n| --- | --- | --- | --- |")
    seconds = [case.seconds for case in found for _ in range(len(case.cameras))]
    likenesses = [psnr(copy, truth) for copy, truth in zip(theirs, ours, strict=True)]
    for case, likeness in zip(found, likenesses, strict=True):
        print(f"| {case.glb} | {case.seconds:.1f} | {likeness.mean():.1f} | {likeness.min():.1f} |")
    rows, labels = [], []
    for index in range(0, 2 * VIEWS, VIEWS):
        for name, row in (("studio", torch.cat(ours)), ("three.js", torch.cat(theirs))):
            rows.append(row[index : index + VIEWS])
            labels += [f"{name}, {second:.1f} s" for second in seconds[index : index + VIEWS]]
    write_contact_sheet(to_pixels(avg_pool2d(torch.cat(rows), SIZE // SHOWN_SIZE)), labels, VIEWS, sheet)
    if min(float(likeness.min()) for likeness in likenesses) < LEAST_DB:
        sys.exit(f"A picture is less than {LEAST_DB:.0f} dB like the studio's.")


if __name__ == "__main__":
    main()
