"""resvg in a process of its own: a small SVG can ask for hours of blur, and a thread cannot be stopped.

The process takes an SVG from its standard input and writes a PNG to its standard output.
"""

from __future__ import annotations

import resource
import signal
import subprocess
import sys
from importlib.util import find_spec

from studio.errors import StudioError

DOTS_PER_INCH = 96.0
"""What SVG's millimetres and points are measured by."""
MOST_CPU_S = 20
"""Processor time of one picture; ordinary drawings take tenths of a second."""
MOST_BYTES = 3 * 2**30
"""Of address space."""
_LONGEST_S = 300.0
"""On a machine that others keep busy."""
_ENDED = frozenset((-signal.SIGXCPU, -signal.SIGKILL))


def png_of(svg: str) -> bytes:
    """An SVG as a PNG file; without the machine's fonts, so the same SVG gives the same pixels everywhere.

    Raises:
        ModuleNotFoundError: resvg is not installed.
        StudioError: it refuses the drawing, or takes too long or too much memory.
    """
    if find_spec("resvg_py") is None:
        raise ModuleNotFoundError("There is no resvg_py.", name="resvg_py")
    command = [sys.executable, "-m", "studio.clipart.resvg", str(MOST_CPU_S), str(MOST_BYTES)]
    try:
        done = subprocess.run(  # noqa: S603  (our own program)
            command, input=svg.encode(), capture_output=True, timeout=_LONGEST_S, check=False
        )
    except subprocess.TimeoutExpired:
        ended = True
    else:
        ended = done.returncode in _ENDED
    if ended:
        raise StudioError(
            f"The drawing takes more than {MOST_CPU_S} s to draw, expected less: simplify its filters and "
            "paths, or export it as PNG."
        )
    if done.returncode:
        said = done.stderr.decode(errors="replace").strip().splitlines() or ["it ran out of memory"]
        raise StudioError(
            f"The drawing cannot be drawn ({said[-1]}): open it in a drawing program and export it again."
        )
    return done.stdout


def main() -> int:
    """The limits of processor time, in seconds, and of memory, in bytes."""
    import resvg_py

    cpu_s, size = map(int, sys.argv[1:])
    resource.setrlimit(resource.RLIMIT_CPU, (cpu_s, cpu_s + 1))
    resource.setrlimit(resource.RLIMIT_AS, (size, size))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    try:
        svg = sys.stdin.buffer.read().decode()
        png = resvg_py.svg_to_bytes(svg_string=svg, skip_system_fonts=True, dpi=DOTS_PER_INCH)
    except (ValueError, MemoryError) as error:
        print(error, file=sys.stderr)
        return 2
    sys.stdout.buffer.write(bytes(png))
    return 0


if __name__ == "__main__":
    sys.exit(main())
