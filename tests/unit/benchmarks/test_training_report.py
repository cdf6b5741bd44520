from __future__ import annotations

from typing import Any

import pytest

from benchmarks.training_report import draw, summarise, to_markdown
from benchmarks.training_variants import PRESET_NAMES, VARIANTS
from pipeline.config import PRESETS


def run(variant: str, examples: int, examples_per_s: float, peak_rss_gib: float) -> dict[str, Any]:
    return {
        "extra_info": {
            "variant": variant,
            "examples": examples,
            "examples_per_s": examples_per_s,
            "tokens_per_s": 100 * examples_per_s,
            "peak_rss_gib": peak_rss_gib,
            "adapter_mib": 20.0 if variant == "lean" else 200.0,
            "held_out_nats_per_token": 3.0 if variant in PRESET_NAMES else None,
            "matmul_gflop_per_s": 400.0,
        }
    }


RUNS = [
    run("golden", 64, 0.5, 4.0),
    run("lean", 64, 1.5, 2.0),
    run("golden", 64, 0.7, 4.2),
    run("lean", 64, 1.8, 2.0),
    run("golden", 32, 0.4, 4.0),
    run("golden, no upcast", 32, 0.5, 3.0),
]


def test_each_variant_is_compared_with_golden_on_as_many_examples() -> None:
    rows = {(row["variant"], row["examples"]): row for row in summarise(RUNS)}
    lean = rows["lean", 64]
    assert lean["speed_ratio"] == pytest.approx(1.65 / 0.6)
    assert lean["memory_ratio"] == pytest.approx(2.0 / 4.1)
    assert lean["adapter_ratio"] == pytest.approx(0.1)
    assert lean["gflop_per_s"] == pytest.approx(165 * 4 * 0.106168320)
    assert rows["golden, no upcast", 32]["speed_ratio"] == pytest.approx(1.25)


def test_the_table_and_the_figure_name_every_lever() -> None:
    document = {"rows": summarise(RUNS)}
    table, drawn = to_markdown(document), draw(document)
    assert "| lean" in table
    assert "64 (median of 2)" in table
    assert "70 of 400" in table
    assert table.count("3.000") == 3
    assert "golden, no upcast (32)" in drawn


def test_each_lever_changes_one_thing_of_golden() -> None:
    golden = PRESETS["golden"].describe()
    for name, preset in VARIANTS.items():
        if not name.startswith("golden,"):
            continue
        described = preset.describe()
        changed = {
            f"{part}.{field}"
            for part in ("quantization", "adapter", "training")
            for field, value in described[part].items()
            if value != golden[part][field]
        }
        batching = {"training.micro_batch_size", "training.accumulation_steps", "training.stratify_windows"}
        assert len(changed) == 1 or changed == batching, name
        assert preset.training.window_examples == 16
