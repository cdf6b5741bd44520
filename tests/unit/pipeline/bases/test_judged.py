"""The gate judges a base of the user's own, by its run or by its folder alone."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.files import sha256_of
from pipeline.target_file import TARGET_FILE
from tests.smoke.gate import acceptance, results
from tests.smoke.test_gate import JUDGED_QUICKLY, QUICK_FILES
from tests.tiny_bases import write_pairs
from tests.unit.pipeline.bases.conftest import Trained

MARKS = ("-m", "embedded and not snapshot")
EXPECTED = JUDGED_QUICKLY - {"deployment.generate_endpoint"}
"""Of random weights over single bytes an answer may be blank, which the endpoint's criterion rightly refuses."""


def outcomes(folder: Path, target: str) -> dict[str, str]:
    judged = results(folder, target)
    return {name: judged[name]["outcome"] for name in EXPECTED}


@pytest.mark.slow
def test_a_run_on_an_own_base_is_judged(trained_on: Callable[[str], Trained], tmp_path: Path) -> None:
    arguments = (*MARKS, f"--run-dir={trained_on('gpt_neox').run.path}", f"--acceptance-dir={tmp_path}")
    assert acceptance(*arguments, tests=QUICK_FILES) != 0
    assert outcomes(tmp_path, "own-gpt_neox") == dict.fromkeys(EXPECTED, "PASS")


@pytest.mark.slow
def test_an_own_base_is_trained_on_own_data_and_judged_within_its_own_limits(
    base_of: Callable[[str], Path], tmp_path: Path
) -> None:
    folder = base_of("gemma2")
    settings = (folder / TARGET_FILE).read_text()
    file = tmp_path / "limited.toml"
    file.write_text(f"peak_memory_limit_gib = 0.01\n{settings}")
    arguments = (*MARKS, f"--target={file}", f"--base-model={folder}", f"--acceptance-dir={tmp_path / 'judged'}")
    data = write_pairs(tmp_path / "own.jsonl")
    assert acceptance(*arguments, f"--data={data}", tests=("test_training.py",)) == 10
    judged = results(tmp_path / "judged", "own-gemma2")
    assert judged["training.adapter_saves"]["outcome"] == "PASS"
    assert judged["training.gpu_memory"]["outcome"] == "FAIL"
    (subject,) = json.loads((tmp_path / "judged" / "acceptance.json").read_text())["subjects"]
    assert subject["identity"]["data_sha256"] == sha256_of(data)
