"""Hands each command of the command line to who does it, and loads no more than that needs."""

from __future__ import annotations

from typing_extensions import assert_never

from studio import arguments
from studio.priors import weights
from studio.recipes import load


def perform(command: arguments.Command) -> int:
    """Carries a command out; returns the exit code.

    Raises:
        StudioError: something that the user can mend.
    """
    match command:
        case arguments.Presets():
            return presets(command.command)
        case arguments.Prior():
            from studio import prior_commands

            return prior_commands.perform(command.command)
        case arguments.Batch():
            from studio import job_commands

            with weights.offline(command.offline):
                return job_commands.batch(command)
        case arguments.Jobs():
            from studio import job_commands

            return job_commands.perform(command.command)
        case arguments.App():
            from studio import app_command

            return app_command.perform(command)
        case _:
            from studio import run_commands

            return run_commands.perform(command)


def presets(command: arguments.PresetsCommand) -> int:
    """Names the presets, or prints one with every key."""
    match command:
        case arguments.PresetsList():
            names = load.preset_names()
            width = max(map(len, names)) + 2
            for name in names:
                print(f"{name:<{width}}{load.load(name).description}")
        case arguments.PresetsShow():
            print(load.to_toml(load.load(command.preset)), end="")
        case _:
            assert_never(command)
    return 0
