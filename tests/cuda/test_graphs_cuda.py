"""Steps of rendering in a CUDA graph: captured once, they run again on other numbers, with nothing in between
that waits for the device."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from studio.cameras import orbit
from studio.ops.splatting import SplatCapacity
from studio.renderers.meshes import RasterRenderer
from studio.renderers.splatting import MeasuredCapacity, SplatRenderer
from studio.types import Material, Mesh, Splats
from tests.truth.meshes import ball
from tests.truth.splatting import random_scene

on_a_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")


def assert_replays(step: Callable[[], list[Tensor]], leaf: Tensor) -> None:
    """``step`` in a graph gives on moved leaves what it gives outside."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):  # as torch asks for: what is made at first use must not be in the graph
            step()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = step()
    for _ in range(2):
        with torch.no_grad():
            leaf.mul_(0.9)
        graph.replay()
        for replayed, expected in zip(captured, step(), strict=True):
            size = float(expected.abs().max())
            assert size > 0
            torch.testing.assert_close(replayed, expected, rtol=1e-4, atol=1e-5 * size)


def mesh_step(device: str) -> tuple[Callable[[], list[Tensor]], Tensor]:
    """A textured ball from two sides, and gradients on vertices and texture."""
    vertices, faces = (values.to(device) for values in ball())
    texture = torch.rand(32, 32, 4, device=device).requires_grad_()
    uvs = torch.rand(len(faces), 3, 2, device=device)
    cameras = orbit(torch.tensor([10.0, 130.0]), torch.tensor([20.0, -10.0]), 48, 40).to(device)
    background = torch.ones(2, 3, device=device)
    vertices.requires_grad_()

    def step() -> list[Tensor]:
        mesh = Mesh(vertices, faces, uvs, materials=(Material(texture=texture),))
        images = RasterRenderer()(mesh, cameras, background)
        loss = images.rgb.square().sum() + images.alpha.sum() + images.depth.sum()
        return [images.rgb.detach(), *torch.autograd.grad(loss, (vertices, texture))]

    return step, vertices


@on_a_gpu
def test_a_mesh_s_step_replays() -> None:
    assert_replays(*mesh_step("cuda"))


def test_a_mesh_s_step_asks_for_no_number() -> None:
    """With tensors that have shapes but no numbers, so that to look at one is an error."""
    with FakeTensorMode():
        step, vertices = mesh_step("cpu")
        assert [tuple(made.shape) for made in step()][1:] == [tuple(vertices.shape), (32, 32, 4)]


@on_a_gpu
def test_a_splats_step_replays() -> None:
    scene = random_scene(splats=2000).to("cuda", torch.float32)
    capacity = SplatCapacity.of(50_000, "cuda")
    scene = replace(scene, capacity=capacity)

    def step() -> list[Tensor]:
        images = scene.draw("native")
        loss = images.rgb.square().sum() + images.alpha.sum() + images.depth.sum()
        return [images.rgb.detach(), *torch.autograd.grad(loss, scene.leaves)]

    assert_replays(step, scene.means)
    capacity.check()


@on_a_gpu
def test_a_renderer_s_step_replays() -> None:
    """With the room that its first drawings measured."""
    scene = random_scene(splats=2000).to("cuda", torch.float32)
    capacity = MeasuredCapacity("cuda")
    renderer = SplatRenderer("native", capacity=capacity)
    cameras = orbit(torch.tensor([10.0, 130.0]), torch.tensor([20.0, -10.0]), 48, 40).to("cuda")

    def step() -> list[Tensor]:
        splats = Splats(scene.means, scene.quats_wxyz, scene.scales, scene.opacities, scene.sh)
        images = renderer(splats, cameras, torch.ones(2, 3, device="cuda"))
        loss = images.rgb.square().sum() + images.alpha.sum()
        return [images.rgb.detach(), *torch.autograd.grad(loss, scene.leaves[:5])]

    assert_replays(step, scene.opacities)
    capacity.check()
