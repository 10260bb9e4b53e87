"""Catalogues: captioned 3D models, which the exact prior shows and the learned prior is trained on.

The embedded one lies in ``assets/catalogue``: ``catalogue.json`` describes every model and
``meshes.safetensors`` holds the packed meshes by id. Listing reads the first file only; a mesh is unpacked
when it is asked for.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from studio.errors import StudioError, nearest
from studio.meshes import load_mesh, normalised
from studio.priors.mesh_codec import decode_mesh
from studio.priors.vocabulary import COLOURS, caption_noun, caption_phrases
from studio.resources import assets_folder
from studio.types import Mesh

MESH_SUFFIXES = (".glb", ".gltf", ".obj", ".ply", ".stl")
CAPTION_FILES = ("captions.csv", "captions.json", "captions.txt")


@dataclass(frozen=True)
class CatalogueEntry:
    """One captioned model.

    Attributes:
        id: unique in its catalogue: lower-case words and hyphens, or the file's name.
        noun: the plain name of the thing.
        caption: article, adjectives, noun.
        synonyms: other names, from near to broad.
        tags: words for families of things.
        colours: dominant colours, strongest first.
        category, creator, licence, source: where the model comes from.
        load: reads the mesh; it fits the ball of radius 0.5 and faces +z.
    """

    id: str
    noun: str
    caption: str
    load: Callable[[], Mesh] = field(repr=False, compare=False)
    synonyms: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    colours: tuple[str, ...] = ()
    category: str = ""
    creator: str = ""
    licence: str = ""
    source: str = ""

    def mesh(self) -> Mesh:
        """The model, read anew at each call."""
        return self.load()


@dataclass(frozen=True)
class Catalogue:
    """Captioned models in a fixed order, with unique ids."""

    entries: tuple[CatalogueEntry, ...]

    def __len__(self) -> int:
        return len(self.entries)

    def __iter__(self) -> Iterator[CatalogueEntry]:
        return iter(self.entries)

    def index(self, entry_id: str) -> int:
        """The place of an entry.

        Raises:
            StudioError: there is none of that id.
        """
        for place, entry in enumerate(self.entries):
            if entry.id == entry_id:
                return place
        known = [entry.id for entry in self.entries]
        raise StudioError(f"The catalogue has no model {entry_id!r}.{nearest(entry_id, known)}")

    def __getitem__(self, entry_id: str) -> CatalogueEntry:
        return self.entries[self.index(entry_id)]

    @staticmethod
    def load(folder: Path | None = None) -> Catalogue:
        """A packed catalogue, by default the embedded one.

        Raises:
            StudioError: the folder holds no catalogue or a damaged one.
        """
        folder = assets_folder() / "catalogue" if folder is None else folder
        description, meshes = folder / "catalogue.json", folder / "meshes.safetensors"
        for path in (description, meshes):
            if not path.is_file():
                raise StudioError(
                    f"{folder} holds no catalogue: {path.name} is missing. "
                    "'studio prior build-catalogue' makes one."
                )
        try:
            rows = json.loads(description.read_text(encoding="utf-8"))["models"]
            return Catalogue(
                tuple(
                    CatalogueEntry(
                        id=row["id"],
                        noun=row["noun"],
                        caption=row["caption"],
                        load=_PackedMesh(meshes, row["id"]),
                        synonyms=tuple(row["synonyms"]),
                        tags=tuple(row["tags"]),
                        colours=tuple(row["colours"]),
                        category=row["category"],
                        creator=row["creator"],
                        licence=row["licence"],
                        source=row["source"],
                    )
                    for row in rows
                )
            )
        except (ValueError, KeyError, TypeError) as error:
            raise StudioError(
                f"{description} is not a catalogue's description ({error}); build it again."
            ) from error

    @staticmethod
    def from_folder(folder: Path) -> Catalogue:
        """A user's own models: mesh files and a file of captions in one folder.

        The captions are ``captions.csv`` (columns file, caption and perhaps tags, parted by semicolons),
        ``captions.json`` ({"chair.glb": "a red chair"}) or ``captions.txt`` ("chair.glb: a red chair").
        Each mesh is centred and scaled to the ball of radius 0.5; it should stand upright and face +z.

        Raises:
            StudioError: no folder, no captions, a mesh without a caption or a caption without its mesh.
        """
        if not folder.is_dir():
            raise StudioError(f"{folder} is not a folder of models; give one that holds meshes and captions.")
        captions = _read_captions(folder)
        files = sorted(path.name for path in folder.iterdir() if path.suffix.lower() in MESH_SUFFIXES)
        for name in files:
            if name not in captions:
                raise StudioError(f"{folder / name} has no caption; add a line for it to the caption file.")
        for name in captions:
            if name not in files:
                raise StudioError(
                    f"The caption file of {folder} names {name!r}, which is no mesh there."
                    f"{nearest(name, files)}"
                )
        if not files:
            raise StudioError(f"{folder} holds no models; expected files like {', '.join(MESH_SUFFIXES)}.")
        return Catalogue(
            tuple(
                _captioned_file(folder / name, captions[name].caption, captions[name].tags) for name in files
            )
        )


@dataclass(frozen=True)
class _PackedMesh:
    """A mesh in a packed catalogue."""

    path: Path
    key: str

    def __call__(self) -> Mesh:
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(str(self.path), framework="numpy") as meshes:
                return decode_mesh(meshes.get_tensor(self.key).tobytes())
        except SafetensorError as error:
            raise StudioError(f"{self.path} is damaged at {self.key!r} ({error}); build it again.") from error


@dataclass(frozen=True)
class _MeshFile:
    """A mesh in a file of its own."""

    path: Path

    def __call__(self) -> Mesh:
        return normalised(load_mesh(self.path))


@dataclass(frozen=True)
class _Caption:
    caption: str
    tags: tuple[str, ...] = ()


def _captioned_file(path: Path, caption: str, tags: tuple[str, ...]) -> CatalogueEntry:
    noun = caption_noun(caption)
    if not noun:
        raise StudioError(
            f"The caption {caption!r} of {path} names nothing; write for example 'a red chair'."
        )
    phrases = caption_phrases(caption)
    return CatalogueEntry(
        id=path.name,
        noun=noun,
        caption=caption,
        load=_MeshFile(path),
        synonyms=tuple(phrase for phrase in phrases if phrase != noun),
        tags=tags,
        colours=tuple(word for word in caption.lower().split() if word in COLOURS),
        source=str(path),
    )


def _read_captions(folder: Path) -> dict[str, _Caption]:
    for name in CAPTION_FILES:
        path = folder / name
        if not path.is_file():
            continue
        try:
            text = path.read_text(encoding="utf-8-sig")
            match path.suffix:
                case ".csv":
                    captions = _csv_captions(text)
                case ".json":
                    captions = {file: _Caption(str(caption)) for file, caption in json.loads(text).items()}
                case _:
                    lines = (line.partition(":") for line in text.splitlines() if line.strip())
                    captions = {file.strip(): _Caption(caption.strip()) for file, _, caption in lines}
        except (ValueError, AttributeError, KeyError) as error:
            raise StudioError(
                f"{path} is not a file of captions ({error}); see 'studio prior info'."
            ) from error
        return captions
    raise StudioError(
        f"{folder} has no captions: expected {', '.join(CAPTION_FILES)} "
        "with a line such as 'chair.glb: a red chair' for each mesh."
    )


def _csv_captions(text: str) -> dict[str, _Caption]:
    rows = csv.DictReader(text.splitlines(), skipinitialspace=True)
    if not {"file", "caption"} <= set(rows.fieldnames or ()):
        raise ValueError("the first line must name the columns file, caption and perhaps tags")
    return {
        row["file"].strip(): _Caption(
            row["caption"].strip(),
            tuple(tag.strip() for tag in (row.get("tags") or "").split(";") if tag.strip()),
        )
        for row in rows
    }
