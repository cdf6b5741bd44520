"""``verbosity demo``: prepare the base model, train, and run the acceptance, on one machine."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Any

from pipeline.commands import DEFAULT_TARGET, Command
from pipeline.commands.quick_demo import run_quick_demo
from pipeline.config import TARGETS, Target, get_target, resolve_preset
from pipeline.files import TRAINING_DATA
from pipeline.model.base_models import base_model_folder
from pipeline.run_folder import RunFolder

EXPECTED_S: Mapping[str, int] = MappingProxyType({"prepare": 15, "train": 385, "accept": 275})
"""Seconds of each stage for the embedded model, as one run took on two cores with AMX bfloat16."""
_TITLES = {
    "prepare": "prepare the base model, written once to the cache",
    "train": "load it in 4-bit and train the style adapter",
    "accept": "judge the adapter and a live server by every criterion",
}
KEY_FIGURES = (
    ("style.token_separation", "terse_median_tokens", "median TERSE answer: {:.0f} tokens"),
    ("style.token_separation", "verbose_median_tokens", "median VERBOSE answer: {:.0f} tokens"),
    ("deployment.under_load", "answer_latency_max_s", "slowest served answer, eight clients asking: {:.1f} s"),
)
"""Criterion, measure and sentence of what a newcomer wants to know; the bound is added."""


def _configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--target", choices=tuple(TARGETS), default=DEFAULT_TARGET, help="base model (default: %(default)s)"
    )
    parser.add_argument("--output", type=Path, default=Path("demo-results"), metavar="DIR", help="default: %(default)s")
    parser.add_argument(
        "--quick", action="store_true", help="train nothing: judge the recorded answers of a healthy and a broken run"
    )


def _run(arguments: argparse.Namespace) -> int:
    if arguments.quick:
        return run_quick_demo(arguments.output)
    return run_demo(get_target(arguments.target), arguments.output)


def run_demo(target: Target, output: Path) -> int:
    """Prepare, train and judge a target; returns the acceptance's exit status (0 only for ACCEPTED).

    Writes the seconds of each stage to ``stages.json``.
    """
    output = output.resolve()
    stages = _Stages()
    with stages.next("prepare"):
        base_model_folder(target)
    run = RunFolder(output / "run")
    if run.record_file.exists() and run.read_record()["status"] == "completed":
        shutil.rmtree(run.path)  # an unfinished run is resumed; a completed one is from an earlier demo
    with stages.next("train"):
        from pipeline.training.train import TrainingRequest, train

        train(TrainingRequest(target, resolve_preset("lean", target), TRAINING_DATA, run.path, target.device))
    (output / "acceptance.json").unlink(missing_ok=True)  # no earlier verdict may stand for this one
    with stages.next("accept"):
        # In a process of its own: the pipeline does not know the gate, and the model is loaded again.
        command = [sys.executable, "-m", "pipeline.cli", "accept", "--run", str(run.path), "--output", str(output)]
        status = subprocess.run(command, check=False).returncode
    (output / "stages.json").write_text(json.dumps(stages.taken_s, indent=2) + "\n", encoding="utf-8")
    print(_ending(output, sum(stages.taken_s.values())), flush=True)
    return status


class _Stages:
    """The demo's stages, each announced with the time it usually takes and closed with the time it took.

    Attributes:
        taken_s: Seconds of each stage so far.
    """

    def __init__(self) -> None:
        self.taken_s: dict[str, float] = {}

    @contextmanager
    def next(self, name: str) -> Iterator[None]:
        """Run one stage."""
        place = f"[{len(self.taken_s) + 1}/{len(_TITLES)}]"
        print(f"{place} {_TITLES[name]}: usually {_duration(EXPECTED_S[name])} on two cores", flush=True)
        started = time.perf_counter()
        yield
        self.taken_s[name] = time.perf_counter() - started
        print(f"{place} took {_duration(self.taken_s[name])}", flush=True)


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"


def _ending(output: Path, taken_s: float) -> str:
    """The last lines: the verdict, the figures that matter, where the report is, and what to do next."""
    folder = os.path.relpath(output)
    written = output / "acceptance.json"
    if not written.is_file():
        return "no verdict: the acceptance ended before it wrote one; its messages stand above"
    (subject,) = json.loads(written.read_text(encoding="utf-8"))["subjects"]
    lines = [f"{subject['name']}: {subject['decision']} in {_duration(taken_s)}", *_key_figures(subject)]
    lines.append(f"  report: {folder}/report.html")
    lines.append(f"  next: verbosity generate --run {folder}/run --style terse --prompt 'What is rate limiting?'")
    return "\n".join(lines)


def _key_figures(subject: Mapping[str, Any]) -> list[str]:
    criteria = {criterion["id"]: criterion for criterion in subject["criteria"]}
    lines = []
    for criterion, measure, sentence in KEY_FIGURES:
        value = criteria[criterion]["measurements"].get(measure)
        limits = [bound["limit"] for bound in criteria[criterion]["bounds"] if bound["measure"] == measure]
        if isinstance(value, int | float):
            lines.append(f"  {sentence.format(value)} (must be {', '.join(limits)})")
    return lines


COMMAND = Command("the main job: train the embedded model, accept it, show the verdict", _configure, _run, extra="demo")
