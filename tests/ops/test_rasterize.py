"""The rasterizer against pixels worked out by hand, closed forms and its other backend."""

from __future__ import annotations

import math
from dataclasses import fields, replace

import pytest
import torch
from jaxtyping import Float
from torch import Tensor

from studio.cameras import look_at, orbit
from studio.errors import StudioError
from studio.ops.library import Backend
from studio.ops.rasterize import MeshImages, rasterize
from studio.ops.surfaces import Light, Surface, Textures, pack_textures
from tests.truth.bits import assert_same_bits

BACKENDS: tuple[Backend, ...] = ("native", "torch")
backends = pytest.mark.parametrize("backend", BACKENDS)

# A camera at the origin that looks along the world's +z with y down: the world is the camera's own space.
EYE = torch.eye(4)[None]


def pinhole(focal: float, cx: float, cy: float) -> Float[Tensor, "1 3 3"]:
    return torch.tensor([[[focal, 0.0, cx], [0.0, focal, cy], [0.0, 0.0, 1.0]]])


# focal length 1 and no offset: what lies at depth 1 has its pixel coordinates for x and y
PIXELS = pinhole(1.0, 0.0, 0.0)
BLACK = torch.zeros(1, 3)


def surface(
    vertices: list[list[float]] | Tensor,
    faces: list[list[int]] | Tensor,
    colors: list[list[float]] | None = None,
    face_materials: list[int] | None = None,
) -> Surface:
    faces = torch.as_tensor(faces, dtype=torch.int64).reshape(-1, 3)
    colors = [[1.0, 1.0, 1.0, 1.0]] if colors is None else colors
    return Surface(
        vertices=torch.as_tensor(vertices, dtype=torch.float32).reshape(-1, 3),
        faces=faces,
        face_materials=torch.tensor(
            [0] * len(faces) if face_materials is None else face_materials, dtype=torch.int64
        ),
        base_colors=torch.tensor(colors),
        textures=pack_textures([None] * len(colors)),
    )


def draw(shape: Surface, width: int, height: int, backend: Backend, supersample: int = 1) -> MeshImages:
    return rasterize(shape, EYE, PIXELS, BLACK, width, height, supersample=supersample, backend=backend)


def ball(columns: int = 24, rows: int = 12) -> tuple[Tensor, Tensor]:
    """Vertices and faces, counter-clockwise from outside, of a ball of radius 0.5."""
    theta = torch.linspace(0, math.pi, rows + 1)[:, None]
    phi = torch.arange(columns)[None] * (2 * math.pi / columns)
    x, y, z = theta.sin() * phi.sin(), theta.cos().expand(-1, columns), theta.sin() * phi.cos()
    i, j = torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij")
    a, b = i * columns + j, i * columns + (j + 1) % columns
    faces = torch.stack(
        [torch.stack([a, a + columns, b], -1), torch.stack([b, a + columns, b + columns], -1)]
    )
    return 0.5 * torch.stack([x, y, z], dim=-1).reshape(-1, 3), faces.reshape(-1, 3)


@backends
def test_a_triangle_covers_the_pixels_whose_centres_it_holds(backend: Backend) -> None:
    # The corner x, y >= 0, x + y <= 4.2 holds the centres with column + row + 1 <= 4.
    alpha = draw(surface([[0, 0, 1], [4.2, 0, 1], [0, 4.2, 1]], [[0, 1, 2]]), 6, 5, backend).alpha[0, 0]
    column, row = torch.arange(6)[None], torch.arange(5)[:, None]
    assert torch.equal(alpha, (column + row + 1 <= 4).float())


@backends
def test_depth_follows_the_plane(backend: Backend) -> None:
    # The plane 0.01 x + 0.02 y + z = 2: the ray (c, r, 1) meets it at z = 2 / (1 + 0.01 c + 0.02 r).
    def corner(c: float, r: float) -> list[float]:
        z = 2 / (1 + 0.01 * c + 0.02 * r)
        return [c * z, r * z, z]

    images = draw(surface([corner(-9, -9), corner(60, -9), corner(-9, 60)], [[0, 1, 2]]), 12, 7, backend)
    column, row = torch.arange(12)[None] + 0.5, torch.arange(7)[:, None] + 0.5
    torch.testing.assert_close(images.depth[0, 0], 2 / (1 + 0.01 * column + 0.02 * row), rtol=1e-5, atol=0)
    assert bool((images.alpha == 1).all())
    # The normal's side that the camera sees has n . ray < 0.
    normal = -torch.tensor([0.01, 0.02, 1.0]) / math.sqrt(0.01**2 + 0.02**2 + 1)
    expected = normal[None, :, None, None].expand_as(images.normal)
    torch.testing.assert_close(images.normal, expected, rtol=0, atol=1e-5)


@backends
def test_vertex_colours_are_barycentric_on_a_parallel_plane(backend: Backend) -> None:
    shape = replace(surface([[0, 0, 1], [8, 0, 1], [0, 8, 1]], [[0, 1, 2]]), vertex_colors=torch.eye(3))
    rgb = draw(shape, 8, 8, backend).rgb[0]
    # At the pixel (1, 2) the weights are 1 - 1.5/8 - 2.5/8, 1.5/8 and 2.5/8.
    torch.testing.assert_close(rgb[:, 2, 1], torch.tensor([4.0, 1.5, 2.5]) / 8)


@backends
def test_interpolation_is_perspective_correct(backend: Backend) -> None:
    """A slanted quad with u, v as its coordinates, against the homography of its plane to the screen."""
    origin, along_u, along_v = (
        torch.tensor([-1.0, -0.8, 1.5]),
        torch.tensor([2.0, 0.3, 2.5]),
        torch.tensor([0.2, 1.7, 0.6]),
    )
    corners = torch.tensor([[0.0, 0.0], [1.0, 0.0], [1.0, 1.0], [0.0, 1.0]])
    vertices = origin + corners[:, :1] * along_u + corners[:, 1:] * along_v
    colors = torch.cat([corners, torch.zeros(4, 1)], dim=-1)
    shape = replace(surface(vertices, [[0, 1, 2], [0, 2, 3]]), vertex_colors=colors)
    lens = pinhole(40.0, 32.0, 24.0)
    images = rasterize(shape, EYE.to(lens), lens, BLACK.to(lens), 64, 48, backend=backend)

    homography = lens[0] @ torch.stack([along_u, along_v, origin], dim=1)
    y, x = torch.meshgrid(torch.arange(48) + 0.5, torch.arange(64) + 0.5, indexing="ij")
    solved = torch.linalg.inv(homography) @ torch.stack([x, y, torch.ones_like(x)]).reshape(3, -1)
    uv = (solved[:2] / solved[2]).reshape(2, 48, 64)
    inside = images.alpha[0, 0] == 1
    assert 300 < int(inside.sum()) < 64 * 48
    assert torch.equal(inside, ((uv > 0) & (uv < 1)).all(0) & (solved[2] > 0).reshape(48, 64))
    torch.testing.assert_close(images.rgb[0, :2, inside], uv[:, inside], rtol=0, atol=2e-5)


@backends
def test_texture_rows_run_down_from_v_1(backend: Backend) -> None:
    # A 2 x 2 texture over 8 x 8 pixels, row 0 on top, against torch's own enlargement of it, tiled.
    texture = torch.tensor([[[1.0, 0, 0, 1], [0, 1.0, 0, 1]], [[0, 0, 1.0, 1], [1.0, 1.0, 0, 1]]])
    # y grows downwards on the screen, so v = 1 at y = 0
    uv = torch.tensor([[0.0, 1.0], [1.0, 1.0], [1.0, 0.0], [0.0, 0.0]])
    faces = torch.tensor([[0, 1, 2], [0, 2, 3]])
    plain = surface([[0, 0, 1], [8, 0, 1], [8, 8, 1], [0, 8, 1]], faces)
    shape = replace(plain, textures=pack_textures([texture]), uvs=uv[faces])
    rgb = draw(shape, 8, 8, backend).rgb[0]
    tiled = torch.nn.functional.pad(texture[None, ..., :3].permute(0, 3, 1, 2), (1, 1, 1, 1), mode="circular")
    expected = torch.nn.functional.interpolate(tiled, scale_factor=4, mode="bilinear")[0, :, 4:-4, 4:-4]
    torch.testing.assert_close(rgb, expected, rtol=0, atol=1e-5)


@backends
def test_minified_textures_show_their_mean(backend: Backend) -> None:
    # A checkerboard far finer than the pixels: without mip-maps, samples would be black or white.
    checker = (torch.arange(256)[:, None] + torch.arange(256)[None]) % 2
    texture = torch.cat([checker[..., None].expand(-1, -1, 3), torch.ones(256, 256, 1)], dim=-1).float()
    faces = torch.tensor([[0, 1, 2], [0, 2, 3]])
    uv = torch.tensor([[0.0, 0.0], [1.0, 0.0], [1.0, 1.0], [0.0, 1.0]])
    plain = surface([[0, 0, 1], [8, 0, 1], [8, 8, 1], [0, 8, 1]], faces)
    shape = replace(plain, textures=pack_textures([texture]), uvs=uv[faces])
    rgb = draw(shape, 8, 8, backend).rgb
    torch.testing.assert_close(rgb, torch.full_like(rgb, 0.5), rtol=0, atol=4e-3)


@backends
def test_the_nearer_triangle_wins_whatever_the_order(backend: Backend) -> None:
    vertices = [[0, 0, 1], [9, 0, 1], [0, 9, 1], [0, 0, 2], [36, 0, 2], [0, 36, 2]]
    colors = [[1.0, 0, 0, 1.0], [0, 1.0, 0, 1.0]]
    for faces, materials in (([[0, 1, 2], [3, 4, 5]], [0, 1]), ([[3, 4, 5], [0, 1, 2]], [1, 0])):
        rgb = draw(surface(vertices, faces, colors, materials), 8, 8, backend).rgb[0]
        assert rgb[:, 0, 0].tolist() == [1, 0, 0]
        assert rgb[:, 7, 7].tolist() == [0, 1, 0]


@backends
def test_cut_outs_show_what_lies_behind(backend: Backend) -> None:
    """A near quad whose texture is clear on its left half, before a far one; near first and near last."""
    texture = torch.ones(4, 4, 4)
    texture[:, :2, 3] = 0
    quad = torch.tensor([[0, 1, 2], [0, 2, 3]])
    near = torch.tensor([[0.0, 0, 1], [8, 0, 1], [8, 8, 1], [0, 8, 1]])
    vertices = torch.cat([near, 2 * near])
    uv = torch.tensor([[0.0, 0.0], [1.0, 0.0], [1.0, 1.0], [0.0, 1.0]])
    colors = [[1.0, 0, 0, 1.0], [0, 0, 1.0, 1.0]]
    for faces, materials in (
        (torch.cat([quad, quad + 4]), [0, 0, 1, 1]),
        (torch.cat([quad + 4, quad]), [1, 1, 0, 0]),
    ):
        shape = replace(
            surface(vertices, faces, colors, materials),
            textures=pack_textures([texture, None]),
            uvs=uv[faces % 4],
        )
        images = draw(shape, 8, 8, backend)
        # Bilinear alpha crosses 0.5 on the texels' border, in the middle and, by repeat, at the sides.
        assert images.depth[0, 0, 4].tolist() == [2, 2, 2, 2, 1, 1, 1, 1]
        assert images.rgb[0, :, 4, 1].tolist() == [0, 0, 1]
        assert images.rgb[0, :, 4, 6].tolist() == [1, 0, 0]


@backends
def test_glass_is_blended_over_the_nearest_opaque_surface(backend: Backend) -> None:
    near = torch.tensor([[0.0, 0, 1], [9, 0, 1], [0, 9, 1]])
    shape = surface(
        torch.cat([near, 2 * near, 3 * near]),
        [[0, 1, 2], [3, 4, 5], [6, 7, 8]],
        [[1.0, 0, 0, 0.25], [0, 1.0, 0, 1.0], [0, 0, 1.0, 0.5]],
        [0, 1, 2],
    )
    background = torch.tensor([[0.5, 0.5, 0.5]])
    images = rasterize(shape, EYE, PIXELS, background, 4, 4, backend=backend)
    torch.testing.assert_close(images.rgb[0, :, 0, 0], torch.tensor([0.25, 0.75, 0.0]))
    torch.testing.assert_close(images.depth[0, 0, 0, 0], torch.tensor(0.25 * 1 + 0.75 * 2))
    alone = replace(shape, faces=shape.faces[:1], face_materials=shape.face_materials[:1])
    images = rasterize(alone, EYE, PIXELS, background, 4, 4, backend=backend)
    torch.testing.assert_close(images.rgb[0, :, 0, 0], torch.tensor([0.25 + 0.375, 0.375, 0.375]))
    assert images.alpha[0, 0, 0, 0] == 0.25


@backends
@pytest.mark.parametrize("seed", range(3))
def test_a_shared_edge_is_drawn_exactly_once(backend: Backend, seed: int) -> None:
    """A fan around a point: counting what each face covers by itself, in the screen's plane and out of it."""
    rng = torch.Generator().manual_seed(seed)
    # Corners on exact half pixels make edges run through pixel centres.
    rim = torch.tensor([[-1.0, -1], [8.5, -1], [18, -1], [18, 8.5], [18, 18], [8.5, 18], [-1, 18], [-1, 8.5]])
    middle = torch.randint(2, 15, (1, 2), generator=rng) + (0.5 if seed == 0 else 0.25)
    depth = 1 + torch.rand(9, 1, generator=rng) * seed
    vertices = torch.cat([torch.cat([rim, middle]), torch.ones(9, 1)], dim=-1) * depth
    faces = torch.tensor([[i, (i + 1) % 8, 8] for i in range(8)])
    faces[::2] = faces[::2].roll(1, dims=1)  # edges listed from either end
    faces[1::4] = faces[1::4].flip(1)  # and from either side
    times = torch.zeros(16, 16)
    for face in faces:
        times += draw(surface(vertices, face[None]), 16, 16, backend).alpha[0, 0]
    assert torch.equal(times, torch.ones(16, 16))


@backends
def test_seams_of_split_vertices_are_watertight(backend: Backend) -> None:
    """A random slanted grid whose faces share no vertex indices covers each pixel exactly once."""
    rng = torch.Generator().manual_seed(0)
    i, j = torch.meshgrid(torch.arange(6), torch.arange(6), indexing="ij")
    grid = torch.stack([i * 4.0 - 1, j * 4.0 - 1, torch.ones(6, 6)], dim=-1)
    inner = torch.zeros(6, 6, 1)
    inner[1:-1, 1:-1] = 1
    grid[..., :2] += inner * (torch.rand(6, 6, 2, generator=rng) - 0.5) * 1.5
    vertices = (grid * (1 + torch.rand(6, 6, 1, generator=rng))).reshape(-1, 3)
    a = (i * 6 + j)[:-1, :-1].flatten()
    faces = torch.cat([torch.stack([a, a + 1, a + 7], -1), torch.stack([a, a + 7, a + 6], -1)])
    split = vertices[faces].reshape(-1, 3)
    times = torch.zeros(18, 18)
    for face in range(len(faces)):
        times += draw(surface(split, torch.arange(3)[None] + 3 * face), 18, 18, backend).alpha[0, 0]
    assert torch.equal(times, torch.ones(18, 18))
    assert torch.equal(draw(surface(vertices, faces), 18, 18, backend).alpha, torch.ones(1, 1, 18, 18))


def everything(dtype: torch.dtype) -> tuple[Surface, dict[str, Tensor], Light]:
    """A surface with all features, cameras for it and a light, the same numbers in any precision."""
    rng = torch.Generator().manual_seed(0)
    vertices, faces = ball()
    vertices = torch.cat([vertices, 0.6 * vertices])
    faces = torch.cat([faces, faces + len(vertices) // 2])
    texture = torch.rand(37, 53, 4, generator=rng)
    texture[..., 3] = (torch.rand(37, 53, generator=rng) > 0.3).float()
    shape = Surface(
        vertices=vertices.to(dtype),
        faces=faces,
        face_materials=torch.arange(len(faces)) % 3,
        base_colors=torch.tensor(
            [[1.0, 0.9, 0.8, 1.0], [0.5, 0.6, 0.7, 1.0], [0.2, 0.9, 0.3, 0.4]], dtype=dtype
        ),
        textures=pack_textures([None, texture, None]),
        uvs=(torch.rand(len(faces), 3, 2, generator=rng) * 3 - 1).to(dtype),
        vertex_colors=torch.rand(len(vertices), 3, generator=rng).to(dtype),
        vertex_normals=(vertices + 0.2 * torch.rand(vertices.shape, generator=rng)).to(dtype),
    )
    cameras = orbit(torch.tensor([7.0, 101.0, 203.0]), torch.tensor([15.0, -30.0, 80.0]), 61, 47)
    views = {
        "world_to_camera": cameras.world_to_camera.to(dtype),
        "intrinsics": cameras.intrinsics.to(dtype),
        "background": torch.rand(3, 3, generator=rng).to(dtype),
    }
    light = Light(0.5, 0.2, torch.tensor([[0.2, 0.2, 0.1], [-0.1, 0.0, -0.2]], dtype=dtype))
    return shape, views, light


def elsewhere(shape: Surface, device: str) -> Surface:
    """The same numbers on another device."""

    def moved(part: Surface | Textures) -> dict[str, Tensor]:
        values = {field.name: getattr(part, field.name) for field in fields(part)}
        return {name: value.to(device) for name, value in values.items() if isinstance(value, Tensor)}

    return replace(shape, **moved(shape), textures=replace(shape.textures, **moved(shape.textures)))


def assert_native_equals_the_reference_in_double(supersample: int, device: str = "cpu") -> None:
    shape, views, light = everything(torch.float32)
    views = {name: values.to(device) for name, values in views.items()}
    native = rasterize(
        elsewhere(shape, device), **views,
        width=61, height=47, light=light, supersample=supersample, backend="native",
    )  # fmt: skip
    shape, views, light = everything(torch.float64)
    reference = rasterize(shape, **views, width=61, height=47, light=light, supersample=supersample)
    assert reference.rgb.dtype == torch.float64
    for got, expected in zip(native, reference, strict=True):
        wrong = (got.cpu() - expected).abs().amax(1) > 1e-3
        # Rounding may move a sample on the rim of a cut-out to the other side.
        assert float(wrong.float().mean()) < 5e-4


@pytest.mark.parametrize("supersample", [1, 3])
def test_native_equals_the_reference_in_double(supersample: int) -> None:
    assert_native_equals_the_reference_in_double(supersample)


@backends
def test_supersampling_is_the_mean_of_a_larger_picture(backend: Backend) -> None:
    shape, views, light = everything(torch.float32)
    fine = rasterize(shape, **views, width=61, height=47, light=light, supersample=2, backend=backend)
    scale = torch.tensor([[2.0], [2.0], [1.0]])
    views["intrinsics"] = views["intrinsics"] * scale
    large = rasterize(shape, **views, width=122, height=94, light=light, backend=backend)
    for got, picture in zip(fine, large, strict=True):
        torch.testing.assert_close(got, torch.nn.functional.avg_pool2d(picture, 2), rtol=0, atol=1e-5)


def test_threads_do_not_change_the_picture() -> None:
    shape, views, light = everything(torch.float32)
    assert_same_bits(lambda: rasterize(shape, **views, width=61, height=47, light=light, backend="native"))


@backends
def test_broken_triangles_are_not_drawn(backend: Backend) -> None:
    nan, inf = float("nan"), float("inf")
    good = [[0.0, 0, 1], [9, 0, 1], [0, 9, 1]]
    broken = [
        [[nan, 0, 0.5], [9, 0, 0.5], [0, 9, 0.5]],
        [[0, 0, nan], [9, 0, 0.5], [0, 9, 0.5]],
        [[0, inf, 0.5], [9, 0, 0.5], [0, 9, 0.5]],
        [[0, 0, -inf], [9, 0, 0.5], [0, 9, 0.5]],
        [[1, 1, 0.5], [1, 1, 0.5], [4, 4, 0.5]],  # no area
        [[0, 0, 0.5], [0, 0, 0.7], [3e38, 3e38, 0.5]],
        [[0, 0, 0.4], [5, 5, 0.5], [10, 10, 0.5]],  # seen edge on
    ]
    vertices = torch.tensor([good, *broken]).reshape(-1, 3)
    faces = torch.arange(len(vertices)).reshape(-1, 3)
    images = draw(surface(vertices, faces), 8, 8, backend)
    expected = draw(surface(vertices[:3], faces[:1]), 8, 8, backend)
    assert all(bool(image.isfinite().all()) for image in images)
    assert torch.equal(images.alpha, expected.alpha)
    assert torch.equal(images.depth, expected.depth)


@backends
def test_a_camera_inside_sees_the_surface_all_around(backend: Backend) -> None:
    vertices, faces = ball()
    position = torch.tensor([[0.1, 0.05, -0.1]])
    view = look_at(position, torch.tensor([[1.0, 0.3, 0.4]]))
    images = rasterize(
        surface(vertices, faces), view, pinhole(20.0, 24.0, 24.0), BLACK, 48, 48, backend=backend
    )
    assert bool((images.alpha == 1).all())
    # Each pixel's point lies on the faceted ball: between its inscribed and its circumscribed sphere.
    y, x = torch.meshgrid(torch.arange(48) - 23.5, torch.arange(48) - 23.5, indexing="ij")
    in_camera = torch.stack([x / 20, y / 20, torch.ones_like(x)], dim=-1) * images.depth[0, 0, :, :, None]
    radius = (in_camera @ view[0, :3, :3] + position).norm(dim=-1)
    assert 0.5 * math.cos(math.pi / 12) ** 2 < float(radius.min()) <= float(radius.max()) < 0.5 + 1e-5
    # All normals face the camera.
    assert bool(((in_camera @ view[0, :3, :3]) * images.normal[0].permute(1, 2, 0) < 0).any(-1).all())


@backends
def test_a_floor_that_passes_under_the_camera_ends_at_the_horizon(backend: Backend) -> None:
    # y points down: the plane y = 1 fills the rows below the principal point; its depth is focal / row.
    floor = surface([[-500, 1, -300], [500, 1, -300], [0, 1, 700]], [[0, 1, 2]])
    images = rasterize(floor, EYE, pinhole(16.0, 16.0, 16.0), BLACK, 32, 32, backend=backend)
    rows = torch.arange(32) - 15.5
    assert torch.equal(images.alpha[0, 0], (rows > 0).float()[:, None].expand(32, 32))
    torch.testing.assert_close(
        images.depth[0, 0, 16:], (16 / rows[16:, None]).expand(16, 32), rtol=1e-4, atol=0
    )


@backends
def test_things_lie_where_the_axes_say(backend: Backend) -> None:
    """Small triangles on +x, +y and +z in red, green and blue."""
    tiny = torch.tensor([[-0.05, -0.05, 0.05], [0.05, -0.05, -0.05], [0.0, 0.07, 0.0]])
    axes = torch.eye(3)
    vertices = torch.cat([tiny + 0.4 * axis for axis in axes])
    shape = surface(
        vertices, torch.arange(9).reshape(3, 3), [[*axis.tolist(), 1.0] for axis in axes], [0, 1, 2]
    )
    cameras = orbit(torch.tensor([0.0, 90.0]), torch.tensor([0.0, 0.0]), 65, 65)
    rgb = rasterize(
        shape, cameras.world_to_camera, cameras.intrinsics, torch.zeros(2, 3), 65, 65, backend=backend
    ).rgb

    def centre(picture: Tensor) -> tuple[float, float]:
        row, column = torch.nonzero(picture).float().mean(0).tolist()
        return column - 32, row - 32

    front, right = rgb
    assert centre(front[0])[0] > 15 and abs(centre(front[0])[1]) < 2  # +x on the right
    assert centre(front[1])[1] < -15 and abs(centre(front[1])[0]) < 2  # +y on top
    assert abs(centre(front[2])[0]) < 2 and abs(centre(front[2])[1]) < 2  # +z in front
    assert abs(centre(right[0])[0]) < 2 and abs(centre(right[0])[1]) < 2  # azimuth 90 sees the +x side
    assert centre(right[2])[0] < -15  # and has +z on the left


@backends
def test_both_sides_are_drawn_and_lit_as_they_face(backend: Backend) -> None:
    vertices, faces = torch.tensor([[-1.0, -1, 0], [1, -1, 0], [0, 1, 0]]), torch.tensor([[0, 1, 2]])
    cameras = orbit(torch.tensor([0.0, 180.0]), torch.zeros(2), 9, 9)
    light = Light(ambient=0.25, hemisphere=0.0, lights=torch.tensor([[0.0, 0.0, 0.5]]))
    for winding in (faces, faces.flip(1)):
        images = rasterize(
            surface(vertices, winding), cameras.world_to_camera, cameras.intrinsics, torch.zeros(2, 3), 9, 9,
            light=light, backend=backend,
        )  # fmt: skip
        torch.testing.assert_close(images.rgb[:, 0, 4, 4], torch.tensor([0.75, 0.25]))
        torch.testing.assert_close(images.normal[:, 2, 4, 4], torch.tensor([1.0, -1.0]))


@backends
def test_smooth_normals_are_the_spheres_own(backend: Backend) -> None:
    vertices, faces = ball(48, 24)
    shape = replace(surface(vertices, faces), vertex_normals=2 * vertices)
    cameras = orbit(torch.tensor([30.0]), torch.tensor([20.0]), 40, 40)
    images = rasterize(shape, cameras.world_to_camera, cameras.intrinsics, BLACK, 40, 40, backend=backend)
    y, x = torch.meshgrid(torch.arange(40) + 0.5, torch.arange(40) + 0.5, indexing="ij")
    focal = cameras.intrinsics[0, 0, 0]
    ray = torch.stack([(x - 20) / focal, (y - 20) / focal, torch.ones_like(x)], dim=-1)
    view = cameras.world_to_camera[0]
    points = (ray * images.depth[0, 0, :, :, None] - view[:3, 3]) @ view[:3, :3]
    inside = images.alpha[0, 0] == 1
    normals = images.normal[0].permute(1, 2, 0)[inside]
    expected = torch.nn.functional.normalize(points[inside], dim=-1)
    assert float((normals * expected).sum(-1).min()) > math.cos(math.radians(1.0))


@backends
def test_nothing_shows_the_background(backend: Backend) -> None:
    background = torch.tensor([[0.1, 0.2, 0.3]])
    images = rasterize(surface([], []), EYE, PIXELS, background, 5, 3, supersample=2, backend=backend)
    assert torch.equal(images.rgb, background[:, :, None, None].expand(1, 3, 3, 5))
    assert not bool(images.alpha.any()) and not bool(images.depth.any()) and not bool(images.normal.any())


def test_errors_name_what_came() -> None:
    good = [[0.0, 0, 1], [9, 0, 1], [0, 9, 1]]
    with pytest.raises(StudioError, match="name vertices 0 to 3, but there are 3"):
        surface(good, [[0, 1, 3]])
    with pytest.raises(StudioError, match="name materials 1 to 1, but there are 1"):
        surface(good, [[0, 1, 2]], face_materials=[1])
    with pytest.raises(StudioError, match="no uvs"):
        replace(surface(good, [[0, 1, 2]]), textures=pack_textures([torch.ones(2, 2, 4)]))
    with pytest.raises(StudioError, match="1 base colours came with 2 textures"):
        replace(surface(good, [[0, 1, 2]]), textures=pack_textures([None, None]))
    with pytest.raises(StudioError, match="40000 x 8 samples"):
        draw(surface(good, [[0, 1, 2]]), 20000, 4, "auto", supersample=2)
    with pytest.raises(StudioError, match="supersample 0 is 0 x 0 samples"):
        draw(surface(good, [[0, 1, 2]]), 5, 4, "auto", supersample=0)
    with pytest.raises(StudioError, match="expected 1 to 32767 a side"):
        draw(surface(good, [[0, 1, 2]]), 2**20, 4, "auto", supersample=2**12)  # of which an int is 0
