"""3MF for printing in colour: one closed body, z up, in millimetres, its texture in the package.

Specification: 3mf.io, core and materials extension; the files are written by the consortium's own library.
"""

from __future__ import annotations

import ctypes
import locale
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch

from studio.errors import StudioError
from studio.export.files import replacing
from studio.export.images import texture_png, to_bytes
from studio.export.stl import printed
from studio.types import Mesh

_TEXTURE_RELATION = "http://schemas.microsoft.com/3dmanufacturing/2013/01/3dtexture"


def write_3mf(mesh: Mesh, path: Path) -> None:
    """Write a mesh as ``.3mf``, as large as its ``.stl``, in the colours of its texture or its vertices.

    Args:
        mesh: of one material.
        path: where to write.

    Raises:
        StudioError: lib3mf is not installed, or the file cannot be written.
    """
    try:
        from lib3mf import Lib3MF, get_wrapper
    except ImportError as error:
        raise StudioError(f"cannot write {path}: .3mf needs lib3mf. Try: pip install lib3mf") from error

    wrapper = get_wrapper()
    model = wrapper.CreateModel()
    model.SetUnit(Lib3MF.ModelUnit.MilliMeter)
    body = model.AddMeshObject()
    body.SetName(path.stem)
    vertices, faces = printed(mesh).numpy(), mesh.faces.cpu().numpy()
    corners = [Lib3MF.Position((ctypes.c_float * 3)(*row)) for row in vertices.tolist()]
    triangles = [Lib3MF.Triangle((ctypes.c_uint32 * 3)(*row)) for row in faces.tolist()]
    body.SetGeometry(corners, triangles)
    _paint(Lib3MF, model, body, mesh)
    model.AddBuildItem(body, wrapper.GetIdentityTransform())
    with replacing(path) as temporary, same_locale():
        model.QueryWriter("3mf").WriteToFile(str(temporary))


@contextmanager
def same_locale() -> Iterator[None]:
    """Undo what lib3mf does to the process where it reads or writes: it sets the locale to "C"."""
    before = locale.setlocale(locale.LC_ALL)
    try:
        yield
    finally:
        locale.setlocale(locale.LC_ALL, before)


def _paint(lib3mf: Any, model: Any, body: Any, mesh: Mesh) -> None:
    """Gives each triangle's corners their place in a texture, or a colour."""
    material = mesh.materials[0]
    if mesh.uvs is not None and material.texture is not None:
        attachment = model.AddAttachment("/3D/Textures/texture.png", _TEXTURE_RELATION)
        attachment.ReadFromBuffer(texture_png(material.texture))
        texture = model.AddTexture2DFromAttachment(attachment)
        texture.SetContentType(lib3mf.TextureType.PNG)
        group = model.AddTexture2DGroup(texture)
        places, index = np.unique(mesh.uvs.cpu().reshape(-1, 2).numpy(), axis=0, return_inverse=True)
        ids = [group.AddTex2Coord(lib3mf.Tex2Coord(u, v)) for u, v in places.tolist()]
        of_corner = np.array(ids)[index.reshape(-1)].reshape(-1, 3)
    else:
        group = model.AddColorGroup()
        if mesh.vertex_colors is None:
            rows = to_bytes(255 * torch.tensor([material.base_color]))
            of_corner = np.zeros((len(mesh.faces), 3), dtype=int)
        else:
            rows = np.pad(to_bytes(255 * mesh.vertex_colors), ((0, 0), (0, 1)), constant_values=255)
            of_corner = mesh.faces.cpu().numpy()
        ids = [group.AddColor(lib3mf.Color(*row)) for row in rows.tolist()]
        of_corner = np.array(ids)[of_corner]
    resource = group.GetResourceID()
    body.SetAllTriangleProperties(
        [lib3mf.TriangleProperties(resource, (ctypes.c_uint32 * 3)(*row)) for row in of_corner.tolist()]
    )
    body.SetObjectLevelProperty(resource, ids[0])
