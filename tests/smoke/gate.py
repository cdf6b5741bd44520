"""The gate in a process of its own, as a user starts it."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
ACCEPTANCE = "acceptance"


def acceptance(*arguments: str, tests: Sequence[str] = ()) -> int:
    """Exit status of an acceptance run, of some of its test files or of all."""
    files = [f"{ACCEPTANCE}/{name}" for name in tests] or [ACCEPTANCE]
    command = [sys.executable, "-m", "pytest", *files, "-q", "-p", "no:cacheprovider", *arguments]
    return subprocess.run(command, cwd=ROOT, check=False, capture_output=True, text=True).returncode


def results(folder: Path, target: str) -> dict[str, Any]:
    """What an acceptance run decided of a target, by criterion."""
    document = json.loads((folder / "acceptance.json").read_text())
    (subject,) = [subject for subject in document["subjects"] if subject["name"] == target]
    return {criterion["id"]: criterion for criterion in subject["criteria"]}
