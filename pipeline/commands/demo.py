"""``verbosity demo``: prepare the base model, train, and run the acceptance, on one machine."""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pipeline.commands import DEFAULT_TARGET, Command
from pipeline.config import TARGETS, Target, get_target, resolve_preset
from pipeline.files import TRAINING_DATA
from pipeline.model.base_models import base_model_folder
from pipeline.run_folder import RunFolder


def _configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--target", choices=tuple(TARGETS), default=DEFAULT_TARGET, help="base model (default: %(default)s)"
    )
    parser.add_argument("--output", type=Path, default=Path("demo-results"), metavar="DIR", help="default: %(default)s")


def _run(arguments: argparse.Namespace) -> int:
    return run_demo(get_target(arguments.target), arguments.output)


def run_demo(target: Target, output: Path) -> int:
    """Prepare, train and judge a target; returns the acceptance's exit status (0 only for ACCEPTED)."""
    output = output.resolve()
    started = time.perf_counter()
    with _stage(1, "prepare the base model (written once to the cache)"):
        base_model_folder(target)
    run = RunFolder(output / "run")
    if run.record_file.exists() and run.read_record()["status"] == "completed":
        shutil.rmtree(run.path)  # an unfinished run is resumed; a completed one is from an earlier demo
    with _stage(2, "load in 4-bit and train the style adapter"):
        from pipeline.training.train import TrainingRequest, train

        train(TrainingRequest(target, resolve_preset("lean", target), TRAINING_DATA, run.path, target.device))
    with _stage(3, "accept the trained adapter and a live server"):
        # In a process of its own: the pipeline does not know the gate, and the model is loaded again.
        command = [sys.executable, "-m", "pipeline.cli", "accept", "--run", str(run.path), "--output", str(output)]
        status = subprocess.run(command, check=False).returncode
    print(f"demo took {time.perf_counter() - started:.0f} s; run and report: {output}", flush=True)
    return status


@contextmanager
def _stage(number: int, title: str) -> Iterator[None]:
    print(f"[{number}/3] {title} ...", flush=True)
    started = time.perf_counter()
    yield
    print(f"[{number}/3] done in {time.perf_counter() - started:.1f} s", flush=True)


COMMAND = Command("the main job: train the embedded model, accept it, show the verdict", _configure, _run, extra="demo")
