"""What the hosted workflows promise; `make lint` checks the rest of them with zizmor."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
TEXTS = {path.stem: path.read_text(encoding="utf-8") for path in WORKFLOWS}


@pytest.mark.parametrize("name", TEXTS)
def test_actions_are_pinned_by_commit_and_may_only_read(name: str) -> None:
    used = re.findall(r"uses: (\S+)(.*)", TEXTS[name])
    assert used
    for action, comment in used:
        assert re.fullmatch(r"[\w/-]+@[0-9a-f]{40}", action), action
        assert re.fullmatch(r" # v\d+\.\d+\.\d+", comment), action
    assert "\npermissions: {}\n" in TEXTS[name]
    assert set(re.findall(r"^ +(\w+): (?:read|write)$", TEXTS[name], flags=re.MULTILINE)) == {"contents"}
    assert ": write" not in TEXTS[name]


def test_smoke_runs_the_complete_suite_and_the_pins_on_every_supported_python() -> None:
    (make,) = re.findall(r"make: \[(.*)\]", TEXTS["smoke"])
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert make.split(", ") == ["test-all", "test-golden"]
    assert all(f"\n{target}:" in makefile for target in make.split(", "))
    (pythons,) = re.findall(r"python: \[(.*)\]", TEXTS["smoke"])
    oldest = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["requires-python"]
    assert pythons.replace('"', "").split(", ")[0] == oldest.removeprefix(">=")


def test_acceptance_judges_on_the_gpu_and_leaves_its_report() -> None:
    text = TEXTS["acceptance"]
    assert "runs-on: [self-hosted, linux, gpu]" in text
    assert "pytest -m gpu" in text
    assert 'report.md" >> "$GITHUB_STEP_SUMMARY"' in text
    assert text.count("if: always()") == 2
