"""Writes the page about runs that set methods side by side, in a process of its own."""

from __future__ import annotations

import sys
from pathlib import Path

from studio.errors import StudioError
from studio.evaluate.compare import page_of
from studio.export.files import write_bytes
from studio.priors import weights
from studio.run.session import Run


def main() -> int:
    """Reads the runs' folders from the command line; writes the page to the first of its words."""
    page, *folders = map(Path, sys.argv[1:])
    try:
        with weights.offline():
            write_bytes(page, page_of([Run.open(folder) for folder in folders]).encode())
    except StudioError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
