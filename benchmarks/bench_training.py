"""``make bench``: speed and memory of training the embedded target with each preset, and with each lever alone.

The presets alternate, so that a slow minute of the machine affects both. pytest collects this file only by name.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks import matmul
from benchmarks.training_variants import HELD_OUT_FILE, PRESET_NAMES, VARIANTS
from pipeline.run_folder import RunFolder

LEVER_EXAMPLES = 32
ROUNDS = 2


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """The presets alternating, then golden and every other variant once on few examples."""
    examples = metafunc.config.getoption("--bench-examples")
    turns = [(name, examples) for _ in range(ROUNDS) for name in PRESET_NAMES]
    turns += [(name, LEVER_EXAMPLES) for name in VARIANTS if name != "lean"]
    metafunc.parametrize(("variant", "examples"), turns)


@pytest.fixture(scope="session")
def matmul_gflop_per_s() -> float:
    return matmul.matmul_gflop_per_s()


def test_training(benchmark: Any, variant: str, examples: int, tmp_path: Path, matmul_gflop_per_s: float) -> None:
    command = [sys.executable, "-m", "benchmarks.training_variants", variant, str(examples), str(tmp_path)]
    benchmark.pedantic(subprocess.run, args=(command,), kwargs={"check": True}, rounds=1)
    record = RunFolder(tmp_path).read_record()
    benchmark.extra_info.update(
        variant=variant,
        examples=examples,
        training_s=record["duration_s"],
        examples_per_s=record["examples_per_s"],
        tokens_per_s=record["tokens"] / record["duration_s"],
        peak_rss_gib=record["peak_memory"]["rss_gib"],
        adapter_mib=record["adapter"]["size_bytes"] / (1 << 20),
        held_out_nats_per_token=_held_out(tmp_path / HELD_OUT_FILE),
        matmul_gflop_per_s=matmul_gflop_per_s,
        compute_dtype=record["preset"]["quantization"]["compute_dtype"],
    )


def _held_out(path: Path) -> float | None:
    return float(json.loads(path.read_text(encoding="utf-8"))) if path.exists() else None
