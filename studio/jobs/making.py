"""Takes a row of a batch to its assets, in whichever process and on whichever machine."""

from __future__ import annotations

import json
import multiprocessing
import os
import time
from pathlib import Path

from studio.export.files import write_bytes
from studio.recipes.load import parse

DONE = "done.json"
"""Of a row's run: its files, its metrics, and what its last attempt took."""
_PATIENCE_S = 120.0


def make(recipe: str, folder: Path) -> None:
    """Take a row to its assets, from its last checkpoint if it has one.

    Args:
        recipe: as TOML.
        folder: of the run. A process that an earlier batch left behind has time to let go of it.

    Raises:
        StudioError: the row cannot be made.
    """
    # Not above: who hands rows out names this function too, and is ready much sooner without torch.
    from studio.run.session import Run, RunIsBusy

    began, processor_began = time.monotonic(), time.process_time()
    parent = multiprocessing.parent_process()
    run = Run.at(folder, parse(recipe, "the row's recipe"))
    while True:
        try:
            for _ in run:
                if parent is not None and not parent.is_alive():
                    os._exit(1)
            break
        except RunIsBusy:
            if time.monotonic() > began + _PATIENCE_S:
                raise
            time.sleep(0.5)
            run = Run.open(folder)
    names = [str(path.relative_to(folder)) for path in run.export()]
    said = {
        "files": names,
        "metrics": run.metrics(),
        "seconds": round(time.monotonic() - began, 3),
        "processor_seconds": round(time.process_time() - processor_began, 3),
    }
    write_bytes(folder / DONE, json.dumps(said).encode())
