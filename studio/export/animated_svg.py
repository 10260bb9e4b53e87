"""Vector clips as SVG: one file that moves by itself (SMIL), or one file a frame."""

from __future__ import annotations

import zipfile
from pathlib import Path
from xml.etree.ElementTree import Element, SubElement

from studio.clipart.svg_writer import encoded, new_document, path_data, path_element, rounded
from studio.export.files import replacing
from studio.export.vector import VectorClip

_ZIP_DATE = (1980, 1, 1, 0, 0, 0)


def write_animated_svg(clip: VectorClip, path: Path) -> None:
    """Writes one SVG whose paths move by SMIL, for ever where the clip loops, else once.

    Browsers play it without a script. Each path has the same commands in every frame. Gradients follow the
    bounding box of their path.

    Raises:
        StudioError: the file cannot be written.
    """
    keys = clip.keys()
    times = ";".join(rounded(time, 5) for time, _ in keys)
    root, definitions = new_document()
    for moving in clip.paths:
        element = path_element(root, definitions, moving.rest)
        by_frame = {
            frame: path_data([frames[frame] for frames in moving.frames], moving.rest.closed)
            for frame in sorted(set(clip.order))
        }
        element.set("d", by_frame[clip.order[0]])
        if len(set(by_frame.values())) == 1:
            continue
        animate = {"attributeName": "d", "values": ";".join(by_frame[frame] for _, frame in keys)}
        animate |= {"keyTimes": times, "dur": f"{rounded(clip.seconds, 5)}s"}
        animate |= {"repeatCount": "indefinite"} if clip.loops else {"fill": "freeze"}
        SubElement(element, "animate", animate)
    _write(root, path)


def write_svg_frames(clip: VectorClip, path: Path) -> None:
    """Writes a ZIP archive of one SVG a frame, in the order in which they are shown: ``name_0000.svg`` …

    Raises:
        StudioError: the file cannot be written.
    """
    texts = {frame: svg_frame(clip, frame) for frame in set(clip.order)}
    with replacing(path) as temporary, zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED) as archive:
        for number, frame in enumerate(clip.order):
            member = zipfile.ZipInfo(f"{path.stem}_{number:04d}.svg", _ZIP_DATE)
            archive.writestr(member, texts[frame], zipfile.ZIP_DEFLATED)


def svg_frame(clip: VectorClip, frame: int) -> bytes:
    """An SVG file of one frame of a clip."""
    root, definitions = new_document()
    for moving in clip.paths:
        curves = [frames[frame] for frames in moving.frames]
        path_element(root, definitions, moving.rest).set("d", path_data(curves, moving.rest.closed))
    return encoded(root)


def _write(root: Element, path: Path) -> None:
    with replacing(path) as temporary:
        temporary.write_bytes(encoded(root))
