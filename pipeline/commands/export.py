"""``verbosity export``."""

from __future__ import annotations

import argparse
from pathlib import Path

from pipeline.commands import Command, run_arguments
from pipeline.run_folder import RunFolder


def _configure(parser: argparse.ArgumentParser) -> None:
    run_arguments(parser)
    parser.add_argument("--output", type=Path, required=True, metavar="DIR", help="folder to write; it must be new")
    parser.add_argument(
        "--dtype",
        choices=("float32", "bfloat16"),
        default="float32",
        help="type of the weights; bfloat16 takes half the space and rounds (default: %(default)s)",
    )
    parser.add_argument("--verdict", type=Path, metavar="FILE", help="verdict.json that accepts the run, for the card")


def _run(arguments: argparse.Namespace) -> int:
    from pipeline.release.export import export

    proof = export(
        RunFolder(arguments.run),
        arguments.output,
        dtype=arguments.dtype,
        verdict=arguments.verdict,
        device=arguments.device,
        base_model=arguments.base_model,
    )
    print(
        f"exported to {arguments.output}: log-probabilities of {proof.token_count} tokens differ by"
        f" {proof.mean_absolute_difference_nats:.4f} nats on average, without the adapter by"
        f" {proof.without_adapter_nats:.3f}"
    )
    return 0


COMMAND = Command(
    "write a run's model as an ordinary model folder with the adapter merged", _configure, _run, extra="train"
)
