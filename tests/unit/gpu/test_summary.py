from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from benchmarks.gpu.generation import summarise
from benchmarks.gpu.summary import generation_rows, measured_rows, memory_rows, read_folder, to_markdown, verdict_rows


def acceptance(reserved_gib: float, rate: float) -> dict[str, Any]:
    criteria = [
        {"id": "training.gpu_memory", "outcome": "PASS", "measurements": {"cuda_reserved_gib": reserved_gib}},
        {
            "id": "training.duration",
            "outcome": "PASS",
            "measurements": {"examples_per_s": rate, "duration_of_1600_examples_s": 1600 / rate},
        },
        {"id": "style.coherence", "outcome": "NOT_APPLICABLE", "measurements": {}},
    ]
    return {"decision": "INCOMPLETE", "subjects": [{"criteria": criteria}]}


PEAK = {
    "preset": "golden",
    "case": "data",
    "micro_batch": {"examples": 1, "longest_tokens": 300},
    "measured": {
        "allocated_gib": 9.0,
        "peak_memory": {"cuda_driver_gib": 10.0},
        "components_gib": {"adapter": 1.5, "other": 0.25},
    },
    "planned": {"peak_gib": 11.0, "components_gib": {"adapter": 1.25}},
}
FOUND = {"accept-golden": acceptance(10.0, 2.0), "accept-lean": acceptance(5.0, 6.0), "memory-golden-data": PEAK}


def test_each_figure_has_a_column_for_each_preset_and_their_ratio() -> None:
    rows = measured_rows(FOUND)
    assert ("peak memory reserved", "10.00 GiB", "5.00 GiB", "0.50") in rows
    assert ("training", "2.00 examples/s", "6.00 examples/s", "3.00") in rows
    assert ("1600 examples at that rate", "800 s", "267 s", "") in rows


def test_a_preset_that_was_not_run_leaves_its_column_empty() -> None:
    assert ("training", "2.00 examples/s", "", "") in measured_rows({"accept-golden": FOUND["accept-golden"]})


def test_what_does_not_apply_is_said() -> None:
    assert ("style.coherence", "NOT_APPLICABLE", "NOT_APPLICABLE") in verdict_rows(FOUND)


def test_the_plan_is_held_against_the_drivers_figure() -> None:
    assert memory_rows(FOUND) == [("golden, 1 x 300 tokens", "9.00 GiB", "10.00 GiB", "11.00 GiB", "+10.0%")]


def test_ways_are_compared_with_the_documented_one_and_a_failed_one_is_named() -> None:
    figures = summarise({"documented": [4.0, 5.0, 6.0], "graph": [1.0, 1.0, 2.0]}, tokens=100)
    assert figures["documented"]["tokens_per_s"] == 20.0
    assert figures["graph"]["ratio"] == 5.0
    ways = {**figures, "compiled": {"error": "RuntimeError: no"}}
    rows = generation_rows({"generation": {"ways": ways, "limit_tokens_per_s": 1000.0}})
    assert rows[1] == ("graph", "100.0", "5.00", "10.0%")
    assert rows[2][:2] == ("compiled", "failed")


def test_tables_without_results_are_left_out() -> None:
    assert to_markdown({}) == ""
    assert "## Generation" not in to_markdown(FOUND)


def test_the_folder_of_a_run_is_read_whole(tmp_path: Path) -> None:
    (tmp_path / "golden").mkdir()
    (tmp_path / "golden" / "acceptance.json").write_text(json.dumps(FOUND["accept-golden"]))
    (tmp_path / "memory-golden-data.json").write_text(json.dumps(PEAK))
    assert read_folder(tmp_path) == {"accept-golden": FOUND["accept-golden"], "memory-golden-data": PEAK}
