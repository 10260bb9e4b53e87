"""What ``studio app`` does; Gradio is loaded here and nowhere else, as it is an extra."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator

from studio import arguments
from studio.errors import StudioError
from studio.jobs.supervisor import Supervisor
from studio.recipes.load import preset_names


def perform(command: arguments.App) -> int:
    """Shows the studio in a browser until stopped.

    Raises:
        StudioError: Gradio is missing, the workspace cannot be written to, or everyone could come in.
    """
    try:
        from studio.web.app import serve
        from studio.web.clients import read_passwords
        from studio.web.options import BUILT_IN_PRIORS, Options
    except ModuleNotFoundError as error:
        raise StudioError(f"The app needs {error.name}; try: pip install 'studio[web]'") from error
    options = Options(
        workspace=command.workspace,
        host=command.host,
        port=command.port,
        root_path=command.root_path,
        passwords=None if command.auth is None else read_passwords(command.auth),
        shared_queue=command.shared_queue,
        most_waiting=command.most_waiting,
        presets=(*preset_names(), *map(str, command.preset)),
        priors=(*BUILT_IN_PRIORS, *command.prior),
    )
    with _until_stopped(), contextlib.nullcontext() if command.no_workers else Supervisor(command.workspace):
        serve(options)
    return 0


@contextlib.contextmanager
def _until_stopped() -> Iterator[None]:
    """A polite kill (SIGTERM) is heard as Ctrl-C is: the workers are let go of, and save their runs."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with contextlib.suppress(KeyboardInterrupt):
            yield
    finally:
        signal.signal(signal.SIGTERM, before)
