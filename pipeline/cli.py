"""The ``verbosity`` command: a table of subcommands, plus those of other packages."""

from __future__ import annotations

import argparse
import contextlib
import importlib.metadata
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from types import MappingProxyType
from typing import Protocol

from pipeline.commands import (
    Command,
    data,
    demo,
    doctor,
    export,
    generate,
    plan,
    serve,
    train,
    verify,
)
from pipeline.console import ClosedPipeError, OutputLostError, quiet_libraries, reliable_output, system_problem
from pipeline.environment import apply_environment
from pipeline.errors import PipelineError

COMMANDS: Mapping[str, Command] = MappingProxyType(
    {
        "plan": plan.COMMAND,
        "train": train.COMMAND,
        "data": data.COMMAND,
        "generate": generate.COMMAND,
        "serve": serve.COMMAND,
        "export": export.COMMAND,
        "verify": verify.COMMAND,
        "demo": demo.COMMAND,
        "doctor": doctor.COMMAND,
    }
)
COMMAND_GROUP = "verbosity.commands"
"""Entry point group for further subcommands: objects with ``help``, ``configure`` and ``run``."""
OWN_PACKAGES = ("pipeline", "harness")


class BrokenCommand(Command):
    """A subcommand of another package that could not be loaded; it accepts any arguments and reports why."""


class Subcommand(Protocol):
    """The interface of ``Command``, for packages that do not import it; ``extra`` is optional."""

    @property
    def help(self) -> str:
        """Help text of the subcommand."""

    @property
    def configure(self) -> Callable[[argparse.ArgumentParser], None]:
        """Adds its arguments to a parser."""

    @property
    def run(self) -> Callable[[argparse.Namespace], int]:
        """Runs it and returns the exit status."""


def find_commands() -> dict[str, Subcommand]:
    """The built-in subcommands, then those of other packages; built-in names take precedence."""
    commands: dict[str, Subcommand] = dict(COMMANDS)
    for entry in importlib.metadata.entry_points(group=COMMAND_GROUP):
        commands.setdefault(entry.name, _load(entry))
    return commands


def _load(entry: importlib.metadata.EntryPoint) -> Subcommand:
    try:
        command: Subcommand = entry.load()
        command.configure(argparse.ArgumentParser(description=command.help))
        if not callable(command.run):
            raise TypeError("run is not callable")
    except Exception as error:  # any error of a foreign module; the other commands must still work
        return BrokenCommand("(cannot be loaded)", lambda parser: None, partial(_refuse, entry.value, error))
    return command


def _refuse(origin: str, error: Exception, arguments: argparse.Namespace) -> int:
    raise PipelineError(
        f"the command from {origin} cannot be loaded ({type(error).__name__}: {error}); reinstall the package it "
        "comes from."
    )


def build_parser(commands: Mapping[str, Subcommand]) -> argparse.ArgumentParser:
    """Build the argument parser of all subcommands."""
    parser = argparse.ArgumentParser(
        prog="verbosity", description="Train, serve and accept a model with two style tokens."
    )
    subparsers = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, command in commands.items():
        command.configure(subparsers.add_parser(name, help=command.help, description=command.help))
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one subcommand; what the user can fix is reported in one line on standard error.

    That is a ``PipelineError``, an error of the system, or a missing package. Output that cannot be written does not
    stop the command; it is reported at the end.
    """
    apply_environment()
    quiet_libraries()
    status = 0
    try:
        with reliable_output():
            status = _run_subcommand(arguments)
    except OutputLostError as error:
        if not isinstance(error, ClosedPipeError):
            with contextlib.suppress(OSError):  # standard error may be as full
                _complain("verbosity", str(error))
        return status or error.exit_status
    return status


def _run_subcommand(arguments: Sequence[str] | None) -> int:
    commands = find_commands()
    parser = build_parser(commands)
    options, unknown = parser.parse_known_args(arguments)
    command, name = commands[options.command], f"verbosity {options.command}"
    if unknown and not isinstance(command, BrokenCommand):
        parser.error(f"unrecognized arguments: {' '.join(unknown)}")
    try:
        return command.run(options)
    except PipelineError as error:
        _complain(name, str(error))
        return error.exit_status
    except KeyboardInterrupt:
        _complain(name, "interrupted.")
        return 128 + signal.SIGINT
    except ModuleNotFoundError as error:
        extra: str = getattr(command, "extra", "")
        if not extra or not error.name or error.name.partition(".")[0] in OWN_PACKAGES:
            raise
        _complain(name, f"needs {error.name}, which is not installed; run: pip install 'verbosity[{extra}]'")
        return 1
    except OSError as error:
        problem = system_problem(error)
        if problem is None:
            raise
        _complain(name, problem)
        return 1


def _complain(name: str, message: str) -> None:
    print(f"{name}: {message}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
