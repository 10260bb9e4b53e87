"""gsply's readers are compiled at first use, for half a minute; on a few splats they are quick as plain Python."""

from __future__ import annotations

import os

os.environ["NUMBA_DISABLE_JIT"] = "1"
