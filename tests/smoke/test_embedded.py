"""The embedded target for real, in short, by the ordinary commands and the gate's own tests: trained, saved, served."""

from __future__ import annotations

import json
import subprocess
from typing import Any

import pytest

from acceptance.processes import VERBOSITY
from pipeline.config import GENERATION_PRESETS, Style
from pipeline.run_folder import RunFolder
from tests.smoke.gate import acceptance, results

pytestmark = pytest.mark.slow

TARGET = "smollm2-135m"
EXAMPLE_COUNT = 48
"""Twice over, in windows of four: 24 steps, about a minute on two cores."""
CRITERIA = (
    "training.loads_in_4bit",
    "training.completes",
    "training.loss_converges",
    "training.adapter_saves",
    "deployment.server_starts",
    "deployment.health_endpoint",
    "deployment.generate_endpoint",
    "deployment.error_handling",
)
"""Of the gate, what so short a training can be held to; style, quality and speed take the complete one."""


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    output = tmp_path_factory.mktemp("embedded") / "run"
    command = [*VERBOSITY, "train", "--target", TARGET, "--preset", "lean", "--max-examples", str(EXAMPLE_COUNT)]
    finished = subprocess.run([*command, "--output", str(output)], capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stderr[-2000:]
    return RunFolder(output)


@pytest.fixture(scope="module")
def judged(run: RunFolder, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("judged")
    acceptance(
        *("-m", "embedded and not snapshot", "--target", TARGET),
        *("--run-dir", str(run.path), "--acceptance-dir", str(folder)),
        tests=("test_training.py", "test_server.py", "test_deployment.py"),
    )
    return results(folder, TARGET)


@pytest.mark.parametrize("criterion", CRITERIA)
def test_it_meets(criterion: str, judged: dict[str, Any]) -> None:
    assert judged[criterion]["outcome"] == "PASS", judged[criterion]["reason"]


@pytest.mark.parametrize("style", Style)
def test_it_answers_on_the_command_line(style: Style, run: RunFolder) -> None:
    command = [*VERBOSITY, "generate", "--run", str(run.path), "--prompt", "What is rate limiting?", "--style", style]
    finished = subprocess.run([*command, "--json"], capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stderr[-2000:]
    answer = json.loads(finished.stdout)
    preset = GENERATION_PRESETS[style]
    assert (answer["style"], bool(answer["response"])) == (style, True)
    assert preset.min_new_tokens <= answer["tokens"] <= preset.max_new_tokens
