"""Runs the acceptance under one fault: ``pytest -p sabotage.plugin --fault NAME ...``."""

from __future__ import annotations

import sys

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--fault", required=False, help="name of the fault to inject")


@pytest.hookimpl(tryfirst=True)
def pytest_load_initial_conftests(early_config: pytest.Config) -> None:
    """Break the pipeline before any conftest imports a function of it by name."""
    name = early_config.known_args_namespace.fault
    from pipeline.environment import apply_environment

    apply_environment()
    from acceptance import processes
    from sabotage.faults import FAULTS

    fault = FAULTS[name]
    if fault.inject:
        fault.inject()
        processes.VERBOSITY[:] = [sys.executable, "-m", "sabotage.cli", name]
