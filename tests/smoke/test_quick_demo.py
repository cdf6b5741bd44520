"""``verbosity demo --quick`` of the wheel, in an empty folder without a checkout."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.smoke.wheel import without_checkout


@pytest.mark.slow
def test_the_wheel_brings_the_recordings(site: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "pipeline.cli", "demo", "--quick"]
    environment = without_checkout(PYTHONPATH=str(site))
    shown = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert shown.returncode == 0, shown.stdout + shown.stderr
    assert ["verdict", "ACCEPTED", "REJECTED"] in [line.split() for line in shown.stdout.splitlines()]
