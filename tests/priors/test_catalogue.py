"""Catalogues: the embedded one, a user's folder, the packed form, decimation and the build."""

from __future__ import annotations

import csv
import io
import math
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import Tensor

from studio.cameras import fibonacci_sphere
from studio.errors import StudioError
from studio.priors.catalogue import Catalogue
from studio.priors.catalogue_build import Selected, build_catalogue, colour_name, read_properties
from studio.priors.mesh_codec import decode_mesh, encode_mesh
from studio.priors.mesh_simplify import simplify_mesh
from studio.priors.vocabulary import COLOURS, Vocabulary
from studio.renderers.raster import MeshRenderer
from studio.resources import assets_folder
from studio.types import Material, Mesh

OBJ = "v 0 0 0\nv 2 0 0\nv 0 3 0\nv 0 0 1\nf 1 3 2\nf 1 2 4\nf 1 4 3\nf 2 3 4\n"


def grid(size: int, bend: float = 0.0) -> Mesh:
    """A unit square of ``2 size²`` triangles whose texture coordinates are its x and y; bent into an arc."""
    steps = torch.linspace(0, 1, size + 1, dtype=torch.float64)
    x, y = (plane.reshape(-1) for plane in torch.meshgrid(steps, steps, indexing="ij"))
    corner = (torch.arange(size)[:, None] * (size + 1) + torch.arange(size)).reshape(-1)
    faces = torch.cat(
        [
            torch.stack([corner, corner + size + 1, corner + 1], 1),
            torch.stack([corner + 1, corner + size + 1, corner + size + 2], 1),
        ]
    )
    vertices = torch.stack([x, y, bend * torch.sin(math.pi * x)], 1).float()
    texture = torch.rand(8, 8, 4, generator=torch.Generator().manual_seed(0))
    texture[..., 3] = 1.0
    return Mesh(
        vertices,
        faces,
        uvs=torch.stack([x, y], 1)[faces].float(),
        face_materials=torch.zeros(len(faces), dtype=torch.long),
        materials=(Material(texture=texture),),
        vertex_normals=torch.tensor([[0.0, 0.0, 1.0]]).expand(len(vertices), 3).clone(),
    )


def corners_of(mesh: Mesh) -> Tensor:
    return mesh.vertices[mesh.faces]


def area(mesh: Mesh, chosen: Tensor | None = None) -> float:
    """Of all faces or of the chosen ones."""
    corners = corners_of(mesh).double()
    a, b, c = (corners if chosen is None else corners[chosen]).unbind(1)
    return float(torch.linalg.cross(b - a, c - a).norm(dim=1).sum() / 2)


def centres(mesh: Mesh, chosen: Tensor | None = None) -> Tensor:
    """The faces' centres in a fixed order, to compare meshes whatever the order of their faces."""
    points = corners_of(mesh).double().mean(1)
    points = points if chosen is None else points[chosen]
    return points[torch.argsort((points * torch.tensor([1.0, 17.0, 331.0]).double()).sum(1))]


class TestPackedForm:
    def test_positions_come_back_to_half_a_step(self) -> None:
        mesh = grid(9, bend=0.2)
        unpacked = decode_mesh(encode_mesh(mesh, position_bits=12))
        assert len(unpacked.faces) == len(mesh.faces)
        torch.testing.assert_close(centres(unpacked), centres(mesh), atol=0.5 / 4095, rtol=0)

    def test_texture_coordinates_follow_their_positions(self) -> None:
        unpacked = decode_mesh(encode_mesh(grid(7)))
        assert unpacked.uvs is not None
        torch.testing.assert_close(unpacked.uvs, corners_of(unpacked)[..., :2], atol=6e-4, rtol=0)

    def test_normals_come_back_to_two_degrees(self) -> None:
        mesh = grid(9)
        normals = torch.randn(len(mesh.vertices), 3, generator=torch.Generator().manual_seed(3))
        normals = normals / normals.norm(dim=1, keepdim=True)
        unpacked = decode_mesh(encode_mesh(replace(mesh, vertex_normals=normals), position_bits=16))
        assert unpacked.vertex_normals is not None
        nearest = torch.cdist(unpacked.vertices, mesh.vertices).argmin(1)
        cosines = (unpacked.vertex_normals * normals[nearest]).sum(1)
        assert float(torch.rad2deg(torch.arccos(cosines.clamp(max=1))).max()) < 2.0

    def test_materials_keep_their_faces_and_colours(self) -> None:
        mesh = grid(4)
        labels = torch.arange(len(mesh.faces)) % 3
        colors = ((1.0, 0.0, 0.0, 1.0), (0.0, 0.5, 0.0, 1.0), (0.0, 0.0, 0.25, 0.5))
        mesh = replace(mesh, face_materials=labels, materials=tuple(Material(color) for color in colors))
        unpacked = decode_mesh(encode_mesh(mesh))
        assert [material.base_color for material in unpacked.materials] == list(colors)
        assert unpacked.face_materials is not None
        for label in range(3):
            theirs, mine = centres(unpacked, unpacked.face_materials == label), centres(mesh, labels == label)
            torch.testing.assert_close(theirs, mine, atol=1e-3, rtol=0)

    def test_textures_keep_their_holes(self) -> None:
        texture = torch.full((16, 16, 4), 0.5)
        texture[:8, :, 3], texture[8:, :, 3] = 0.0, 1.0
        unpacked = decode_mesh(encode_mesh(replace(grid(1), materials=(Material(texture=texture),))))
        restored = unpacked.materials[0].texture
        assert restored is not None
        torch.testing.assert_close(restored[..., 3], texture[..., 3], atol=0.02, rtol=0)
        torch.testing.assert_close(restored[8:, :, :3], texture[8:, :, :3], atol=0.02, rtol=0)


class TestDecimation:
    def test_a_flat_sheet_keeps_its_outline_and_its_texture(self) -> None:
        simple = simplify_mesh(grid(20), 40)
        assert len(simple.faces) <= 44
        assert area(simple) == pytest.approx(1.0, abs=1e-4)
        assert simple.uvs is not None
        torch.testing.assert_close(simple.uvs, corners_of(simple)[..., :2], atol=1e-4, rtol=0)

    def test_materials_that_meet_stay_apart(self) -> None:
        mesh = grid(20)
        left = corners_of(mesh)[..., 0].mean(1) < 0.5
        two = (Material((1.0, 0.0, 0.0, 1.0)), Material((0.0, 0.0, 1.0, 1.0)))
        simple = simplify_mesh(replace(mesh, face_materials=left.long(), materials=two), 60)
        assert simple.face_materials is not None
        is_left = corners_of(simple)[..., 0].mean(1) < 0.5
        assert torch.equal(simple.face_materials == 1, is_left)
        assert area(simple, is_left) == pytest.approx(0.5, abs=1e-4)

    def test_faces_drawn_twice_go(self) -> None:
        mesh = grid(5)
        doubled = replace(
            mesh,
            faces=torch.cat([mesh.faces, mesh.faces.flip(1)]),
            uvs=None,
            face_materials=None,
            materials=(Material(),),
        )
        simple = simplify_mesh(doubled, 1000)
        assert len(simple.faces) == len(mesh.faces)
        torch.testing.assert_close(centres(simple), centres(mesh))

    def test_a_bent_sheet_looks_the_same(self) -> None:
        mesh = grid(30, bend=0.3)
        mesh = replace(mesh, vertices=mesh.vertices - 0.5, vertex_normals=None)
        views = fibonacci_sphere(4, 64, 64)
        pictures = [
            MeshRenderer()(each, views, torch.zeros(4, 3)).rgb for each in (mesh, simplify_mesh(mesh, 200))
        ]
        assert -10 * math.log10(float((pictures[0] - pictures[1]).square().mean())) > 28


@pytest.mark.parametrize(
    ("color", "name"),
    [
        ((1.0, 1.0, 1.0), "white"),
        ((0.05, 0.05, 0.06), "black"),
        ((0.5, 0.5, 0.5), "grey"),
        ((0.85, 0.1, 0.1), "red"),
        ((1.0, 0.55, 0.05), "orange"),
        ((0.4, 0.25, 0.1), "brown"),
        ((0.95, 0.9, 0.1), "yellow"),
        ((0.1, 0.6, 0.15), "green"),
        ((0.1, 0.2, 0.8), "blue"),
        ((0.5, 0.1, 0.8), "purple"),
        ((1.0, 0.6, 0.75), "pink"),
        ((0.9, 0.82, 0.65), "beige"),
    ],
)
def test_colours_have_everyday_names(color: tuple[float, float, float], name: str) -> None:
    assert colour_name(*color) == name


@pytest.mark.parametrize(
    ("adjectives", "noun", "caption"),
    [
        ("", "teddy bear", "a teddy bear"),
        ("old", "umbrella", "an old umbrella"),
        ("", "umbrella", "an umbrella"),
        ("", "urinal", "a urinal"),
        ("", "scissors", "scissors"),
        ("bowl of", "apples", "a bowl of apples"),
        ("", "chest of drawers", "a chest of drawers"),
        ("", "glass", "a glass"),
        ("", "bread", "bread"),
    ],
)
def test_captions_have_the_right_article(adjectives: str, noun: str, caption: str) -> None:
    assert Selected("x", "c", "m", noun, adjectives, (), 0.0, 0.0, "solid").caption == caption


def write_library(folder: Path, obj: str = OBJ) -> None:
    properties = (
        "id=Some#Library\n"
        "id#1=Some#tetra\nname#1=T\\u00e9tra\ntags#1=Blend Swap, Toy\ncategory#1=Bedroom\n"
        "model#1=/some/tetra/tetra.obj\ncreator#1=J\xf6rg\n"
    )
    folder.mkdir()
    with zipfile.ZipFile(folder / "BlendSwap-CC-0.sh3f", "w") as archive:
        archive.writestr("PluginFurnitureCatalog.properties", properties.encode("latin-1"))
        archive.writestr("some/tetra/tetra.obj", "mtllib tetra.mtl\nusemtl red\n" + obj)
        textured = "" if obj == OBJ else "map_Kd noise.png\n"
        material = "newmtl red\nKd 0.8 0.1 0.1\nmap_bump gone.jpg\n"
        archive.writestr("some/tetra/tetra.mtl", material + textured)
        picture = io.BytesIO()
        Image.effect_noise((8, 8), 80.0).save(picture, "PNG")
        archive.writestr("some/tetra/noise.png", picture.getvalue())


def write_selection(folder: Path, model: str = "tetra") -> None:
    folder.mkdir()
    with (folder / "selection.csv").open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow("id collection model noun adjectives synonyms yaw_deg pitch_deg glass".split())
        table.writerow(["pyramid", "BlendSwap-CC-0", model, "pyramid", "red", "tetrahedron", 0, 0, "solid"])


class TestBuild:
    def test_a_library_becomes_a_catalogue(self, tmp_path: Path) -> None:
        write_library(tmp_path / "source")
        write_selection(tmp_path / "out")
        report = build_catalogue(tmp_path / "source", tmp_path / "out")
        assert not report.dropped and report.kept["pyramid"] > 35
        (entry,) = Catalogue.load(tmp_path / "out")
        assert (entry.noun, entry.caption, entry.synonyms) == ("pyramid", "a red pyramid", ("tetrahedron",))
        assert (entry.creator, entry.licence, entry.category) == ("Jörg", "CC0 1.0", "bedroom")
        assert (entry.tags, entry.colours) == (("toy",), ("red",))
        mesh = entry.mesh()
        assert len(mesh.faces) == 4
        assert float(mesh.vertices.norm(dim=1).max()) == pytest.approx(0.5, abs=1e-3)
        extent = mesh.vertices.amax(0) - mesh.vertices.amin(0)
        torch.testing.assert_close(extent / extent[2], torch.tensor([2.0, 3.0, 1.0]), atol=5e-3, rtol=0)

    def test_properties_are_latin_1_with_escapes(self, tmp_path: Path) -> None:
        write_library(tmp_path / "source")
        properties = read_properties(tmp_path / "source" / "BlendSwap-CC-0.sh3f")
        assert properties["tetra"]["name"] == "Tétra"
        assert properties["tetra"]["creator"] == "Jörg"

    def test_garbled_texture_coordinates_are_named(self, tmp_path: Path) -> None:
        garbled = OBJ.partition("f ")[0] + "vt 3000000000 0\nvt 0 1\nf 1/1 3/2 2/2\nf 1/1 2/2 4/2\n"
        write_library(tmp_path / "source", garbled)
        write_selection(tmp_path / "out")
        with pytest.raises(StudioError, match=r"pyramid cannot be packed: .*Take it out of selection\.csv"):
            build_catalogue(tmp_path / "source", tmp_path / "out")
        assert [path.name for path in (tmp_path / "out").iterdir()] == ["selection.csv"]

    def test_what_is_missing_is_named(self, tmp_path: Path) -> None:
        write_library(tmp_path / "source")
        with pytest.raises(StudioError, match=r"selection\.csv is missing"):
            build_catalogue(tmp_path / "source", tmp_path / "nowhere")
        write_selection(tmp_path / "out", model="cube")
        with pytest.raises(StudioError, match="has no model 'cube'"):
            build_catalogue(tmp_path / "source", tmp_path / "out")
        with pytest.raises(StudioError, match=r"lacks BlendSwap-CC-0\.sh3f"):
            build_catalogue(tmp_path / "out", tmp_path / "out")


class TestUsersFolder:
    @pytest.mark.parametrize(
        ("name", "text"),
        [
            ("captions.csv", "file,caption,tags\npyramid.obj,a small red pyramid,toy;stone\n"),
            ("captions.json", '{"pyramid.obj": "a small red pyramid"}'),
            ("captions.txt", "pyramid.obj: a small red pyramid\n"),
        ],
    )
    def test_captions_in_three_forms(self, tmp_path: Path, name: str, text: str) -> None:
        (tmp_path / "pyramid.obj").write_text(OBJ)
        (tmp_path / name).write_text(text)
        catalogue = Catalogue.from_folder(tmp_path)
        (entry,) = catalogue
        assert (entry.id, entry.noun, entry.caption) == ("pyramid.obj", "pyramid", "a small red pyramid")
        assert entry.colours == ("red",)
        assert entry.tags == (("toy", "stone") if name.endswith("csv") else ())
        assert Vocabulary(catalogue.entries).match("red pyramids").members == (0,)
        assert float(entry.mesh().vertices.norm(dim=1).max()) == pytest.approx(0.5)

    def test_no_captions(self, tmp_path: Path) -> None:
        (tmp_path / "pyramid.obj").write_text(OBJ)
        with pytest.raises(StudioError, match=r"has no captions: expected captions\.csv"):
            Catalogue.from_folder(tmp_path)

    def test_a_mesh_without_a_caption(self, tmp_path: Path) -> None:
        (tmp_path / "pyramid.obj").write_text(OBJ)
        (tmp_path / "captions.txt").write_text("")
        with pytest.raises(StudioError, match=r"pyramid\.obj has no caption"):
            Catalogue.from_folder(tmp_path)

    def test_a_caption_without_its_mesh(self, tmp_path: Path) -> None:
        (tmp_path / "pyramid.obj").write_text(OBJ)
        (tmp_path / "captions.txt").write_text("pyramid.obj: a pyramid\npyramit.obj: a pyramid\n")
        with pytest.raises(StudioError, match=r"no mesh there\. Did you mean 'pyramid\.obj'\?"):
            Catalogue.from_folder(tmp_path)

    def test_captions_of_another_form(self, tmp_path: Path) -> None:
        (tmp_path / "pyramid.obj").write_text(OBJ)
        (tmp_path / "captions.csv").write_text("name,text\npyramid.obj,a pyramid\n")
        with pytest.raises(StudioError, match="must name the columns file, caption"):
            Catalogue.from_folder(tmp_path)

    def test_a_caption_that_names_nothing(self, tmp_path: Path) -> None:
        (tmp_path / "pyramid.obj").write_text(OBJ)
        (tmp_path / "captions.txt").write_text("pyramid.obj: the\n")
        with pytest.raises(StudioError, match="names nothing"):
            Catalogue.from_folder(tmp_path)

    def test_no_folder_and_no_models(self, tmp_path: Path) -> None:
        with pytest.raises(StudioError, match="is not a folder"):
            Catalogue.from_folder(tmp_path / "nowhere")
        (tmp_path / "captions.txt").write_text("")
        with pytest.raises(StudioError, match="holds no models"):
            Catalogue.from_folder(tmp_path)

    @pytest.mark.parametrize(
        ("text", "message"),
        [("v nan 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 3\n", "not finite"), ("v 0 0 0\n", "no faces")],
    )
    def test_a_broken_mesh(self, tmp_path: Path, text: str, message: str) -> None:
        (tmp_path / "pyramid.obj").write_text(text)
        (tmp_path / "captions.txt").write_text("pyramid.obj: a pyramid\n")
        with pytest.raises(StudioError, match=message):
            next(iter(Catalogue.from_folder(tmp_path))).mesh()


@pytest.fixture(scope="module")
def catalogue() -> Catalogue:
    return Catalogue.load()


class TestEmbedded:
    def test_it_is_large_and_small_enough(self, catalogue: Catalogue) -> None:
        assert len(catalogue) >= 300
        assert len({entry.id for entry in catalogue}) == len(catalogue)
        files = list((assets_folder() / "catalogue").iterdir())
        assert sum(path.stat().st_size for path in files) <= 16_000_000

    def test_it_is_true_to_the_originals(self) -> None:
        with (assets_folder() / "catalogue" / "fidelity.csv").open(newline="") as file:
            psnr = [float(row["psnr_db"]) for row in csv.DictReader(file)]
        assert sum(psnr) / len(psnr) >= 28
        assert min(psnr) >= 24

    def test_every_creator_is_named(self, catalogue: Catalogue) -> None:
        page = (assets_folder() / "catalogue" / "README.md").read_text(encoding="utf-8")
        for entry in catalogue:
            assert entry.licence in {"CC0 1.0", "CC BY 3.0", "CC BY 3.0 US"}
            assert entry.creator and entry.creator in page
            assert set(entry.colours) <= set(COLOURS) and entry.colours

    def test_its_meshes_stand_in_the_ball(self, catalogue: Catalogue) -> None:
        for entry in catalogue.entries[::20]:
            mesh = entry.mesh()
            assert float(mesh.vertices.norm(dim=1).max()) == pytest.approx(0.5, abs=0.02)
            assert bool(mesh.vertices.isfinite().all())
            assert int(mesh.faces.max()) < len(mesh.vertices)

    def test_every_model_is_meant_by_its_caption(self, catalogue: Catalogue) -> None:
        vocabulary = Vocabulary(catalogue.entries)
        for index, entry in enumerate(catalogue):
            match = vocabulary.match(entry.caption)
            assert index in match.members, entry.caption
            assert not match.warnings, entry.caption

    def test_the_known_targets_are_named_exactly(self, catalogue: Catalogue) -> None:
        vocabulary = Vocabulary(catalogue.entries)
        lines = (Path(__file__).parents[1] / "known_targets.txt").read_text().splitlines()
        targets = [line.split("\t") for line in lines if line and not line.startswith("#")]
        assert len(targets) == 8
        for entry_id, prompt in targets:
            assert vocabulary.match(prompt).members == (catalogue.index(entry_id),)

    def test_the_thirty_prompts_name_something(self, catalogue: Catalogue) -> None:
        vocabulary = Vocabulary(catalogue.entries)
        lines = (Path(__file__).parents[1] / "prompts_30.txt").read_text().splitlines()
        prompts = [line for line in lines if line and not line.startswith("#")]
        assert len(set(prompts)) == 30
        for prompt in prompts:
            match = vocabulary.match_something(prompt)
            assert match.members and not match.warnings, prompt

    def test_an_unknown_id_is_an_error_with_the_nearest(self, catalogue: Catalogue) -> None:
        with pytest.raises(StudioError, match=r"no model 'tedy-bear'\. Did you mean 'teddy-bear'\?"):
            catalogue.index("tedy-bear")

    def test_a_folder_without_a_catalogue(self, tmp_path: Path) -> None:
        with pytest.raises(StudioError, match=r"holds no catalogue: catalogue\.json is missing"):
            Catalogue.load(tmp_path)

    def test_a_damaged_catalogue(self, tmp_path: Path) -> None:
        (tmp_path / "catalogue.json").write_text('{"models": [{"id": "x"}]}')
        (tmp_path / "meshes.safetensors").write_bytes(b"")
        with pytest.raises(StudioError, match="is not a catalogue's description"):
            Catalogue.load(tmp_path)
