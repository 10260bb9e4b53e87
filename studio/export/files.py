"""Writing files so that a reader never sees half of one."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from studio.errors import StudioError


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside ``path`` (same suffix) that takes its place if the block succeeds.

    Missing folders are made. If the block fails, what stood at ``path`` before is untouched and the temporary
    file is gone.

    Raises:
        StudioError: the folder cannot be written to, or the disk is full.
    """
    with _refusals(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.stem}-", suffix=path.suffix)
        os.close(handle)
        temporary = Path(name)
        try:
            yield temporary
            # mkstemp makes private files; an asset gets the permissions that any new file would.
            mask = os.umask(0)
            os.umask(mask)
            temporary.chmod(0o666 & ~mask)
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)


@contextmanager
def replacing_folder(path: Path) -> Iterator[Path]:
    """Yield an empty folder beside ``path`` that takes its place if the block succeeds, as ``replacing``.

    Raises:
        StudioError: the folder cannot be written to, or the disk is full.
    """
    with _refusals(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}-") as temporary:
            made, old = Path(temporary) / "made", Path(temporary) / "old"
            made.mkdir()
            yield made
            if path.exists():
                path.rename(old)
            made.rename(path)


def write_bytes(path: Path, data: bytes) -> None:
    """Write a whole file at once or not at all.

    Raises:
        StudioError: the folder cannot be written to, or the disk is full.
    """
    with replacing(path) as temporary, temporary.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def check_writable(folder: Path) -> None:
    """Make the folder and try it, before work is spent on what it is to hold.

    Raises:
        StudioError: it cannot be written to.
    """
    with _refusals(folder):
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()


@contextmanager
def _refusals(path: Path) -> Iterator[None]:
    """Say what the system refuses in terms of ``path``."""
    try:
        yield
    except OSError as error:
        raise StudioError(
            f"cannot write {path}: {error.strerror or error}; expected a writable folder with space left. "
            "Try another output folder."
        ) from error
