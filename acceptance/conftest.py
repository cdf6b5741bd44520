"""Fixtures shared by the criteria: one training run, one loaded model, one set of answers, one server per target."""

from __future__ import annotations

import dataclasses
import subprocess
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch

from acceptance.asking import ask, ask_by_plan, in_each_style
from acceptance.client import Client, Endpoint
from acceptance.crowd import Crowd, send_crowd
from acceptance.evidence import Answers, Counterfactuals, TrainingOutcome
from acceptance.own_questions import known_data, own_questions
from acceptance.processes import VERBOSITY, ServerProcess
from acceptance.selection import given_run, judged_preset
from harness.machine import MachineUse, MachineWatch
from pipeline.compat import cpu_compute_dtype
from pipeline.config import Style, Target
from pipeline.data.formats import read_questions
from pipeline.engines.many import Asked
from pipeline.errors import PipelineError
from pipeline.files import HELD_OUT_QUESTIONS
from pipeline.generation.scoring import swap_style_rows
from pipeline.model.base_models import base_model_folder, open_for_planning
from pipeline.model.dequantize import unpack
from pipeline.model.loading import LoadedModel, TrainedModel, load_trained, load_untrained
from pipeline.model.tokenizer import open_tokenizer
from pipeline.release.fingerprint import identity
from pipeline.run_folder import RunFolder
from pipeline.targets import recorded_target, resolve_target

COUNTERFACTUAL_QUESTIONS = 24
ADAPTER_OFF_QUESTIONS = 12


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """With ``--endpoint``, leave out the tests that need the model; without it, those of an endpoint alone.

    Those that read a server's answers with the model need a run beside an endpoint.
    """
    served = "both" if config.getoption("--run-dir") else "model"
    asked_of = {
        "test_endpoint.py": "endpoint",
        "test_deployment.py": "both",
        "test_under_load.py": "both",
        "test_served_answers.py": served,
    }.get(collection_path.name, "model")
    if collection_path.parent != Path(__file__).parent or not collection_path.name.startswith("test_"):
        return None
    return True if asked_of not in ("both", "endpoint" if config.getoption("--endpoint") else "model") else None


def available(device: str, instead: str) -> str:
    """The device, or a skip that says what to do instead."""
    if device == "cuda" and not torch.cuda.is_available():
        pytest.skip(f"no CUDA device: run on a machine with a GPU, or {instead}")
    return device


@pytest.fixture(scope="session")
def device(target: Target, request: pytest.FixtureRequest) -> str:
    return available(request.config.getoption("--device") or target.device, "accept the CPU target with -m embedded")


@pytest.fixture(scope="session")
def base_model(target: Target, device: str, request: pytest.FixtureRequest) -> str | None:
    chosen: str | None = request.config.getoption("--base-model")
    try:
        base_model_folder(target, chosen)
    except PipelineError as error:
        pytest.skip(str(error))
    return chosen


@pytest.fixture(scope="session")
def machine_uses(target: Target | Endpoint) -> dict[str, MachineUse]:
    """What the machine did during the ``training``, the server's ``start`` and the ``crowd``, as far as watched."""
    return {}


@pytest.fixture(scope="session")
def train_into(
    target: Target, device: str, base_model: str | None, request: pytest.FixtureRequest
) -> Callable[[Path], TrainingOutcome]:
    """Trains a run in its own process and shows its progress."""
    # A base of the user's own is named as the user named it, by a file, a folder or both.
    named = [target.name] if target.folder is None else request.config.getoption("--target")
    command = [*VERBOSITY, "train", "--preset", judged_preset(request.config, target), "--device", device]
    command += ["--target", named[0]] if named else []
    command += ["--base-model", base_model] if base_model and target.weights == "local" else []
    command += ["--data", str(data)] if (data := request.config.getoption("--data")) else []

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
    machine_uses: dict[str, MachineUse],
) -> TrainingOutcome:
    run = given_run(request.config, target)
    if run is not None:
        return TrainingOutcome(run, 0 if run.read_record()["status"] == "completed" else 1)
    with MachineWatch() as watch:
        outcome = train_into(tmp_path_factory.mktemp(target.name) / "run")
    machine_uses["training"] = watch.use
    return outcome


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
def trained(
    completed_run: RunFolder,
    target: Target,
    device: str,
    base_model: str | None,
    identify: Callable[[str, Mapping[str, object]], None],
) -> TrainedModel:
    """The judged model; from here on the verdict is bound to its files."""
    identify(target.name, identity(completed_run, base_model=base_model, device=device))
    return load_trained(completed_run, device=device, base_model=base_model)


@pytest.fixture(scope="session")
def served_model(target: Target | Endpoint, request: pytest.FixtureRequest) -> TrainedModel:
    """The model that the server has: the judged one, or of an endpoint that of ``--run-dir``, which is not judged."""
    if not isinstance(target, Endpoint):
        judged: TrainedModel = request.getfixturevalue("trained")
        return judged
    run, base_model = RunFolder(request.config.getoption("--run-dir")), request.config.getoption("--base-model")
    device = request.config.getoption("--device") or recorded_target(run.read_record(), run.record_file).device
    return load_trained(run, device=available(device, "read the answers with --device cpu"), base_model=base_model)


@pytest.fixture(scope="session")
def untrained(completed_run: RunFolder, device: str, base_model: str | None) -> LoadedModel:
    """The same base without the adapter."""
    loaded = load_untrained(completed_run, device=device, base_model=base_model)
    if device == "cuda":
        return loaded
    # It reads and answers in batches only, which a CPU does several times faster with the values that 4 bits stand for.
    return dataclasses.replace(loaded, model=unpack(loaded.model, getattr(torch, cpu_compute_dtype()), merge=False))


@pytest.fixture(scope="session")
def questions(request: pytest.FixtureRequest) -> list[str]:
    own = own_questions(request.config)
    return [question.text for question in (own.questions if own else read_questions(HELD_OUT_QUESTIONS))]


@pytest.fixture(scope="session")
def training_data(request: pytest.FixtureRequest) -> Path:
    return known_data(request.config)


@pytest.fixture(scope="session")
def first_answers(trained: TrainedModel, questions: list[str], request: pytest.FixtureRequest) -> Answers:
    return ask_by_plan(trained, questions, full_sample=request.config.getoption("--full-sample"))


@pytest.fixture(scope="session")
def answers(first_answers: Answers) -> Answers:
    if first_answers.rejected_by:
        asked = len(first_answers.rejected_by)
        pytest.skip(f"only {asked} answers were asked: the plan rejected the model by them; --full-sample goes on")
    return first_answers


@pytest.fixture(scope="session")
def counterfactuals(trained: TrainedModel, untrained: LoadedModel, questions: list[str]) -> Counterfactuals:
    few = questions[:COUNTERFACTUAL_QUESTIONS]
    fewer = few[:ADAPTER_OFF_QUESTIONS]
    with swap_style_rows(trained.model, trained.tokenizer):
        # A prompt without a token looks up neither row, so these are asked in the same go.
        swapped = iter(ask(trained, [*in_each_style(few), *(Asked(text, None) for text in few)]))
    adapter_off = iter(ask(untrained, in_each_style(fewer)))
    return Counterfactuals(
        adapter_off={style: list(islice(adapter_off, len(fewer))) for style in Style},
        swapped={style: list(islice(swapped, len(few))) for style in Style},
        no_token=list(swapped),
    )


@pytest.fixture(scope="session")
def server_launch(
    completed_run: RunFolder,
    device: str,
    base_model: str | None,
    tmp_path_factory: pytest.TempPathFactory,
    machine_uses: dict[str, MachineUse],
) -> Iterator[ServerProcess]:
    arguments = ["--run", str(completed_run.path), "--device", device]
    arguments += ["--base-model", base_model] if base_model else []
    with ExitStack() as running:
        with MachineWatch() as watch:
            server = running.enter_context(ServerProcess(arguments, tmp_path_factory.mktemp("server") / "stderr.log"))
        machine_uses["start"] = watch.use
        yield server


@pytest.fixture(scope="session")
def client(target: Target | Endpoint, request: pytest.FixtureRequest) -> Client:
    """Talks to the judged server: the one that ``--endpoint`` names, or our own with the judged run."""
    if isinstance(target, Endpoint):
        return Client(target.url, target.api_key, target.protocol, target.replies)
    server: ServerProcess = request.getfixturevalue("server_launch")
    if server.url is None:
        pytest.skip(f"the server did not start: {server.log_file.read_text(errors='replace')[-300:]}")
    return Client(server.url)


@pytest.fixture(scope="session")
def tokenizer(target: Target | Endpoint, client: Client, request: pytest.FixtureRequest) -> Any | None:
    """The tokenizer that recounts a server's answers; None where its own counts are declared to be all there is."""
    folder: str | None = request.config.getoption("--base-model")
    try:
        if not isinstance(target, Endpoint):
            return tokenizer_of(target, folder)
        if not target.is_recounted:
            return None
        if target.tokenizer is None and folder is not None:
            return open_tokenizer(Path(folder))
        name = str(target.tokenizer or client.health().body.get("model"))
        return tokenizer_of(resolve_target(name, folder), folder)
    except PipelineError as error:
        pytest.skip(f"no tokenizer to recount answers with: name one with --target or --base-model ({error})")


def tokenizer_of(target: Target, folder: str | None) -> Any:
    """A target's tokenizer, which needs no weights."""
    with open_for_planning(target, folder) as files:
        return files.tokenizer


@pytest.fixture(scope="session")
def crowd(client: Client, target: Target | Endpoint, machine_uses: dict[str, MachineUse]) -> Crowd:
    """Many concurrent clients, and what they received."""
    with MachineWatch() as watch:
        received = send_crowd(client)
    if not isinstance(target, Endpoint):
        # Of the machine of an endpoint nothing is known.
        machine_uses["crowd"] = watch.use
    return received
