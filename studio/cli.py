"""The command line: reads what was typed, has it done, and says in one line what is wrong.

Exit codes: 0 done, 2 something that the user can mend, 130 stopped with Ctrl-C.
"""

from __future__ import annotations

import contextlib
import os
import sys
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

from studio.errors import StudioError


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command; returns the exit code."""
    arguments = sys.argv[1:] if arguments is None else arguments
    try:
        # Here, so that Ctrl-C is heard while they load; and a batch's workers, which import this module too,
        # do without.
        from studio.commands import parse, perform

        with _warnings_in_one_line():
            return perform(parse(arguments))
    except StudioError as error:
        print(f"studio: {error}", file=sys.stderr)
        return 2
    except BrokenPipeError:
        # Whoever read the output ("studio … | head") has enough; flushing what is left must not complain.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        print("studio: stopped", file=sys.stderr)
        return 130


@contextlib.contextmanager
def _warnings_in_one_line() -> Iterator[None]:
    """The studio's own warnings as plain lines; those of libraries are for developers and stay away."""

    def show(message: Warning | str, *_: Any, **__: Any) -> None:
        print(f"studio: warning: {message}", file=sys.stderr)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.filterwarnings("default", category=UserWarning, module=r"studio\.")
        warnings.showwarning = show
        yield


if __name__ == "__main__":
    sys.exit(main())
