"""Joins the harness and the pipeline, which do not know each other: options, targets and the golden environment."""

from __future__ import annotations

import importlib.metadata
import re
from pathlib import Path

import pytest

from pipeline.cli import apply_environment
from pipeline.config import PRESETS, TARGETS, Target

apply_environment()  # before any test module imports torch

pytest_plugins = ["harness.plugin", "pytester"]

DEFAULT_TARGETS = ("mistral-7b-v0.3", "smollm2-135m")
"""What an acceptance run means without ``--target``: the models whose weights are real."""


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("pipeline", "what the acceptance tests run on")
    group.addoption("--target", action="append", choices=tuple(TARGETS), help="base model; may be repeated")
    group.addoption("--device", choices=("cpu", "cuda"), help="where to run (default: the target's own)")
    group.addoption(
        "--preset", choices=tuple(PRESETS), help="training preset (default: golden on CUDA, lean on the CPU)"
    )
    group.addoption("--run-dir", type=Path, help="accept this finished training run instead of training one")
    group.addoption("--base-model", help="folder of Mistral's weights (or VERBOSITY_BASE_MODEL)")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "gpu: acceptance on a CUDA device")
    config.addinivalue_line("markers", "embedded: acceptance of a target that runs on the CPU")
    config.addinivalue_line("markers", "golden: compares with outputs recorded in golden/ on the same kind of machine")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Give every test that asks for ``target`` one run per selected target, marked by the device it needs."""
    if "target" not in metafunc.fixturenames:
        return
    names = metafunc.config.getoption("--target") or DEFAULT_TARGETS
    device = metafunc.config.getoption("--device")
    parameters = [_parameter(TARGETS[name], device or TARGETS[name].device) for name in dict.fromkeys(names)]
    metafunc.parametrize("target", parameters, scope="session")


def _parameter(target: Target, device: str) -> object:
    subject = pytest.mark.subject(
        name=target.name,
        learned=target.learned,
        thresholds={"training.gpu_memory/peak_memory_gib": target.peak_memory_limit_gib},
    )
    marker = pytest.mark.gpu if device == "cuda" else pytest.mark.embedded
    return pytest.param(target, id=target.name, marks=[subject, marker])


def pytest_golden_environment(config: pytest.Config) -> str:
    """Kind of machine and library versions within which greedy outputs repeat exactly."""
    import torch

    target_is_gpu = config.getoption("--device") == "cuda" or "gpu" in str(config.getoption("-m"))
    if target_is_gpu and torch.cuda.is_available():
        hardware = torch.cuda.get_device_name(0)
    else:
        hardware = f"cpu-{torch.backends.cpu.get_cpu_capability()}-{torch.get_num_threads()}threads"
    versions = [f"{name}{importlib.metadata.version(name).partition('+')[0]}" for name in ("torch", "transformers")]
    return re.sub(r"[^A-Za-z0-9.]+", "-", "-".join([hardware, *versions])).lower()
