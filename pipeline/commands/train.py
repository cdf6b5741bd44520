"""``verbosity train``."""

from __future__ import annotations

import argparse
from pathlib import Path

from pipeline.commands import Command, base_arguments, chosen_target, recipe_arguments
from pipeline.config import resolve_preset
from pipeline.run_folder import RunFolder


def _configure(parser: argparse.ArgumentParser) -> None:
    recipe_arguments(parser)
    parser.add_argument(
        "--output", type=Path, required=True, metavar="DIR", help="run folder; an unfinished run in it is resumed"
    )
    parser.add_argument(
        "--learning-rate", type=float, metavar="RATE", help="peak learning rate (default: the preset's)"
    )
    parser.add_argument("--seed", type=int, metavar="N", help="seed of order, dropout and adapter (default: 42)")
    parser.add_argument(
        "--report-to",
        choices=("tensorboard",),
        help="also write event files to DIR/tensorboard (pip install 'verbosity[tensorboard]')",
    )
    base_arguments(parser)


def _run(arguments: argparse.Namespace) -> int:
    target = chosen_target(arguments)
    preset = resolve_preset(
        arguments.preset,
        target,
        max_examples=arguments.max_examples,
        learning_rate=arguments.learning_rate,
        seed=arguments.seed,
    )
    # Imported after the numbers are checked, since it takes seconds.
    from pipeline.distributed import is_first_process
    from pipeline.training.train import TrainingRequest, train

    device = arguments.device or target.device
    request = TrainingRequest(
        target,
        preset,
        arguments.data,
        arguments.output,
        device,
        base_model=arguments.base_model,
        tensorboard=arguments.report_to == "tensorboard",
    )
    record = train(request)
    steps, duration_s = record["completed_steps"], record["duration_s"]
    if is_first_process():
        print(f"trained {steps} steps in {duration_s:.0f} s; adapter: {RunFolder(arguments.output).adapter}")
    return 0


COMMAND = Command("train a style adapter on a 4-bit base model", _configure, _run, extra="train")
