"""The one exception that is a message to a person rather than a bug in the studio."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class StudioError(Exception):
    """Something the user can mend.

    The message says what came, what was expected and what to try, in one line. The command line prints it
    without a traceback and exits with code 2.
    """


def nearest(name: str, known: Iterable[str]) -> str:
    """``" Did you mean 'x'?"`` for the known name nearest to ``name``, or an empty string."""
    matches = difflib.get_close_matches(name.lower(), list(known), n=1, cutoff=0.5)
    return f" Did you mean {matches[0]!r}?" if matches else ""
