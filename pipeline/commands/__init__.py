"""The subcommands of ``verbosity``, one module each, and their shared arguments."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from pipeline.config import PRESETS, TARGETS, Target
from pipeline.errors import PipelineError
from pipeline.files import TRAINING_DATA
from pipeline.targets import resolve_target

DEFAULT_TARGET = "smollm2-135m"


@dataclass(frozen=True, slots=True)
class Command:
    """One subcommand.

    Attributes:
        help: Help text.
        configure: Adds its arguments to a parser.
        run: Runs it and returns the exit status.
        extra: The project's extra with the packages that it imports; empty if it needs none.
    """

    help: str
    configure: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace], int]
    extra: str = ""


def text(argument: str) -> str:
    """An argument that is text, not a path: its bytes must be UTF-8.

    Raises:
        argparse.ArgumentTypeError: They are not.
    """
    raw = os.fsencode(argument)
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise argparse.ArgumentTypeError(
            f"not UTF-8 (byte 0x{raw[error.start]:02x} at {error.start + 1}); give text"
        ) from None


def base_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the device and the folder of the base weights."""
    parser.add_argument("--device", choices=("cpu", "cuda"), help="where to run (default: the target's own)")
    _base_model_argument(parser)


def target_arguments(parser: argparse.ArgumentParser, meaning: str) -> None:
    """Add the target and the folder of its weights.

    Args:
        parser: A parser.
        meaning: What the target is for, and the default.
    """
    _target_argument(parser, meaning)
    _base_model_argument(parser)


def _target_argument(parser: argparse.ArgumentParser, meaning: str) -> None:
    names = f"{', '.join(TARGETS)}, or a file that describes your own"
    parser.add_argument("--target", metavar="NAME|FILE.toml", help=f"base model {meaning}: {names}")


def _base_model_argument(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--base-model",
        metavar="DIR",
        help="folder of a base model of your own, or of Mistral's weights (or VERBOSITY_BASE_MODEL)",
    )


def chosen_target(arguments: argparse.Namespace) -> Target:
    """The target that the arguments name.

    Raises:
        PipelineError: As ``resolve_target``; or a target that brings its own weights came with other ones.
    """
    base_model: str | None = arguments.base_model
    target = resolve_target(arguments.target or (None if base_model else DEFAULT_TARGET), base_model)
    if base_model and target.weights != "local":
        raise PipelineError(f"{target.name} brings its own weights; leave out --target, or --base-model.")
    return target


def trusted_key_argument(parser: argparse.ArgumentParser) -> None:
    """Add the key that must have signed a verdict's attestation."""
    parser.add_argument(
        "--trust-key",
        type=Path,
        metavar="FILE",
        help="ed25519 public key (PEM) that must have signed the attestation beside the verdict, verdict.intoto.json",
    )


def recipe_arguments(parser: argparse.ArgumentParser) -> None:
    """Add target, preset and data."""
    _target_argument(parser, f"(default: the one that --base-model names, else {DEFAULT_TARGET})")
    parser.add_argument(
        "--preset",
        choices=tuple(PRESETS),
        default="lean",
        help="golden: the documented configuration to the letter; lean: smaller and faster (default: %(default)s)",
    )
    parser.add_argument(
        "--data",
        type=Path,
        default=TRAINING_DATA,
        metavar="PATH",
        help="JSONL file, plain or gzip, or a folder of them (default: the shipped set)",
    )
    parser.add_argument("--max-examples", type=int, metavar="N", help="train on the first N examples")


def run_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the run folder, and what ``base_arguments`` adds."""
    parser.add_argument("--run", type=Path, required=True, metavar="DIR", help="folder of a completed training run")
    base_arguments(parser)
