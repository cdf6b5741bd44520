"""The harness is developed and tested on machines that have neither torch nor transformers."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
# The marks that this checkout leaves out by default are those of the suite.
PLUGINS = (
    "-p",
    "blocks_torch",
    "-p",
    "syrupy",
    "-p",
    "harness.plugin",
    "-p",
    "acceptance.plugin",
    "-p",
    "no:cacheprovider",
)
BLOCKER = """
import sys

ABSENT = ("torch", "transformers", "peft", "accelerate", "bitsandbytes")


class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ABSENT:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


sys.meta_path.insert(0, Blocker())
assert not [name for name in ABSENT if name in sys.modules]
"""


def run_without_torch(folder: Path, *arguments: str) -> str:
    (folder / "blocks_torch.py").write_text(BLOCKER, encoding="utf-8")
    finished = subprocess.run(
        [sys.executable, "-m", "pytest", *PLUGINS, "-q", *arguments],
        cwd=ROOT,
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join((str(folder), str(ROOT))),
            "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert finished.returncode == 0, finished.stdout + finished.stderr
    return finished.stdout


def test_the_blocker_blocks(tmp_path: Path) -> None:
    probe = tmp_path / "test_probe.py"
    probe.write_text(
        "import pytest\ndef test_absent():\n    with pytest.raises(ModuleNotFoundError):\n        import torch\n",
        encoding="utf-8",
    )
    assert "1 passed" in run_without_torch(tmp_path, str(probe), "--rootdir", str(tmp_path), "-c", os.devnull)


def test_the_harness_needs_no_torch(tmp_path: Path) -> None:
    """All its tests are collected, and those of the verdict run."""
    assert " error" not in run_without_torch(tmp_path, "tests/unit/harness", "-k", "test_verdict")
