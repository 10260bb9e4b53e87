"""What whoever starts the app decides."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from studio.recipes.load import preset_names

BUILT_IN_PRIORS = ("auto", "library", "small")


@dataclass(frozen=True)
class Options:
    """What whoever starts the app decides.

    Attributes:
        workspace: the folder of the queue and its runs; nothing outside it is ever shown.
        host, port: where to listen.
        root_path: the path that a proxy puts before the app's, such as ``/studio``.
        passwords: by name; None lets everyone in who reaches the port.
        shared_queue: show everyone all jobs; else each client sees their own.
        most_waiting: jobs that one client may have waiting.
        presets: that may be chosen; names, or paths of recipes.
        priors: that may be chosen; short names, folders or hub ids.
    """

    workspace: Path = Path("workspace")
    host: str = "127.0.0.1"
    port: int = 7860
    root_path: str = ""
    passwords: Mapping[str, str] | None = None
    shared_queue: bool = False
    most_waiting: int = 200
    presets: tuple[str, ...] = field(default_factory=lambda: tuple(preset_names()))
    priors: tuple[str, ...] = BUILT_IN_PRIORS
