"""What importing costs, and what no module may hold; who may import whom is in .importlinter (`make lint`)."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PIPELINE = sorted((ROOT / "pipeline").rglob("*.py"))
HARNESS = sorted((ROOT / "harness").rglob("*.py"))
ACCEPTANCE = sorted((ROOT / "acceptance").rglob("*.py"))


@pytest.mark.parametrize("path", [*PIPELINE, *HARNESS, *ACCEPTANCE], ids=lambda path: f"{path.parent.name}.{path.stem}")
def test_modules_stay_small(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 300


def test_importing_the_command_line_loads_no_torch() -> None:
    heavy = ("torch", "transformers", "flask")
    script = f"import sys, pipeline.cli, pipeline.doctor.examine; print([m for m in {heavy} if m in sys.modules])"
    finished = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=ROOT)
    assert finished.stdout.strip() == "[]"


def test_importing_the_server_loads_no_torch() -> None:
    """It listens before the model is there."""
    script = "import sys, pipeline.service.server; print('torch' in sys.modules)"
    finished = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=ROOT)
    assert finished.stdout.strip() == "False"


def test_remote_code_and_pickled_weights_are_never_allowed() -> None:
    for path in PIPELINE:
        text = path.read_text(encoding="utf-8")
        assert "trust_remote_code=True" not in text
        assert "torch.load" not in text
