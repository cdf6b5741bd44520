"""The gate in a process of its own."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.forked import run_pytest

ROOT = Path(__file__).resolve().parents[2]
ACCEPTANCE = "acceptance"


def acceptance(*arguments: str, tests: Sequence[str] = ()) -> int:
    """Exit status of an acceptance run, of some of its test files or of all."""
    files = [f"{ACCEPTANCE}/{name}" for name in tests] or [ACCEPTANCE]
    return run_pytest(*files, "-q", *arguments, cwd=ROOT).returncode


def results(folder: Path, target: str) -> dict[str, Any]:
    """What an acceptance run decided of a target, by criterion."""
    document = json.loads((folder / "acceptance.json").read_text())
    (subject,) = [subject for subject in document["subjects"] if subject["name"] == target]
    return {criterion["id"]: criterion for criterion in subject["criteria"]}
