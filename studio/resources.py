"""Where the files that ship beside the code are: the embedded priors and the presets.

In a checkout they lie beside the package, in an installed wheel inside it.
"""

from __future__ import annotations

from pathlib import Path

from studio.errors import StudioError


def assets_folder() -> Path:
    """The folder with ``catalogue/`` and ``prior/``, the priors that ship with the studio."""
    return _shipped("assets")


def presets_folder() -> Path:
    """The folder with one recipe a TOML file."""
    return _shipped("presets")


def _shipped(name: str) -> Path:
    package = Path(__file__).resolve().parent
    for folder in (package / name, package.parent / name):
        if folder.is_dir():
            return folder
    raise StudioError(
        f"The studio's own folder {name!r} is neither in {package} nor beside it; install the studio again."
    )
