"""Times the mesh rasterizer: ten thousand faces, four views of 128 x 128, a third of the picture covered.

Run it with ``python benchmarks/rasterize.py``. Each row gives the least of several runs, in milliseconds of
processor time (all threads together) and of wall time, after the pictures were compared with the reference's.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable

import torch

from studio.cameras import orbit
from studio.ops.library import Backend, report
from studio.ops.rasterize import MeshImages, rasterize
from studio.ops.surfaces import Light, Surface, pack_textures

RINGS, SECTORS = 51, 102


def ball(textured: bool) -> Surface:
    """A ball of radius 0.5, plain or with a 512 x 512 texture."""
    theta = torch.linspace(0, math.pi, RINGS + 1)[:, None]
    phi = torch.arange(SECTORS)[None] * (2 * math.pi / SECTORS)
    x, y, z = theta.sin() * phi.sin(), theta.cos().expand(-1, SECTORS), theta.sin() * phi.cos()
    i, j = torch.meshgrid(torch.arange(RINGS), torch.arange(SECTORS), indexing="ij")
    a, b = i * SECTORS + j, i * SECTORS + (j + 1) % SECTORS
    below = SECTORS
    faces = torch.stack([torch.stack([a, a + below, b], -1), torch.stack([b, a + below, b + below], -1)])
    faces = faces.reshape(-1, 3).int()
    vertices = 0.5 * torch.stack([x, y, z], dim=-1).reshape(-1, 3)
    return Surface(
        vertices=vertices,
        faces=faces,
        face_materials=torch.zeros(len(faces), dtype=torch.int32),
        base_colors=torch.ones(1, 4),
        textures=pack_textures([torch.rand(512, 512, 4).clamp(min=0.5) if textured else None]),
        uvs=vertices[faces.long()][..., :2] + 0.5 if textured else None,
    )


def fastest(draw: Callable[[], MeshImages], runs: int) -> tuple[float, float]:
    """Processor and wall milliseconds of the fastest run, after one to warm up."""
    draw()
    times = []
    for _ in range(runs):
        cpu, wall = time.process_time(), time.perf_counter()
        draw()
        times.append((time.process_time() - cpu, time.perf_counter() - wall))
    return 1000 * min(cpu for cpu, _ in times), 1000 * min(wall for _, wall in times)


def main() -> None:
    """Prints one row for each backend, number of threads, texture and number of samples."""
    torch.manual_seed(0)
    print(*report(), sep="\n")
    cameras = orbit(torch.tensor([0.0, 90, 180, 270]), torch.tensor([15.0, 0, 30, -20]), 128, 128, 2.0, 41.0)
    background = torch.ones(4, 3)
    light = Light(0.5, 0.2, torch.tensor([[0.2, 0.2, 0.1], [-0.1, 0.1, 0.0]]))
    columns = ("faces", "texture", "samples", "backend", "threads", "cpu ms", "wall ms")
    print(*(f"{column:>8}" for column in columns))
    all_threads = torch.get_num_threads()
    for textured in (False, True):
        surface = ball(textured)
        for supersample in (1, 2):

            def draw(
                backend: Backend, surface: Surface = surface, supersample: int = supersample
            ) -> MeshImages:
                return rasterize(
                    surface, cameras.world_to_camera, cameras.intrinsics, background, 128, 128,
                    light=light, supersample=supersample, backend=backend,
                )  # fmt: skip

            difference = (draw("native").rgb - draw("torch").rgb).abs().amax(1) > 1e-3
            assert float(difference.float().mean()) < 2e-3, "the native picture differs from the reference"
            rows: tuple[tuple[Backend, int, int], ...] = (
                ("native", 1, 30),
                ("native", all_threads, 30),
                ("torch", 1, 3),
            )
            for backend, threads, runs in rows:
                torch.set_num_threads(threads)
                cpu, wall = fastest(lambda backend=backend: draw(backend), runs)  # type: ignore[misc]
                texture = "yes" if textured else "no"
                cells = (
                    len(surface.faces),
                    texture,
                    supersample**2,
                    backend,
                    threads,
                    f"{cpu:.2f}",
                    f"{wall:.2f}",
                )
                print(*(f"{cell:>8}" for cell in cells))
    torch.set_num_threads(all_threads)


if __name__ == "__main__":
    main()
