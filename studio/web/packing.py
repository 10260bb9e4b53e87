"""What jobs have made, in one archive."""

from __future__ import annotations

import json
import tempfile
import zipfile
from collections.abc import Sequence
from dataclasses import asdict
from typing import IO

from studio.jobs.queue import Job
from studio.run.folder import RECIPE

_IN_MEMORY_BYTES = 2**24
_TOLD = ("id", "prompt", "preset", "state", "step", "total_steps", "reason")


def pack(jobs: Sequence[Job]) -> IO[bytes]:
    """A zip file: a folder for each job with its recipe and its assets, and ``manifest.jsonl``."""
    packed: IO[bytes] = tempfile.SpooledTemporaryFile(_IN_MEMORY_BYTES)
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        manifest = []
        for job in jobs:
            found = [job.folder / RECIPE, *sorted((job.folder / "assets").glob("*"))]
            names = []
            for path in found:
                # A link that somebody put into a run leads nowhere.
                if path.is_file() and not path.is_symlink():
                    names.append(f"{job.folder.name}/{path.name}")
                    archive.write(path, names[-1])
            told = {name: value for name, value in asdict(job).items() if name in _TOLD}
            manifest.append(json.dumps({**told, "files": names}) + "\n")
        archive.writestr("manifest.jsonl", "".join(manifest))
    packed.seek(0)
    return packed
