"""What is judged, as chosen on the command line."""

from __future__ import annotations

import pytest

from pipeline.config import Target
from pipeline.errors import PipelineError
from pipeline.run_folder import RunFolder


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
