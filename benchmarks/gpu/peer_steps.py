"""``make gpu-peers``: how fast lean and golden train beside trl and unsloth, on one card one after the other.

Steps as ``make gpu-acceptance`` has them. trl and unsloth need packages of their own, in the versions that
``benchmarks/gpu/prepare_wheels.sh`` fetches; ``--peers DIR`` names the folder in which they were installed. Unsloth is
measured at the start and at the end, which shows how much the machine itself drifts.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.gpu.steps import ROOT, Step, parser_of, run_chosen
from pipeline.config import TARGETS

EXAMPLES = {"lean": 320, "padded": 320, "golden": 96, "trl": 320, "unsloth": 320}
"""Examples of the shipped data that each trains on: windows of 16, enough for a steady rate. Lean and
padded take the same ones, so that their losses can be compared."""


def make_steps(target: str, device: str, output: Path, base_model: str, peers: Path | None) -> list[Step]:
    """The steps in their order; each leaves a file in ``output``.

    Args:
        target: Whose shape is trained.
        device: ``cpu`` for a rehearsal, which leaves the peers out.
        output: Folder of the results.
        base_model: Folder of the target's weights.
        peers: Folder with the peers' packages; None leaves them out.
    """

    def own(name: str, *arguments: str) -> Step:
        result = output / f"{name}.json"
        command = ["benchmarks.gpu.training", *arguments, "--target", target, "--device", device]
        return Step(name, [*command, "--base-model", base_model, "--output", str(result)], result.exists)

    def peer(name: str, result_name: str) -> Step:
        result = output / f"{result_name}.json"
        command = ["benchmarks.gpu.peers", name, "--base-model", base_model, "--examples", str(EXAMPLES[name])]
        command += ["--work", str(output / "peer-runs"), "--output", str(result)]
        path = os.pathsep.join([str(peers), str(ROOT), os.environ.get("PYTHONPATH", "")])
        return Step(result_name, command, result.exists, environment={"PYTHONPATH": path})

    with_peers = device == "cuda" and peers is not None
    steps = [
        *([peer("unsloth", "unsloth-first")] if with_peers else []),
        own("lean", "run", "--preset", "lean", "--examples", str(EXAMPLES["lean"])),
        own("padded", "run", "--preset", "lean", "--padded", "--examples", str(EXAMPLES["padded"])),
        *([peer("trl", "trl")] if with_peers else []),
        own("levers", "levers"),
        own("golden", "run", "--preset", "golden", "--examples", str(EXAMPLES["golden"])),
        *([peer("unsloth", "unsloth-last")] if with_peers else []),
    ]
    report = Step("report", ["benchmarks.gpu.peer_report", str(output)], lambda: False)
    return [*steps, report]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the steps of one target."""
    parser = parser_of(__doc__)
    parser.add_argument("--peers", type=Path, metavar="DIR", help="folder with the packages of trl and unsloth")
    options = parser.parse_args(arguments)
    from pipeline.model.base_models import base_model_folder

    output = options.output.resolve() / options.target / "training"
    folder = str(base_model_folder(TARGETS[options.target], options.base_model))
    steps = make_steps(options.target, options.device, output, folder, options.peers)
    return run_chosen(parser, options, steps, output)


if __name__ == "__main__":
    sys.exit(main())
