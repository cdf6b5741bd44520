"""Taking the peak of training apart; recorded on a GPU, on a CPU its steps only run."""

from __future__ import annotations

from pathlib import Path

import pytest

import pipeline.training
from benchmarks.gpu.memory import make_case, measure
from benchmarks.gpu.snapshot import LOSS_MODULE
from pipeline.config import PRESETS
from tests.support import TINY


@pytest.mark.slow
@pytest.mark.parametrize("preset", PRESETS)
def test_two_steps_of_a_case_run_through_the_real_trainer(preset: str, tiny_folder: Path, tmp_path: Path) -> None:
    case = make_case("512", preset, TINY, tiny_folder)
    assert [len(row["input_ids"]) for row in case.rows] == [512]
    assert measure(case, TINY, "cpu", None, tmp_path / "run")["peak_memory"]["rss_gib"] > 0
    assert len((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()) == 2


def test_the_losses_own_module_is_known_by_its_name() -> None:
    assert Path(pipeline.training.__path__[0], LOSS_MODULE).exists()
