"""Reads what was typed as a command and hands it to who does it, loading no more than that needs."""

from __future__ import annotations

import contextlib
import io
import re
from collections.abc import Sequence
from typing import get_args, get_type_hints

import tyro
from typing_extensions import assert_never

from studio import arguments
from studio.errors import StudioError, nearest
from studio.priors import weights
from studio.recipes import load


def _words_after(command: type) -> tuple[str, ...]:
    choices = get_type_hints(command, include_extras=True).get("command")
    return tuple(get_args(choice)[1].name for choice in get_args(choices))


_NAMES = {command.__name__.lower(): _words_after(command) for command in get_args(arguments.Command)}
"""The commands and, of some, the words that go on from there."""


def parse(typed: Sequence[str]) -> arguments.Command:
    """The command that was typed.

    Raises:
        StudioError: there is no such command or option, or a value does not fit.
        SystemExit: help was asked for and printed.
    """
    _check_names(typed)
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            command: arguments.Command = tyro.cli(
                arguments.Command,
                prog="studio",
                description="A prompt becomes a Gaussian-splat and mesh asset, or sets a drawing in motion.",
                args=list(typed),
                config=(
                    tyro.conf.OmitSubcommandPrefixes,
                    tyro.conf.OmitArgPrefixes,
                    tyro.conf.FlagCreatePairsOff,
                ),
            )
    except SystemExit as exit_:
        if not exit_.code:
            raise
        raise StudioError(_in_one_line(said.getvalue())) from None
    return command


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


def _check_names(typed: Sequence[str]) -> None:
    """Refuses a missing or misspelt command; the nearest right one is named."""
    if not typed:
        raise StudioError(f"No command was given; expected one of {', '.join(_NAMES)}. Try: studio --help")
    name, *rest = typed
    if name.startswith("-"):
        return
    if name not in _NAMES:
        raise StudioError(_no_such(name, tuple(_NAMES)))
    inner = _NAMES[name]
    if not inner or (rest and rest[0] in (*inner, "-h", "--help")):
        return
    if not rest:
        raise StudioError(f"'studio {name}' needs one word more: {', '.join(inner)}.")
    raise StudioError(_no_such(f"{name} {rest[0]}", tuple(f"{name} {word}" for word in inner)))


def _no_such(name: str, known: tuple[str, ...]) -> str:
    return f"There is no command {name!r}; expected one of {', '.join(known)}.{nearest(name, known)}"


def _in_one_line(box: str) -> str:
    """The gist of tyro's framed messages: what is wrong, and what was perhaps meant."""
    # A title, then parts with rules between; the frame is drawn in ASCII where the terminal knows no more.
    text = re.sub(r"[│╭╮╰╯\s]+", " ", box)
    _, problem, *rest = re.split(r" ?[─-]{5,} ?| Got errors: ", text)
    unfit = re.match(
        r"Error parsing (\S+): no type matching (\S+) could be instantiated from \[(.*)\]", problem
    )
    if unfit is not None:
        option, expected, came = unfit.groups()
        problem = f"{option} {came} does not fit; expected {expected.removeprefix('{None}|')}"
    meant = re.search(r"Perhaps you meant: .*?(--[\w-]+)", " ".join(rest))
    hint = f" Did you mean {meant.group(1)!r}?" if meant else ""
    return f"{problem.replace(' (required)', '').rstrip(' .')}.{hint} Try: studio COMMAND --help"
