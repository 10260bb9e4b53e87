"""Files that one process at a time may hold; the system takes them back when it ends, however it ends."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from studio.errors import StudioError


def try_lock(path: Path) -> IO[bytes] | None:
    """The file, made if need be, held until it is closed; None where somebody else holds it.

    Raises:
        StudioError: it cannot be written to.
    """
    try:
        file = path.open("ab")
    except OSError as error:
        raise StudioError(
            f"Cannot write {path}: {error.strerror or error}; expected a writable folder with space left."
        ) from error
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        file.close()
        return None
    return file


@contextmanager
def locked(path: Path, refusal: StudioError) -> Iterator[None]:
    """Holds the file through the block.

    Raises:
        StudioError: ``refusal``, where somebody else holds it; or it cannot be written to.
    """
    file = try_lock(path)
    if file is None:
        raise refusal
    with file:
        yield
