"""What the criteria share: one training run, one loaded model, one set of answers and one server per target."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from pipeline.config import GENERATION_PRESETS, UNCONSTRAINED, Style, Target
from pipeline.data.formats import read_questions
from pipeline.errors import PipelineError
from pipeline.files import HELD_OUT_QUESTIONS
from pipeline.generate import Generation, generate_batch
from pipeline.model import TrainedModel, load_trained
from pipeline.runs import RunFolder
from pipeline.targets import base_model_folder
from tests.support import Answers, ServerProcess, TrainingOutcome

QUESTION_COUNT = 20
SAMPLING_SEED = 7


@pytest.fixture(scope="session")
def device(target: Target, request: pytest.FixtureRequest) -> str:
    chosen: str = request.config.getoption("--device") or target.device
    if chosen == "cuda" and not torch.cuda.is_available():
        pytest.skip("no CUDA device: run on a machine with a GPU, or accept the CPU target with -m embedded")
    return chosen


@pytest.fixture(scope="session")
def base_model(target: Target, device: str, request: pytest.FixtureRequest) -> str | None:
    chosen: str | None = request.config.getoption("--base-model")
    try:
        base_model_folder(target, chosen)
    except PipelineError as error:
        pytest.skip(str(error))
    return chosen


@pytest.fixture(scope="session")
def train_into(
    target: Target, device: str, base_model: str | None, request: pytest.FixtureRequest
) -> Callable[[Path], TrainingOutcome]:
    """Trains a run in a process of its own, its progress shown."""
    preset = request.config.getoption("--preset") or ("golden" if device == "cuda" else "lean")
    command = [sys.executable, "-m", "pipeline.cli", "train", "--target", target.name, "--preset", preset]
    command += ["--device", device]
    command += ["--base-model", base_model] if base_model else []

    def run(output: Path) -> TrainingOutcome:
        with request.config.pluginmanager.getplugin("capturemanager").global_and_fixture_disabled():
            finished = subprocess.run([*command, "--output", str(output)], check=False)
        return TrainingOutcome(RunFolder(output), finished.returncode)

    return run


@pytest.fixture(scope="session")
def training(
    target: Target,
    train_into: Callable[[Path], TrainingOutcome],
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
) -> TrainingOutcome:
    given: Path | None = request.config.getoption("--run-dir")
    if given is not None:
        return _given_run(given, target)
    return train_into(tmp_path_factory.mktemp(target.name) / "run")


def _given_run(folder: Path, target: Target) -> TrainingOutcome:
    run = RunFolder(folder)
    try:
        record = run.read_record()
    except PipelineError as error:
        raise pytest.UsageError(f"--run-dir: {error}") from error
    if record["target"] != target.name:
        raise pytest.UsageError(f"--run-dir: a run of {record['target']}, not of {target.name}")
    return TrainingOutcome(run, 0 if record["status"] == "completed" else 1)


@pytest.fixture(scope="session")
def record(training: TrainingOutcome) -> dict[str, Any]:
    """The run's record; a run that never began to train has none."""
    return training.run.read_record() if training.run.record_file.exists() else {}


@pytest.fixture(scope="session")
def completed_run(training: TrainingOutcome) -> RunFolder:
    if training.exit_status != 0:
        pytest.skip("training did not complete")
    return training.run


@pytest.fixture(scope="session")
def trained(completed_run: RunFolder, device: str, base_model: str | None) -> TrainedModel:
    return load_trained(completed_run, device=device, base_model=base_model)


@pytest.fixture(scope="session")
def questions() -> list[str]:
    return [question.text for question in read_questions(HELD_OUT_QUESTIONS)[:QUESTION_COUNT]]


@pytest.fixture(scope="session")
def answers(trained: TrainedModel, questions: list[str]) -> Answers:
    def ask(style: Style, config: Any) -> list[Generation]:
        torch.manual_seed(SAMPLING_SEED)
        return generate_batch(trained.model, trained.tokenizer, [(text, style) for text in questions], config)

    return Answers(
        unconstrained={style: ask(style, UNCONSTRAINED) for style in Style},
        presets={style: ask(style, GENERATION_PRESETS[style]) for style in Style},
    )


@pytest.fixture(scope="session")
def server_launch(
    completed_run: RunFolder, device: str, base_model: str | None, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ServerProcess]:
    arguments = ["--run", str(completed_run.path), "--device", device]
    arguments += ["--base-model", base_model] if base_model else []
    with ServerProcess(arguments, tmp_path_factory.mktemp("server") / "stderr.log") as server:
        yield server


@pytest.fixture(scope="session")
def server_url(server_launch: ServerProcess) -> str:
    if server_launch.url is None:
        pytest.skip(f"the server did not start: {server_launch.log_file.read_text(errors='replace')[-300:]}")
    return server_launch.url
