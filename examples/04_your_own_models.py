"""The exact prior over your own models: a folder of meshes and a file of captions are a diffusion prior.

Here the models are two boxes, made on the spot. For your own, put GLB, OBJ, PLY or STL files in a folder and
name each in ``captions.txt``.
"""

from __future__ import annotations

from pathlib import Path

import torch
import tyro

from studio.cameras import orbit
from studio.export.glb import write_glb
from studio.priors.catalogue import Catalogue
from studio.priors.library import LibraryPrior
from studio.randomness import generator
from studio.types import Condition, Material, Mesh

CORNERS = torch.tensor([[x, y, z] for x in (-1.0, 1.0) for y in (-1.0, 1.0) for z in (-1.0, 1.0)])
FACES = torch.tensor(
    [
        [0, 1, 3], [0, 3, 2], [4, 6, 7], [4, 7, 5], [0, 4, 5], [0, 5, 1],
        [2, 3, 7], [2, 7, 6], [0, 2, 6], [0, 6, 4], [1, 5, 7], [1, 7, 3],
    ]
)  # fmt: skip


def make_models(folder: Path) -> None:
    """Write a flat red box and a tall blue one, with their captions."""
    red, blue = Material((0.8, 0.1, 0.1, 1.0)), Material((0.1, 0.2, 0.8, 1.0))
    write_glb(Mesh(CORNERS * torch.tensor([1.0, 0.2, 1.0]), FACES, materials=(red,)), folder / "flat.glb")
    write_glb(Mesh(CORNERS * torch.tensor([0.3, 1.0, 0.3]), FACES, materials=(blue,)), folder / "tall.glb")
    (folder / "captions.txt").write_text("flat.glb: a flat red box\ntall.glb: a tall blue box\n")


def main(folder: Path = Path("my_models"), size: int = 64) -> list[float]:
    """Ask the prior what a noisy picture of the tall box shows, from almost clean to almost pure noise."""
    make_models(folder)
    prior = LibraryPrior(Catalogue.from_folder(folder), resolution=size)
    camera = orbit(torch.tensor([30.0]), torch.tensor([15.0]), size, size)
    white = torch.ones(1, 3)

    tall = prior.encode_images(prior.true_renderings("a tall box", camera, white)[0])
    either = Condition(prior.encode_prompts(["a box"]), camera, white)
    beliefs = []
    for level in (500.0, 900.0, 970.0, 990.0, 999.0):
        timestep = torch.tensor([level])
        noise = torch.randn(tall.shape, generator=generator(0, "noise"))
        noisy = prior.schedule.add_noise(tall, noise, timestep)
        belief = float(prior.responsibilities(noisy, timestep, either)[0, 1])
        beliefs.append(belief)
        print(f"level {level:4.0f}  the picture shows the tall box with probability {belief:.3f}")
    print(f"now: studio generate 'a tall box' --prior {folder}")
    return beliefs


if __name__ == "__main__":
    tyro.cli(main)
