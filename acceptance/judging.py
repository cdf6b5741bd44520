"""The suite's pytest plugin: criteria, options, targets and the kind of machine; joins the harness and the pipeline."""

from __future__ import annotations

import importlib.metadata
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from acceptance.client import Endpoint
from acceptance.criteria import DOCUMENTED
from acceptance.own_questions import own_questions, question_scope
from acceptance.protocols import PROTOCOLS
from acceptance.selection import chosen_endpoint, judged_preset, judged_targets
from harness.arguments import FolderOption
from harness.criteria_set import CriteriaSet
from harness.provenance import cpu_kind
from harness.report.document import portable_arguments
from pipeline.config import PRESETS, TARGETS, Target
from pipeline.data.formats import read_questions
from pipeline.doctor.findings import Finding, Report
from pipeline.doctor.packages import GOLDEN_PINS
from pipeline.environment import apply_environment
from pipeline.files import HELD_OUT_QUESTIONS, sha256_of

apply_environment()  # before any test module imports torch

_DOCTOR: pytest.StashKey[dict[str, object]] = pytest.StashKey()


def pytest_acceptance_criteria() -> CriteriaSet:
    """The documented criteria."""
    return DOCUMENTED


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add what is judged, and where."""
    group = parser.getgroup("pipeline", "what the acceptance tests run on")
    group.addoption(
        "--target",
        action="append",
        metavar="NAME|FILE.toml",
        help=f"base model: {', '.join(TARGETS)}, or a file that describes your own; may be repeated (default: that of "
        "--run-dir or --base-model, else those with real weights)",
    )
    group.addoption("--device", choices=("cpu", "cuda"), help="where to run (default: the target's own)")
    group.addoption(
        "--preset", choices=tuple(PRESETS), help="training preset (default: golden for Mistral, lean for smaller ones)"
    )
    group.addoption(
        "--run-dir",
        action=FolderOption,
        type=Path,
        metavar="DIR",
        help="accept this finished training run instead of training one; with --endpoint the run that the server is"
        " said to serve, whose model reads its answers",
    )
    group.addoption(
        "--base-model",
        action=FolderOption,
        metavar="DIR",
        help="folder of a base model of your own, or of Mistral's weights (or VERBOSITY_BASE_MODEL)",
    )
    group.addoption(
        "--full-sample",
        action="store_true",
        help="ask every question even of a model that the plan rejects early, so that every criterion is measured",
    )
    group.addoption(
        "--questions",
        action=FolderOption,
        type=Path,
        metavar="FILE",
        help='questions of your own to judge on instead of the shipped ones: one {"question": ...} a line',
    )
    group.addoption(
        "--data",
        action=FolderOption,
        type=Path,
        metavar="PATH",
        help="what to train on instead of the shipped data; with --run-dir or --endpoint what was trained on, which no"
        " question may be in",
    )
    group.addoption(
        "--endpoint",
        metavar="URL",
        help="judge this running server from outside (its key in VERBOSITY_API_KEY); --target or --base-model names the"
        " tokenizer that recounts its answers",
    )
    group.addoption(
        "--protocol",
        choices=PROTOCOLS,
        default=PROTOCOLS[0],
        help="how the endpoint is asked: POST /generate, or OpenAI's chat completions (default: %(default)s)",
    )
    group.addoption("--model", metavar="NAME", help="the endpoint's name for the model, with --protocol openai")
    group.addoption(
        "--styles",
        action=FolderOption,
        type=Path,
        metavar="FILE",
        help="TOML table of how each style is asked for, with --protocol openai (default: its token and a newline in"
        " front of the question)",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Refuse options that do not fit each other, and register the marks."""
    chosen_endpoint(config)
    own_questions(config)
    config.addinivalue_line("markers", "gpu: acceptance on a CUDA device")
    config.addinivalue_line("markers", "embedded: acceptance of a target that runs on the CPU")
    config.addinivalue_line("markers", "deployment: judges the server that --endpoint names")
    config.addinivalue_line("markers", "snapshot: compares with outputs recorded in golden/ on this kind of machine")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Parametrize every test that uses ``target`` over the selected targets, marked by the device they need."""
    if "target" not in metafunc.fixturenames:
        return
    asked = question_scope(metafunc.config)
    if endpoint := chosen_endpoint(metafunc.config):
        metafunc.parametrize("target", [_endpoint_parameter(endpoint, asked)], scope="session")
        return
    device = metafunc.config.getoption("--device")
    parameters = [_parameter(target, device or target.device, asked) for target in judged_targets(metafunc.config)]
    metafunc.parametrize("target", parameters, scope="session")


def _parameter(target: Target, device: str, asked: str) -> object:
    subject = pytest.mark.subject(
        name=target.name,
        learned=target.learned,
        thresholds={
            "training.gpu_memory/peak_memory_gib": target.peak_memory_limit_gib,
            "training.duration/duration_of_1600_examples_s": target.training_limit_s,
        },
        scope=asked,
    )
    marker = pytest.mark.gpu if device == "cuda" else pytest.mark.embedded
    return pytest.param(target, id=target.name, marks=[subject, marker])


def _endpoint_parameter(endpoint: Endpoint, asked: str) -> object:
    subject = pytest.mark.subject(
        name=endpoint.name,
        learned=True,
        access="endpoint",
        scope="; ".join(part for part in (endpoint.scope, asked) if part),
        out_of_scope=endpoint.out_of_scope,
    )
    return pytest.param(endpoint, id=endpoint.name, marks=[subject, pytest.mark.deployment])


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out the snapshots, which are of the shipped questions and data, where others were named."""
    if config.getoption("--questions") or config.getoption("--data"):
        compared = [item for item in items if item.get_closest_marker("snapshot")]
        items[:] = [item for item in items if item not in compared]
        config.hook.pytest_deselected(items=compared)


def pytest_collection_finish(session: pytest.Session) -> None:
    """Run the doctor before tests that judge take the machine's memory."""
    config, judges = session.config, any(item.get_closest_marker("criterion") for item in session.items)
    if judges and not config.getoption("collectonly") and not hasattr(config, "workerinput"):
        config.stash[_DOCTOR] = _examine(config)


def pytest_acceptance_provenance(config: pytest.Config) -> dict[str, object]:
    """The GPU, if any, the versions that the golden document pins, the questions, and what the doctor found.

    A process whose workers run the tests has collected none itself, so the doctor runs here.
    """
    import torch

    gpu = torch.cuda.get_device_name(0) if torch.cuda.is_available() else None
    if _DOCTOR not in config.stash:
        config.stash[_DOCTOR] = _examine(config)
    found: dict[str, object] = config.stash[_DOCTOR]
    endpoint = chosen_endpoint(config)
    asked = {} if endpoint is None else {"endpoint": {**endpoint.protocol.describe(), **endpoint.spent()}}
    return {"gpu": gpu, "golden_pins": dict(GOLDEN_PINS), "questions": _questions(config), **asked, **found}


def _questions(config: pytest.Config) -> dict[str, object]:
    """Which questions were asked, the shipped ones too, so that answers can be told apart by them."""
    if own := own_questions(config):
        return own.describe()
    shipped = {"file": HELD_OUT_QUESTIONS.name, "sha256": sha256_of(HELD_OUT_QUESTIONS)}
    return {**shipped, "count": len(read_questions(HELD_OUT_QUESTIONS))}


def _examine(config: pytest.Config) -> dict[str, object]:
    """The doctor's report without absolute paths, from its own process: it creates a CUDA context."""
    if config.getoption("--endpoint"):
        return {}  # another machine is judged
    command = [sys.executable, "-m", "pipeline.cli", "doctor", "--json"]
    finished = subprocess.run(command, cwd=config.rootpath, capture_output=True, text=True, check=False)
    try:
        report = json.loads(finished.stdout)
    except ValueError:
        detail = f"ended with status {finished.returncode} and no report"
        report = Report((Finding("doctor", "FAIL", detail, "run verbosity doctor"),)).describe()
    return {"doctor": _without_paths(report, config.rootpath)}


def _without_paths(value: Any, root: Path) -> Any:
    if isinstance(value, dict):
        return {name: _without_paths(entry, root) for name, entry in value.items()}
    if isinstance(value, list):
        return [_without_paths(entry, root) for entry in value]
    return portable_arguments([value], root)[0] if isinstance(value, str) else value


def pytest_snapshot_environment(config: pytest.Config, subject: str) -> str:
    """Kind of machine and library versions within which outputs are reproducible, and their preset."""
    import torch

    target = next(target for target in judged_targets(config) if target.name == subject)
    if (config.getoption("--device") or target.device) == "cuda" and torch.cuda.is_available():
        hardware = torch.cuda.get_device_name(0)
    else:
        capability, threads = torch.backends.cpu.get_cpu_capability(), torch.get_num_threads()
        hardware = f"cpu-{cpu_kind()}-{capability}-{threads}threads"
    versions = [f"{name}{importlib.metadata.version(name).partition('+')[0]}" for name in ("torch", "transformers")]
    parts = [hardware, *versions, judged_preset(config, target)]
    return re.sub(r"[^A-Za-z0-9.]+", "-", "-".join(parts)).lower()
