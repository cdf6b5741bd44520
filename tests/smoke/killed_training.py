"""Training that is killed at random calls, and started again, until it was killed often enough.

``python -m tests.smoke.killed_training WORK KILLS`` leaves finished runs in WORK and prints how many kills they
survived. Every attempt is a process of its own, forked from one that has imported what it needs and has computed
nothing yet.
"""

from __future__ import annotations

import os
import random
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from pipeline.run_folder import RunFolder
from pipeline.training.train import train
from pipeline.training.trainer import StepRecordingTrainer
from tests import libraries  # noqa: F401
from tests.support import tiny_request

SEED = 0
MAX_CALLS = 40
"""More than the calls of one complete run, so that some attempts reach its end."""


def train_until_killed(output: Path, fatal_call: int) -> None:
    """Train, but die by SIGKILL at a call: before a micro-batch, a file of the trainer's, a mark or a renaming."""
    seen = 0

    def killing(function: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(*arguments: Any, **keywords: Any) -> Any:
            nonlocal seen
            seen += 1
            if seen == fatal_call:
                os.kill(os.getpid(), signal.SIGKILL)
            return function(*arguments, **keywords)

        return wrapped

    places: tuple[tuple[Any, str], ...] = (
        (StepRecordingTrainer, "training_step"),
        (torch, "save"),
        (RunFolder, "mark_complete"),
        (os, "replace"),
    )
    for owner, name in places:
        setattr(owner, name, killing(getattr(owner, name)))
    train(tiny_request(output, accumulation_steps=1))


def main() -> int:
    """Exit status 1 when an attempt ended otherwise than by being killed or by finishing its run."""
    work, wanted = Path(sys.argv[1]), int(sys.argv[2])
    generator = random.Random(SEED)
    kills = finished = 0
    while kills < wanted or (work / f"run-{finished}").exists():
        fatal_call = generator.randint(1, MAX_CALLS) if kills < wanted else 0
        child = os.fork()
        if child == 0:
            train_until_killed(work / f"run-{finished}", fatal_call)
            os._exit(0)
        _, status = os.waitpid(child, 0)
        if os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL:
            kills += 1
        elif status == 0:
            finished += 1
        else:
            return 1
    print(f"{kills} kills, {finished} runs")
    return 0


if __name__ == "__main__":
    sys.exit(main())
