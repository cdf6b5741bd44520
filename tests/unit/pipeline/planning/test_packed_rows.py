"""Sizes of packed rows, and the plan made from them."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from pipeline.cli import main
from pipeline.config import GIB, TARGETS, resolve_preset
from pipeline.model.shapes import SHAPES
from pipeline.planning.devices import named_gpu
from pipeline.planning.memory_estimate import Needs
from pipeline.planning.packed_rows import plan_rows
from pipeline.planning.plan import make_plan

RESULTS = Path(__file__).resolve().parents[4] / "results"
MISTRAL = TARGETS["mistral-7b-v0.3"]
NEEDS = Needs(SHAPES[MISTRAL.name], resolve_preset("lean", MISTRAL), "cuda")
LENGTHS = [40, 200] * 32
DATA = {"length": LENGTHS, "prompt_length": [20] * 64, "style": ["terse", "verbose"] * 32}


def test_the_documented_bound_is_kept_on_a_larger_card() -> None:
    rows = plan_rows(NEEDS, DATA, 80 * GIB)
    assert rows.rows_per_window == 1
    assert 0 < rows.checkpointed_layers < 32
    assert 11 * GIB < sum(rows.components.values()) <= 12 * GIB


def test_less_memory_computes_more_layers_again_and_then_takes_shorter_rows() -> None:
    sizes = [plan_rows(NEEDS, DATA, int(gib * GIB)) for gib in (11, 9, 7.2, 6.6)]
    again = [(rows.rows_per_window, rows.checkpointed_layers) for rows in sizes]
    assert again == sorted(again)
    assert again[0][0] == 1 < again[-1][0]
    for rows, gib in zip(sizes, (11, 9, 7.2, 6.6), strict=True):
        assert sum(rows.components.values()) <= gib * GIB


def test_what_fits_nothing_is_planned_in_the_smallest_rows() -> None:
    rows = plan_rows(NEEDS, DATA, GIB)
    assert (rows.rows_per_window, rows.checkpointed_layers) == (16, 32)
    assert sum(rows.components.values()) > GIB


def test_every_row_of_the_run_is_counted_with_what_fills_it() -> None:
    rows = plan_rows(NEEDS, DATA, 80 * GIB)
    assert len(rows.row_tokens) == 4
    assert set(rows.row_tokens) <= set(rows.row_lengths)
    assert sum(rows.row_tokens) >= sum(LENGTHS)


def test_lean_is_planned_as_it_trains_on_a_gpu(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("VERBOSITY_CACHE", str(tmp_path))
    arguments = ["plan", "--target", "mistral-7b-v0.3-synthetic", "--preset", "lean", "--gpu"]
    assert main([*arguments, "h200"]) == 0
    output = capsys.readouterr().out
    assert re.search(r"1600 examples of at most \d+ tokens, 1 x \d+ tokens a step without padding, ", output)
    (peak,) = re.findall(r"^peak: ([\d.]+) GiB \(step\)", output, re.MULTILINE)
    assert 11 < float(peak) <= 12
    assert main([*arguments, "rtx-4060"]) == 0
    (again,) = re.findall(r"(\d+) of 32 layers computed again", capsys.readouterr().out)
    assert int(again) > 24


def test_golden_is_planned_with_padding() -> None:
    plan = make_plan(resolve_preset("golden", MISTRAL), SHAPES[MISTRAL.name], DATA, named_gpu("h200"))
    assert plan.step == "1 at a time"
    assert len(plan.phases) == 3


@pytest.mark.parametrize(("name", "run"), [("mistral-7b-v0.3-synthetic", "lean"), ("smollm2-135m", "lean")])
def test_the_recorded_packed_run_needs_what_was_planned(
    name: str, run: str, capsys: pytest.CaptureFixture[str]
) -> None:
    record = json.loads((RESULTS / name / "gpu" / run / "run.json").read_text(encoding="utf-8"))
    assert main(["plan", "--target", name, "--preset", "lean", "--gpu", "h200"]) == 0
    output = capsys.readouterr().out
    (peak,) = re.findall(r"^peak: ([\d.]+) GiB", output, re.MULTILINE)
    assert float(peak) == pytest.approx(record["peak_memory"]["cuda_driver_gib"], rel=0.1)
    (rate,) = re.findall(r"([\d.]+) examples/s", output)
    assert float(rate) == pytest.approx(record["examples_per_s"], rel=0.1)
