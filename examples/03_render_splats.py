"""Splats without a run: a ring of Gaussians, drawn from four sides and painted by gradient descent."""

from __future__ import annotations

import math
from pathlib import Path

import torch
import tyro

from studio.cameras import orbit
from studio.export.images import to_pixels
from studio.export.pictures import write_contact_sheet
from studio.export.ply import write_ply
from studio.renderers.splatting import SplatRenderer
from studio.types import Splats


def ring(count: int, sh: torch.Tensor) -> Splats:
    """Gaussians on a tilted circle, stretched along it."""
    turn = torch.arange(count) * (2 * math.pi / count)
    return Splats(
        means=0.4 * torch.stack([turn.sin(), 0.3 * turn.cos(), turn.cos()], dim=1),
        quats_wxyz=torch.stack([(turn / 2).cos(), 0 * turn, (turn / 2).sin(), 0 * turn], dim=1),
        scales=torch.tensor([0.06, 0.02, 0.02]).expand(count, 3),
        opacities=torch.full((count,), 0.9),
        sh=sh,
    )


def main(count: int = 40, size: int = 128, steps: int = 60, output: Path = Path("ring")) -> Path:
    """Paint the ring orange through the renderer's gradients; write a contact sheet and a 3DGS PLY."""
    renderer = SplatRenderer()
    azimuth = torch.tensor([0.0, 90.0, 180.0, 270.0])
    cameras = orbit(azimuth, torch.full((4,), 25.0), size, size)
    white, orange = torch.ones(4, 3), torch.tensor([1.0, 0.5, 0.1])[:, None, None]

    sh = torch.zeros(count, 1, 3, requires_grad=True)
    optimizer = torch.optim.Adam([sh], lr=0.1)
    for step in range(steps):
        drawn = renderer(ring(count, sh), cameras, white)
        target = drawn.alpha.detach() * orange + 1 - drawn.alpha.detach()
        loss = (drawn.rgb - target).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step % 10 == 0:
            print(f"step {step:3d}  squared error {float(loss.detach()):.5f}")

    splats = ring(count, sh.detach())
    write_ply(splats, output / "ring.ply")
    sheet = output / "ring.png"
    drawn = to_pixels(renderer(splats, cameras, white).rgb)
    write_contact_sheet(drawn, ["front", "right", "back", "left"], columns=4, path=sheet)
    print(sheet)
    return sheet


if __name__ == "__main__":
    tyro.cli(main)
