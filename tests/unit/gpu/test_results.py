"""The README and docs/gpu.md say what the committed results of the GPU run say."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.gpu.memory import CASES
from tests.gpu.summary import measured_rows, memory_rows, read_folder, to_markdown

ROOT = Path(__file__).resolve().parents[3]
FOLDER = ROOT / "golden" / "mistral-7b-v0.3-synthetic" / "gpu"
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGE = (ROOT / "docs" / "gpu.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def found() -> dict[str, Any]:
    return read_folder(FOLDER)


def tables(text: str) -> list[str]:
    return ["\n".join(part.splitlines()[2:]).strip() for part in text.split("## ")[1:]]


def test_every_table_is_that_of_the_files(found: dict[str, Any]) -> None:
    text = to_markdown(found)
    assert (FOLDER / "gpu.md").read_text(encoding="utf-8") == text
    assert len(tables(text)) == 5
    for table in tables(text):
        assert table in PAGE
    assert tables(text)[0] in README


def test_the_readme_names_the_devices_and_versions_of_the_files(found: dict[str, Any]) -> None:
    for name, document in found.items():
        provenance = document["provenance"]
        gpu = provenance["gpu"] if name.startswith("accept") else document["gpu"]["name"]
        assert gpu in README
        assert (
            f"torch {provenance['packages']['torch']} and transformers {provenance['packages']['transformers']}"
            in README
        )
        assert provenance["git_dirty"] is False


def test_the_figures_in_the_text_are_those_of_the_files(found: dict[str, Any]) -> None:
    off = [float(row[-1].rstrip("%")) for row in memory_rows(found)]
    assert f"off by {min(off):+.1f}% to {max(off):+.1f}% of the driver's figure" in README
    graph = found["generation"]["ways"]["static cache, CUDA graph"]
    share = graph["tokens_per_s"] / found["generation"]["limit_tokens_per_s"]
    assert f"{graph['ratio']:.2f} times the tokens per second of plain `generate()`, {share:.1%} of" in README
    assert f"together held {found['generation']['memory']['cuda_driver_gib']:.2f} GiB" in PAGE
    assert ("trained on", "640 examples", "1,600 examples", "") in measured_rows(found)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("preset", ["golden", "lean"])
def test_the_recorded_blocks_add_up_to_the_peak(found: dict[str, Any], preset: str, case: str) -> None:
    measured = found[f"memory-{preset}-{case}"]["measured"]
    assert sum(measured["components_gib"].values()) == pytest.approx(
        measured["peak_memory"]["cuda_driver_gib"], rel=1e-3
    )
    assert measured["allocated_gib"] == pytest.approx(measured["peak_memory"]["cuda_allocated_gib"], rel=1e-3)


@pytest.mark.parametrize("preset", ["golden", "lean"])
def test_the_committed_run_is_the_judged_one(found: dict[str, Any], preset: str) -> None:
    run = json.loads((FOLDER / preset / "run.json").read_text(encoding="utf-8"))
    (subject,) = found[f"accept-{preset}"]["subjects"]
    measured = {criterion["id"]: criterion["measurements"] for criterion in subject["criteria"]}
    assert run["examples_per_s"] == measured["training.duration"]["examples_per_s"]
    rows = (FOLDER / preset / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    assert len(rows) == run["completed_steps"] == measured["training.completes"]["step_count"]
