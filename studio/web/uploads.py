"""Files that browsers send, each in a folder of its own that is called by the file's digest."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import shutil
import time
from collections.abc import Callable, Collection, Sequence
from pathlib import Path

from studio.errors import StudioError
from studio.export.files import replacing_folder

Look = Callable[[Path, Path], None]
"""Writes what there is to know of a file into a folder, in another process; may refuse the file."""
NAME = re.compile(r"\b[0-9a-f]{32}\b")
"""What an upload is called."""
UNUSED_S = 24 * 3600.0
"""How long an upload stays that no job names."""
_STEM = "sent"


class Uploads:
    """Files of one kind.

    Args:
        folder: of all of them.
        what: one of them in words, for refusals.
        suffixes: of the files that may come.
        look: what is done with a new one.
    """

    def __init__(self, folder: Path, what: str, suffixes: Sequence[str], look: Look) -> None:
        self.folder = folder
        self._what = what
        self._suffixes = suffixes
        self._look = look

    def keep(self, data: bytes, name: str) -> str:
        """Keeps a file that came; returns what it is called from now on.

        Args:
            name: of the file; what it ends with says what it is.

        Raises:
            StudioError: it is of another kind.
        """
        suffix = Path(name).suffix.lower()
        if suffix not in self._suffixes:
            expected = ", ".join(self._suffixes)
            raise StudioError(f"The file's name ends with {suffix[:10]!r}; expected {expected}.")
        called = hashlib.sha256(suffix.encode() + data).hexdigest()[:32]
        if not (self.folder / called).is_dir():
            with replacing_folder(self.folder / called) as made:
                path = made / f"{_STEM}{suffix}"
                path.write_bytes(data)
                self._look(path, made)
        self._used(called)
        return called

    def tidy(self, named: Collection[str]) -> None:
        """Removes what nobody has asked for in ``UNUSED_S``, and what a killed server left half written.

        Args:
            named: uploads that stay however old they are.
        """
        if not self.folder.is_dir():
            return
        for found in self.folder.iterdir():
            sent = NAME.fullmatch(found.name) is not None or found.name.startswith(".")
            if sent and found.name not in named and found.stat().st_mtime < time.time() - UNUSED_S:
                shutil.rmtree(found, ignore_errors=True)

    def path(self, called: str) -> Path:
        """The file.

        Raises:
            StudioError: there is no such file.
        """
        found = list((self.folder / called).glob(f"{_STEM}.*")) if NAME.fullmatch(called) else []
        if not found:
            raise StudioError(f"There is no {self._what} {called[:40]!r} here; send it.")
        self._used(called)
        return found[0]

    def _used(self, called: str) -> None:
        with contextlib.suppress(OSError):  # of a disk that can only be read
            os.utime(self.folder / called)
