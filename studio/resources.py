"""Where the files that ship beside the code are: the embedded priors and the presets.

In a checkout they lie beside the package, in an installed wheel inside it.
"""

from __future__ import annotations

from pathlib import Path

from studio.errors import StudioError, nearest


def assets_folder() -> Path:
    """The folder with what ships with the studio: ``catalogue/``, ``prior/`` and ``clipart/``."""
    return _shipped("assets")


def presets_folder() -> Path:
    """The folder with one recipe a TOML file."""
    return _shipped("presets")


def clipart(name: str) -> Path:
    """A drawing that ships with the studio, as an SVG file: "crab", "man-dancing" …

    Raises:
        StudioError: there is none of that name.
    """
    path = assets_folder() / "clipart" / f"{name}.svg"
    names = sorted(file.stem for file in path.parent.glob("*.svg"))
    if name not in names:
        raise StudioError(
            f"There is no clipart {name!r}, expected one of {', '.join(names)}.{nearest(name, names)}"
        )
    return path


def _shipped(name: str) -> Path:
    package = Path(__file__).resolve().parent
    for folder in (package / name, package.parent / name):
        if folder.is_dir():
            return folder
    raise StudioError(
        f"The studio's own folder {name!r} is neither in {package} nor beside it; install the studio again."
    )
