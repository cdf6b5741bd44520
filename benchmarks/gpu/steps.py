"""``make gpu-acceptance``: the acceptance and the resource figures of one target, in steps that can be repeated.

Each step is a process with a log of its own and is left out once its result is there, so a call that was cut goes on
where it was. ``--limit-s`` ends a call in time: what runs is asked to stop, and training saves a checkpoint first.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from benchmarks.gpu.memory import CASES
from pipeline.config import PRESETS, TARGETS
from pipeline.run_folder import RunFolder

ROOT = Path(__file__).resolve().parents[2]
STOP_S = 60
"""How long a step may take to save what it has, once it is asked to stop."""
UNFINISHED = 3
"""Exit status of a call that its limit cut short; the same call again goes on."""


@dataclass(frozen=True)
class Step:
    """One process.

    Attributes:
        name: Its name on the command line, and its log's.
        command: Arguments after ``python -m``.
        done: Whether its result is there.
        statuses: Exit statuses that leave a result.
        environment: Variables of its own.
    """

    name: str
    command: Sequence[str]
    done: Callable[[], bool]
    statuses: frozenset[int] = frozenset({0})
    environment: Mapping[str, str] = field(default_factory=dict)


def make_steps(
    target: str, device: str, output: Path, base_model: str | None = None, max_examples: int | None = None
) -> list[Step]:
    """The steps in their order; every file that they leave lies in ``output``."""
    fewer = ["--max-examples", str(max_examples)] if max_examples else []
    where = ["--device", device, *(["--base-model", base_model] if base_model else [])]
    model = ["--target", target, *where]
    weights = output / "weights.json"
    steps = [
        Step("weights", ["benchmarks.gpu.weights", *model[:2], *where[2:], "--output", str(weights)], weights.exists)
    ]
    for preset in PRESETS:
        run, judged = output / "runs" / preset, output / preset
        train = ["pipeline.cli", "train", *model, "--preset", preset, *fewer, "--output", str(run)]
        # Folders as one word with their option: pytest would take them for places of tests and look there for its own.
        accept = ["pytest", f"--rootdir={ROOT}", f"--config-file={ROOT / 'pyproject.toml'}", "acceptance"]
        accept += ["-p", "no:cacheprovider", "-m", "gpu" if device == "cuda" else "embedded", *model]
        accept += ["--preset", preset, f"--run-dir={run}", f"--acceptance-dir={judged}"]
        steps += [
            Step(f"train-{preset}", train, partial(_is_trained, run)),
            # Accepted, rejected and incomplete all leave a report.
            Step(f"accept-{preset}", accept, (judged / "acceptance.json").exists, frozenset({0, 10, 11})),
        ]
    for preset in PRESETS:
        for case in CASES:
            result = output / f"memory-{preset}-{case}.json"
            command = ["benchmarks.gpu.memory", *model, "--preset", preset, "--case", case, "--output", str(result)]
            steps.append(Step(result.stem, command, result.exists))
    result = output / "generation.json"
    timing = ["benchmarks.gpu.generation", "--run", str(output / "runs" / "lean"), *where, "--output", str(result)]
    steps.append(Step("generation", timing, result.exists))
    # Quick, and never older than what it sums up.
    steps.append(Step("summary", ["benchmarks.gpu.summary", str(output)], lambda: False))
    return steps


def _is_trained(run: Path) -> bool:
    folder = RunFolder(run)
    return folder.record_file.exists() and folder.read_record()["status"] == "completed"


def run_step(step: Step, logs: Path, remaining_s: float | None) -> int | None:
    """Run a step's process; None if its time was over before it ended."""
    logs.mkdir(parents=True, exist_ok=True)
    with (logs / f"{step.name}.log").open("ab") as log:
        command = [sys.executable, "-m", *step.command]
        environment = {**os.environ, **step.environment}
        process = subprocess.Popen(
            command, stdout=log, stderr=subprocess.STDOUT, cwd=ROOT, env=environment, process_group=0
        )
    try:
        return process.wait(timeout=remaining_s)
    except subprocess.TimeoutExpired:
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=STOP_S)
        return None
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # a server, say, that an interrupted acceptance left running
        process.wait()


def run_all(steps: Sequence[Step], logs: Path, limit_s: float | None) -> int:
    """Run what is not done yet, in order; a step that fails does not keep the others from their results.

    Returns:
        0 if every step left its result, ``UNFINISHED`` if the limit came first, otherwise 1.
    """
    started, failed = time.perf_counter(), []
    for step in steps:
        if step.done():
            print(f"{step.name}: done before", flush=True)
            continue
        remaining_s = None if limit_s is None else limit_s - STOP_S - (time.perf_counter() - started)
        if remaining_s is not None and remaining_s <= 0:
            print(f"{step.name}: no time left; run the same command again", flush=True)
            return UNFINISHED
        print(f"{step.name}: runs ...", flush=True)
        began = time.perf_counter()
        status = run_step(step, logs, remaining_s)
        print(f"{step.name}: exit status {status} after {time.perf_counter() - began:.0f} s", flush=True)
        if status is None:
            return UNFINISHED
        if status not in step.statuses:
            failed.append(step.name)
    if failed:
        print(f"failed: {', '.join(failed)}; their logs are in {logs}", flush=True)
    return 1 if failed else 0


def parser_of(description: str | None) -> argparse.ArgumentParser:
    """The command line that every list of steps has."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--target", choices=tuple(TARGETS), default="mistral-7b-v0.3-synthetic")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cuda")
    parser.add_argument("--base-model", metavar="DIR", help="folder of Mistral's weights")
    parser.add_argument("--output", type=Path, default=Path("gpu-results"), help="folder of all results")
    parser.add_argument("--limit-s", type=float, metavar="S", help="end this call after so many seconds")
    parser.add_argument("--only", nargs="+", metavar="STEP", help="these steps alone")
    return parser


def run_chosen(
    parser: argparse.ArgumentParser, options: argparse.Namespace, steps: Sequence[Step], output: Path
) -> int:
    """Run the steps that ``--only`` names, or all; their logs lie in ``output``."""
    if unknown := set(options.only or ()) - {step.name for step in steps}:
        parser.error(f"--only: no step {', '.join(sorted(unknown))}; there are {', '.join(s.name for s in steps)}")
    chosen = [step for step in steps if options.only is None or step.name in options.only]
    return run_all(chosen, output / "logs", options.limit_s)


def main() -> int:
    """Run the steps of one target."""
    parser = parser_of(__doc__)
    parser.add_argument("--max-examples", type=int, metavar="N", help="train on the first N examples, for a rehearsal")
    options = parser.parse_args()
    output = options.output.resolve() / options.target
    steps = make_steps(options.target, options.device, output, options.base_model, options.max_examples)
    return run_chosen(parser, options, steps, output)


if __name__ == "__main__":
    sys.exit(main())
