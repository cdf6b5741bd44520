"""The README, docs/gpu.md and docs/fsdp.md say what the committed results of the GPU runs say."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks import engine_agreement, serving_load
from benchmarks.gpu.memory import CASES
from benchmarks.gpu.summary import measured_rows, memory_rows, read_folder, to_markdown
from pipeline.run_folder import RunFolder

ROOT = Path(__file__).resolve().parents[3]
FOLDER = ROOT / "results" / "mistral-7b-v0.3-synthetic" / "gpu"
SMALL = ROOT / "results" / "smollm2-135m" / "gpu"
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGE = (ROOT / "docs" / "gpu.md").read_text(encoding="utf-8")
EMBEDDED = (ROOT / "docs" / "gpu-embedded.md").read_text(encoding="utf-8")
PROSE = " ".join(EMBEDDED.split())


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
    folder = RunFolder(FOLDER / preset)
    run = folder.read_record()
    (subject,) = found[f"accept-{preset}"]["subjects"]
    measured = {criterion["id"]: criterion["measurements"] for criterion in subject["criteria"]}
    assert run["examples_per_s"] == measured["training.duration"]["examples_per_s"]
    assert len(folder.read_metrics()) == run["completed_steps"] == measured["training.completes"]["step_count"]


def test_the_embedded_model_was_accepted_on_the_gpu_that_the_pages_name() -> None:
    found = read_folder(SMALL)
    assert (SMALL / "gpu.md").read_text(encoding="utf-8") == to_markdown(found)
    document = found["accept-lean"]
    (subject,) = document["subjects"]
    outcomes = [criterion["outcome"] for criterion in subject["criteria"]]
    assert (document["decision"], set(outcomes)) == ("ACCEPTED", {"PASS"})
    for page in (README, EMBEDDED):
        assert document["provenance"]["gpu"] in page
        assert f"all {len(outcomes)} criteria" in page
    measured = {criterion["id"]: criterion["measurements"] for criterion in subject["criteria"]}
    rate, reserved_gib = measured["training.duration"]["examples_per_s"], measured["training.gpu_memory"]
    assert f"{rate:.2f} examples/s and {reserved_gib['cuda_reserved_gib']:.2f} GiB (reserved)" in EMBEDDED
    assert f"{measured['style.generation_speed']['tokens_per_s']:.1f} tokens/s" in EMBEDDED


def test_the_recorded_losses_are_those_of_the_accepted_run() -> None:
    (golden,) = (SMALL.parent).glob("nvidia-*-lean/test_snapshots/test_loss_of_every_step_*.json")
    losses = [row["loss"] for row in RunFolder(SMALL / "lean").read_metrics()]
    assert json.loads(golden.read_text(encoding="utf-8"))["value"] == losses
    assert f"loss of all {len(losses)} steps" in PROSE


def test_the_page_says_how_far_the_cut_run_came() -> None:
    run = RunFolder(FOLDER / "cut")
    rows, planned = run.read_metrics(), run.read_record()["planned_steps"]
    last = rows[-1]
    text = " ".join(PAGE.split())
    assert f"after {last['step']} of {planned} steps and {last['elapsed_s']:.0f} s" in text
    peaks = [max(row[name] for row in rows) for name in ("cuda_reserved_gib", "cuda_driver_gib")]
    assert f"reserved {peaks[0]:.2f} GiB ({peaks[1]:.2f} GiB by the driver)" in text


def test_the_embedded_model_was_rejected_with_golden_for_what_the_page_says() -> None:
    document = json.loads((SMALL / "golden" / "acceptance.json").read_text(encoding="utf-8"))
    (subject,) = document["subjects"]
    outcomes = {criterion["id"]: criterion["outcome"] for criterion in subject["criteria"]}
    assert (document["decision"], outcomes["style.token_separation"]) == ("REJECTED", "FAIL")
    assert f"{list(outcomes.values()).count('PASS')} criteria PASS. Golden's learning" in PROSE
    (separation,) = [c for c in subject["criteria"] if c["id"] == "style.token_separation"]
    share = separation["measurements"]["verbose_in_bound_share"]
    assert f"Of {share['trials']} unconstrained VERBOSE answers {share['successes']} have more" in PROSE


def test_the_page_says_how_a_gpu_holds_under_load() -> None:
    def slowest_s(folder: Path) -> float:
        document = json.loads((folder / "acceptance.json").read_text(encoding="utf-8"))
        assert document["provenance"]["git_dirty"] is False
        (subject,) = document["subjects"]
        (load,) = [c for c in subject["criteria"] if c["id"] == "deployment.under_load"]
        assert load["outcome"] == "PASS"
        latency_s: float = load["measurements"]["answer_latency_max_s"]
        return latency_s

    run = RunFolder(FOLDER / "under-load").read_record()
    assert f"1,600 examples at {run['examples_per_s']:.2f} examples/s: the slowest" in PROSE
    assert f"the slowest answer took {slowest_s(FOLDER / 'under-load'):.2f} s" in PROSE
    assert (
        f"trained with golden: {slowest_s(SMALL / 'golden'):.2f} s; with lean: {slowest_s(SMALL / 'lean'):.2f} s"
        in PROSE
    )


def test_the_tables_of_serving_are_those_of_the_files() -> None:
    served, agreed = (
        json.loads((SMALL / f"{name}.json").read_text(encoding="utf-8")) for name in ("serving", "agreement")
    )
    assert serving_load.to_markdown(served) in EMBEDDED
    assert engine_agreement.to_markdown(agreed["ways"]) in EMBEDDED
    assert engine_agreement.disagreements(agreed["ways"]) == []
    assert agreed["device"] in EMBEDDED


def test_a_sharded_run_is_that_of_one_gpu() -> None:
    folder = ROOT / "results" / "tiny-mistral" / "fsdp"
    folders = {path.name: RunFolder(path) for path in folder.iterdir()}
    runs = {name: run.read_record() for name, run in folders.items()}
    rows = {name: run.read_metrics() for name, run in folders.items()}
    pairs = list(zip(rows["one"], rows["sharded"], strict=True))
    page = (ROOT / "docs" / "fsdp.md").read_text(encoding="utf-8")
    assert f"to {max(abs(one['loss'] - many['loss']) for one, many in pairs):.1e}".replace("e-0", "e-") in page
    assert max(abs(many["grad_norm"] / one["grad_norm"] - 1) for one, many in pairs) < 0.005
    assert "gradient norms to 0.5 %" in page
    assert runs["stopped"]["resumed_from"] == "checkpoint-2"
    for straight, other in (("sharded", "stopped"), ("one", "ddp")):
        assert runs[straight]["adapter"]["sha256"] == runs[other]["adapter"]["sha256"]
