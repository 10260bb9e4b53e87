"""gsply compiles its readers at first use, for half a minute; a few splats are quick in plain Python."""

from __future__ import annotations

import os

os.environ["NUMBA_DISABLE_JIT"] = "1"
