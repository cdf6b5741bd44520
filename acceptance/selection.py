"""What is judged, as chosen on the command line."""

from __future__ import annotations

import pytest

from pipeline.config import Target
from pipeline.errors import PipelineError
from pipeline.run_folder import RunFolder
from pipeline.targets import recorded_target, resolve_target

DEFAULT_TARGETS = ("mistral-7b-v0.3", "smollm2-135m")
"""What an acceptance run means if nothing is named: the models whose weights are real."""


def judged_targets(config: pytest.Config) -> list[Target]:
    """The targets that the options name: by ``--target``, else by the run or the base model of the user's own.

    Raises:
        pytest.UsageError: There is no such target, or the run or the target's file is damaged.
    """
    names, base_model, folder = (config.getoption(name) for name in ("--target", "--base-model", "--run-dir"))
    try:
        if not names and folder is not None:
            run = RunFolder(folder)
            return [recorded_target(run.read_record(), run.record_file)]
        if not names and base_model:
            return [resolve_target(None, base_model)]
        return [resolve_target(name, base_model) for name in dict.fromkeys(names or DEFAULT_TARGETS)]
    except PipelineError as error:
        raise pytest.UsageError(str(error)) from error


def given_run(config: pytest.Config, target: Target) -> RunFolder | None:
    """The run that ``--run-dir`` names, or None.

    Raises:
        pytest.UsageError: There is no run in it, or it is not the run of this target and preset.
    """
    folder = config.getoption("--run-dir")
    if folder is None:
        return None
    run, preset = RunFolder(folder), config.getoption("--preset")
    try:
        record = run.read_record()
    except PipelineError as error:
        raise pytest.UsageError(f"--run-dir: {error}") from error
    if record["target"] != target.name:
        raise pytest.UsageError(f"--run-dir: a run of {record['target']}, not of {target.name}")
    if preset not in (None, record["preset"]["name"]):
        raise pytest.UsageError(f"--run-dir: trained with preset {record['preset']['name']}, not with {preset}")
    return run


def judged_preset(config: pytest.Config, target: Target) -> str:
    """The training preset of what is judged: the given run's, the chosen one, or the target's default."""
    run = given_run(config, target)
    if run is not None:
        trained_with: str = run.read_record()["preset"]["name"]
        return trained_with
    return config.getoption("--preset") or ("golden" if target.device == "cuda" else "lean")
