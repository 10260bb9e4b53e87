"""Makes a packed catalogue out of Sweet Home 3D furniture libraries (``.sh3f`` files).

Such a library is a zip of OBJ models with a table of properties. ``selection.csv`` beside the catalogue names
the models to take, by hand: what each is, which words describe it, how to turn it so that it faces +z, and
what to do with its glass. Every model is stored with as few triangles and as small textures as its fidelity
allows, and measured against the original.
"""

from __future__ import annotations

import colorsys
import csv
import json
import math
import re
import tempfile
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from studio.cameras import fibonacci_sphere
from studio.errors import StudioError
from studio.meshes import load_mesh, normalised
from studio.ops.surfaces import Light
from studio.priors.mesh_codec import decode_mesh, encode_mesh
from studio.priors.mesh_simplify import simplify_mesh
from studio.renderers.raster import MeshRenderer
from studio.types import Cameras, Material, Mesh

Progress = Callable[[int, int, str], None]

TARGET_PSNR = 34.0
LOWEST_PSNR = 24.0
SIZE_LIMIT_BYTES = 16_000_000
BUDGETS = ((8000, 256), (4000, 192), (2000, 128), (1000, 96))
"""Triangles and texture size, tried in turn while the target is reached."""

LICENCES = {
    "BlendSwap-CC-0": "CC0 1.0",
    "BlendSwap-CC-BY": "CC BY 3.0",
    "KatorLegaz": "CC BY 3.0 US",
    "Reallusion": "CC BY 3.0 US",
    "Scopia": "CC BY 3.0",
}
CREATORS = {
    "KatorLegaz": "Andrew Kator & Jennifer Legaz",
    "Scopia": "Scopia Visual Interfaces Systems, s.l., and Emmanuel Puybaret / eTeks",
}
"""How a collection's licence asks to be credited, where that is not each model's own creator."""


@dataclass(frozen=True)
class Selected:
    """One line of ``selection.csv``.

    Attributes:
        id: of the catalogue's entry.
        collection, model: where it is found: the library's name and the model's id there.
        noun, adjectives: its name and what describes it.
        synonyms: other names.
        yaw_deg: turn about +y, counter-clockwise seen from above, after the library's own rotation.
        pitch_deg: turn about +x after that: 90 stands up what lies on its back.
        glass: whether see-through materials are drawn solid or left out.
    """

    id: str
    collection: str
    model: str
    noun: str
    adjectives: str
    synonyms: tuple[str, ...]
    yaw_deg: float
    pitch_deg: float
    glass: Literal["solid", "clear"]

    @property
    def caption(self) -> str:
        """Article, adjectives, noun."""
        phrase = f"{self.adjectives} {self.noun}".strip()
        return phrase if _has_no_article(phrase) else f"{_article(phrase)} {phrase}"


@dataclass(frozen=True)
class Job:
    """A selected model, the library that holds it and its properties there."""

    row: Selected
    library: Path
    properties: Mapping[str, str]


@dataclass(frozen=True)
class PackedModel:
    """A model as it is stored, and how true to the original it is.

    Attributes:
        data: the bytes of ``encode_mesh``.
        faces: triangles kept.
        original_faces: triangles that the source has.
        psnr: against the original's renderings, in dB, over white and over grey.
        colours: dominant ones, strongest first.
    """

    data: bytes
    faces: int
    original_faces: int
    psnr: float
    colours: tuple[str, ...]


@dataclass(frozen=True)
class BuildReport:
    """What a build made.

    Attributes:
        kept: ids in the catalogue with their fidelity in dB.
        dropped: ids below ``LOWEST_PSNR`` with theirs.
        total_bytes: size of the catalogue's files.
    """

    kept: dict[str, float]
    dropped: dict[str, float]
    total_bytes: int


def build_catalogue(
    source: Path, out: Path, *, workers: int = 1, progress: Progress | None = None
) -> BuildReport:
    """Build the catalogue that ``out/selection.csv`` describes from the libraries under ``source``.

    Args:
        source: a folder with ``.sh3f`` files, at any depth.
        out: the catalogue's folder; ``catalogue.json``, ``meshes.safetensors``, ``fidelity.csv`` and
            ``README.md`` in it are replaced at the very end.
        workers: processes.
        progress: told (models done, models in all, id).

    Raises:
        StudioError: a missing library, model or selection, or a result over ``SIZE_LIMIT_BYTES``.
    """
    selection = read_selection(out / "selection.csv")
    libraries = _libraries(source, {row.collection for row in selection})
    properties = {name: read_properties(path) for name, path in libraries.items()}
    jobs = [
        Job(row, libraries[row.collection], _properties_of(row, properties[row.collection]))
        for row in selection
    ]
    packed: list[PackedModel] = []
    with _mapper(workers) as run:
        for model in run(pack_job, jobs):
            packed.append(model)
            if progress is not None:
                progress(len(packed), len(jobs), jobs[len(packed) - 1].row.id)
    return write_catalogue(out, jobs, packed)


def write_catalogue(out: Path, jobs: Sequence[Job], packed: Sequence[PackedModel]) -> BuildReport:
    """Write the files of a catalogue, without the models below ``LOWEST_PSNR``.

    Raises:
        StudioError: the result would take more than ``SIZE_LIMIT_BYTES``.
    """
    from safetensors.numpy import save_file

    models = {job.row.id: model for job, model in zip(jobs, packed, strict=True)}
    kept = {name: model for name, model in models.items() if model.psnr >= LOWEST_PSNR}
    size = sum(len(model.data) for model in kept.values())
    if size > SIZE_LIMIT_BYTES:
        raise StudioError(
            f"The catalogue would take {size:,} bytes; at most {SIZE_LIMIT_BYTES:,} are allowed. "
            f"Take models out of {out / 'selection.csv'}."
        )
    blocks = {name: np.frombuffer(model.data, np.uint8) for name, model in sorted(kept.items())}
    save_file(blocks, str(out / "meshes.safetensors.new"))
    (out / "meshes.safetensors.new").replace(out / "meshes.safetensors")
    rows = [_description(job, kept[job.row.id]) for job in jobs if job.row.id in kept]
    lines = ",\n".join(json.dumps(row, ensure_ascii=False) for row in rows)
    (out / "catalogue.json").write_text(f'{{"models": [\n{lines}\n]}}\n', encoding="utf-8")
    with (out / "fidelity.csv").open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(("id", "psnr_db", "faces", "original_faces", "bytes"))
        for name, model in kept.items():
            table.writerow((name, f"{model.psnr:.2f}", model.faces, model.original_faces, len(model.data)))
    (out / "README.md").write_text(_readme(rows, list(kept.values()), size), encoding="utf-8")
    return BuildReport(
        kept={name: model.psnr for name, model in kept.items()},
        dropped={name: model.psnr for name, model in models.items() if name not in kept},
        total_bytes=sum((out / name).stat().st_size for name in ("meshes.safetensors", "catalogue.json")),
    )


def read_selection(path: Path) -> list[Selected]:
    """The lines of a ``selection.csv``.

    Raises:
        StudioError: there is none.
    """
    if not path.is_file():
        raise StudioError(f"{path} is missing: it names the models to take; see assets/catalogue/README.md.")
    with path.open(newline="", encoding="utf-8") as file:
        return [
            Selected(
                id=row["id"],
                collection=row["collection"],
                model=row["model"],
                noun=row["noun"],
                adjectives=row["adjectives"],
                synonyms=tuple(word for word in row["synonyms"].split(";") if word),
                yaw_deg=float(row["yaw_deg"]),
                pitch_deg=float(row["pitch_deg"]),
                glass="clear" if row["glass"] == "clear" else "solid",
            )
            for row in csv.DictReader(file)
        ]


def read_properties(library: Path) -> dict[str, dict[str, str]]:
    """The models of a ``.sh3f`` library by id, each with its properties by name."""
    by_number: dict[str, dict[str, str]] = {}
    with zipfile.ZipFile(library) as archive:
        text = archive.read("PluginFurnitureCatalog.properties").decode("latin-1")
    for line in text.splitlines():
        found = re.match(r"(\w+)#(\d+)\s*=\s*(.*?)\s*$", line)
        if found:
            value = re.sub(r"\\u([0-9a-fA-F]{4})", lambda code: chr(int(code[1], 16)), found[3])
            by_number.setdefault(found[2], {})[found[1]] = value
    return {entry["id"].partition("#")[2]: entry for entry in by_number.values()}


def original_mesh(job: Job) -> Mesh:
    """A model as its library has it, upright, facing +z, in the ball of radius 0.5."""
    row, properties = job.row, job.properties
    path = properties["model"].lstrip("/")
    with zipfile.ZipFile(job.library) as archive, tempfile.TemporaryDirectory() as folder:
        prefix = path.rpartition("/")[0] + "/"
        archive.extractall(folder, [name for name in archive.namelist() if name.startswith(prefix)])
        _forget_missing_pictures((Path(folder) / path).parent)
        mesh = load_mesh(Path(folder) / path)
    own = [float(number) for number in properties.get("modelRotation", "1 0 0 0 1 0 0 0 1").split()]
    rotation = _turn(row.yaw_deg, row.pitch_deg) @ torch.tensor(own).reshape(3, 3)
    mesh = replace(
        mesh,
        vertices=mesh.vertices @ rotation.T,
        vertex_normals=None if mesh.vertex_normals is None else mesh.vertex_normals @ rotation.T,
    )
    return normalised(_without_glass(mesh, row.glass))


def _turn(yaw_deg: float, pitch_deg: float) -> Float[Tensor, "3 3"]:
    """Rotation about +y, then about +x."""
    yaw, pitch = math.radians(yaw_deg), math.radians(pitch_deg)
    about_y = [[math.cos(yaw), 0.0, math.sin(yaw)], [0.0, 1.0, 0.0], [-math.sin(yaw), 0.0, math.cos(yaw)]]
    about_x = [
        [1.0, 0.0, 0.0],
        [0.0, math.cos(pitch), -math.sin(pitch)],
        [0.0, math.sin(pitch), math.cos(pitch)],
    ]
    return torch.tensor(about_x) @ torch.tensor(about_y)


def _forget_missing_pictures(folder: Path) -> None:
    """Take lines out of material files that name pictures which the library does not hold.

    The libraries were cleaned of bump maps and of some textures, but not of their names.
    """
    for path in folder.glob("*.mtl"):
        lines = path.read_text(encoding="latin-1").splitlines()
        kept = [
            line
            for line in lines
            if not re.match(r"\s*(map_\w+|bump|disp|decal|refl)\s", line, re.IGNORECASE)
            or (folder / line.split(maxsplit=1)[1].strip()).is_file()
        ]
        path.write_text("\n".join(kept) + "\n", encoding="latin-1")


def pack_model(original: Mesh) -> PackedModel:
    """A mesh in the fewest bytes that look like it."""
    visible = _visible(original)
    views = fibonacci_sphere(8, 128, 128)
    truth = _pictures(original, views)
    stored = visible
    best: PackedModel | None = None
    for faces, texture_size in BUDGETS:
        stored = simplify_mesh(_with_small_textures(stored, texture_size), faces)
        data = encode_mesh(stored)
        error = float((_pictures(decode_mesh(data), views) - truth).square().mean())
        psnr = -10 * math.log10(max(error, 1e-10))
        if best is not None and (psnr < TARGET_PSNR or len(data) >= len(best.data)):
            break
        best = PackedModel(data, len(stored.faces), len(original.faces), psnr, ())
    assert best is not None
    return replace(best, colours=_colours(original))


def pack_job(job: Job) -> PackedModel:
    """Read a model and pack it, on one thread.

    Raises:
        StudioError: its numbers are out of the packed form's range, as garbled texture coordinates are.
    """
    torch.set_num_threads(1)
    try:
        return pack_model(original_mesh(job))
    except ValueError as error:
        raise StudioError(f"{job.row.id} cannot be packed: {error}. Take it out of selection.csv.") from error


class _mapper:
    """``map`` in this process or in several, as a context."""

    def __init__(self, workers: int) -> None:
        self._pool = ProcessPoolExecutor(workers) if workers > 1 else None

    def __enter__(self) -> Callable[..., Iterator[PackedModel]]:
        return map if self._pool is None else self._pool.map

    def __exit__(self, *_: object) -> None:
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)


def _libraries(source: Path, names: set[str]) -> dict[str, Path]:
    found = {path.stem: path for path in sorted(source.rglob("*.sh3f"))}
    missing = sorted(names - set(found))
    if missing:
        raise StudioError(
            f"{source} lacks {', '.join(f'{name}.sh3f' for name in missing)}; "
            "unpack Debian's package sweethome3d-furniture there ('dpkg -x')."
        )
    return {name: found[name] for name in names}


def _properties_of(row: Selected, library: dict[str, dict[str, str]]) -> dict[str, str]:
    if row.model not in library:
        raise StudioError(f"The library {row.collection} has no model {row.model!r}; mend selection.csv.")
    return library[row.model]


_README = """\
# The embedded catalogue

{count} captioned 3D models of {nouns} kinds of things, {megabytes:.1f} MB: what the exact prior shows.
This page and all files beside it but `selection.csv` are written by

    apt-get download sweethome3d-furniture && dpkg -x sweethome3d-furniture_*.deb source
    studio prior build-catalogue source assets/catalogue

- `catalogue.json`: a line for each model: names, colours, creator, licence, source.
- `meshes.safetensors`: the packed meshes by id; `studio/priors/mesh_codec.py` describes the form.
- `fidelity.csv`: how true each model is to its original.
- `selection.csv`: made by hand: which models to take, what they are called, which way they face, what
  becomes of their glass.

## Fidelity

Renderings at 128 x 128 from eight views around, over white and over grey, against the original meshes' own:

| | PSNR |
| --- | --- |
| mean | {mean:.1f} dB |
| median | {median:.1f} dB |
| lowest | {lowest:.1f} dB |
| share of models at 34 dB or more | {share:.0%} |

The originals have {original_faces:,} triangles, these {faces:,}. Models below {limit:.0f} dB are left out.

## Source, licences and credits

From Debian's package `sweethome3d-furniture` 1.8, the furniture libraries of Sweet Home 3D
(<https://www.sweethome3d.com>), converted to OBJ by Emmanuel Puybaret / eTeks <info@eteks.com>. The models
were changed here: fewer triangles, smaller textures, turned to face forwards, glass made opaque or left out,
hidden parts removed.

- CC0 1.0: <https://creativecommons.org/publicdomain/zero/1.0/>
- CC BY 3.0: <https://creativecommons.org/licenses/by/3.0/>
- CC BY 3.0 US: <https://creativecommons.org/licenses/by/3.0/us/>

{credits}
"""


def _readme(rows: Sequence[Mapping[str, object]], models: Sequence[PackedModel], size: int) -> str:
    """The page that credits every creator and states the fidelity."""
    creators: dict[tuple[str, str], dict[str, list[str]]] = {}
    for row in rows:
        collection = str(row["source"]).partition("/")[0]
        of_licence = creators.setdefault((collection, str(row["licence"])), {})
        of_licence.setdefault(str(row["creator"]), []).append(str(row["id"]))
    sections = []
    for (collection, licence), by_creator in creators.items():
        lines = [f"- {creator}: {', '.join(ids)}" for creator, ids in sorted(by_creator.items())]
        sections.append("\n".join([f"### {collection}, {licence}", "", *lines]))
    psnr = sorted(model.psnr for model in models)
    return _README.format(
        count=len(rows),
        nouns=len({row["noun"] for row in rows}),
        megabytes=size / 1e6,
        mean=sum(psnr) / len(psnr),
        median=psnr[len(psnr) // 2],
        lowest=psnr[0],
        share=sum(value >= TARGET_PSNR for value in psnr) / len(psnr),
        original_faces=sum(model.original_faces for model in models),
        faces=sum(model.faces for model in models),
        limit=LOWEST_PSNR,
        credits="\n\n".join(sections),
    )


def _description(job: Job, model: PackedModel) -> dict[str, object]:
    """A model's line in ``catalogue.json``."""
    row, properties = job.row, job.properties
    creator = CREATORS.get(row.collection, properties["creator"])
    tags = [tag.strip().lower() for tag in properties["tags"].split(",") if tag.strip()]
    return {
        "id": row.id,
        "noun": row.noun,
        "caption": row.caption,
        "synonyms": row.synonyms,
        "tags": [tag for tag in tags if tag not in {"blend swap", "scpts", "adjustable"}],
        "colours": model.colours,
        "category": properties["category"].lower(),
        "creator": creator,
        "licence": LICENCES[row.collection],
        "source": f"{row.collection}/{row.model}",
    }


_MASSES = {"bread", "butter"}


def _has_no_article(noun: str) -> bool:
    """Whether a noun is a plural or a mass: "scissors", "bread"; not "chest of drawers"."""
    head = noun.partition(" of ")[0]
    return head in _MASSES or (head.endswith("s") and not head.endswith(("ss", "us", "is")))


def _article(phrase: str) -> str:
    return "an" if phrase[0].lower() in "aeio" or phrase.startswith(("um", "up")) else "a"


def _without_glass(mesh: Mesh, glass: Literal["solid", "clear"]) -> Mesh:
    """The mesh with its half-transparent materials solid, or without the mostly transparent ones.

    What cannot be seen at all is left out either way.
    """
    if mesh.face_materials is not None:
        lowest = 0.6 if glass == "clear" else 0.05
        seen = torch.tensor([material.base_color[3] >= lowest for material in mesh.materials])
        mesh = _with_faces(mesh, seen[mesh.face_materials.long()])
    materials = tuple(
        replace(material, base_color=(*material.base_color[:3], 1.0)) for material in mesh.materials
    )
    return replace(mesh, materials=materials)


def _with_faces(mesh: Mesh, keep: Tensor) -> Mesh:
    """The mesh with some of its faces only, and the vertices and materials that they use."""
    used, faces = torch.unique(mesh.faces[keep], return_inverse=True)
    materials, indices = mesh.materials, None
    if mesh.face_materials is not None:
        used_materials, indices = torch.unique(mesh.face_materials[keep], return_inverse=True)
        materials = tuple(mesh.materials[place] for place in used_materials.tolist())
    return replace(
        mesh,
        vertices=mesh.vertices[used],
        faces=faces,
        uvs=None if mesh.uvs is None else mesh.uvs[keep],
        face_materials=indices,
        materials=materials,
        vertex_normals=None if mesh.vertex_normals is None else mesh.vertex_normals[used],
    )


def _visible(mesh: Mesh) -> Mesh:
    """The mesh without the faces that no view from outside sees, nor any face beside them.

    Each face is painted with its own number as a colour, and the pictures are read back. Faces with holes in
    their texture stay, and hide nothing.
    """
    holed = torch.tensor(
        [
            bool((material.texture is not None) and (material.texture[..., 3] < 0.5).any())
            for material in mesh.materials
        ]
    )
    seen_through = torch.zeros(len(mesh.faces), dtype=torch.bool)
    if mesh.face_materials is not None:
        seen_through = holed[mesh.face_materials]
    count = len(mesh.faces)
    numbers = torch.arange(1, count + 1)
    colors = torch.stack([numbers >> 16 & 255, numbers >> 8 & 255, numbers & 255], 1).float() / 255
    painted = Mesh(
        vertices=mesh.vertices[mesh.faces].reshape(-1, 3),
        faces=torch.arange(3 * count).reshape(-1, 3)[~seen_through],
        vertex_colors=colors.repeat_interleave(3, 0),
    )
    views = fibonacci_sphere(32, 512, 512, elevation_range_deg=(-89.0, 89.0))
    seen = torch.zeros(count + 1, dtype=torch.bool)
    renderer = MeshRenderer(supersample=1, light=Light())
    for place in range(len(views)):
        rgb = renderer(painted, views[[place]], torch.zeros(1, 3)).rgb[0]
        levels = (rgb * 255).round().long()
        seen[(levels[0] << 16 | levels[1] << 8 | levels[2]).clamp(max=count).flatten()] = True
    seen_faces = seen[1:] | seen_through
    _, corners = torch.unique(mesh.vertices[mesh.faces].reshape(-1, 3), dim=0, return_inverse=True)
    corners = corners.reshape(-1, 3)
    touched = torch.zeros(int(corners.max()) + 1, dtype=torch.bool)
    touched[corners[seen_faces].reshape(-1)] = True
    return _with_faces(mesh, touched[corners].any(1))


def _with_small_textures(mesh: Mesh, size: int) -> Mesh:
    """The mesh with textures of at most ``size`` texels a side, and plain colours for nearly plain ones."""
    return replace(mesh, materials=tuple(_with_small_texture(material, size) for material in mesh.materials))


def _with_small_texture(material: Material, size: int) -> Material:
    texture = material.texture
    if texture is None:
        return material
    texels = texture.flatten(0, 1)
    if float(texels.std(0, unbiased=False).max()) < 0.01:
        red, green, blue, _ = (
            a * b for a, b in zip(material.base_color, texels.mean(0).tolist(), strict=True)
        )
        return Material((red, green, blue, 1.0))
    return replace(material, texture=_shrunk(texture, size)) if max(texture.shape[:2]) > size else material


def _shrunk(texture: Float[Tensor, "h w 4"], size: int) -> Float[Tensor, "h2 w2 4"]:
    """A texture averaged down, colours weighed by their alpha."""
    height, width, _ = texture.shape
    scale = size / max(height, width)
    shape = (max(round(height * scale), 1), max(round(width * scale), 1))
    alpha = texture[..., 3:].clamp(min=1e-3)
    weighed = torch.cat([texture[..., :3] * alpha, alpha], -1).permute(2, 0, 1)[None]
    small = torch.nn.functional.interpolate(weighed, shape, mode="area")[0].permute(1, 2, 0)
    return torch.cat([small[..., :3] / small[..., 3:], small[..., 3:]], -1).clamp(0, 1)


def _pictures(mesh: Mesh, views: Cameras) -> Float[Tensor, "b2 3 h w"]:
    """Renderings over white, then over grey."""
    drawn = MeshRenderer()(mesh, views, torch.zeros(len(views), 3))
    return torch.cat([drawn.rgb + (1 - drawn.alpha) * grey for grey in (1.0, 0.5)])


def _colours(mesh: Mesh) -> tuple[str, ...]:
    """The colours that cover at least a quarter of what is seen, at most two, strongest first."""
    views = fibonacci_sphere(8, 64, 64)
    drawn = MeshRenderer(light=Light())(mesh, views, torch.zeros(8, 3))
    pixels = drawn.rgb.permute(0, 2, 3, 1)[drawn.alpha[:, 0] > 0.99]
    names = Counter(colour_name(*pixel) for pixel in pixels.tolist())
    common = [name for name, count in names.most_common(2) if count >= 0.25 * len(pixels)]
    return tuple(common or [name for name, _ in names.most_common(1)])


def colour_name(red: float, green: float, blue: float) -> str:
    """The everyday name, out of ``vocabulary.COLOURS``, of an sRGB colour in 0-1."""
    hue, saturation, value = colorsys.rgb_to_hsv(red, green, blue)
    hue_deg = 360 * hue
    if value < 0.2 or (value < 0.3 and saturation < 0.3):
        return "black"
    if saturation < 0.12:
        return "white" if value > 0.8 else "grey"
    if 20 <= hue_deg < 65 and saturation < 0.42 and value > 0.65:
        return "beige"
    if saturation < 0.2:
        return "white" if value > 0.85 else "grey"
    if hue_deg < 45 or hue_deg >= 345:
        if hue_deg >= 14 and hue_deg < 345:
            return "orange" if value > 0.75 and saturation > 0.6 else "brown"
        if value > 0.75 and saturation < 0.5:
            return "pink"
        return "red" if saturation > 0.5 else "brown"
    if hue_deg < 68:
        return "yellow" if value > 0.55 else "brown"
    if hue_deg < 165:
        return "green"
    if hue_deg < 255:
        return "blue"
    return "purple" if hue_deg < 300 else "pink"
