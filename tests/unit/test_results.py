"""What the committed results hold: each is of its schema, from a commit, and adds up from its own raw figures."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from benchmarks import engine_agreement, recipes, serving_load, training_report
from benchmarks.data_curve import EXAMPLE_COUNTS, choose, summarise
from benchmarks.gpu.memory import CASES
from harness.report.schema import validate
from pipeline.config import TARGETS
from pipeline.files import TRAINING_DATA, sha256_of
from pipeline.run_folder import RunFolder

RESULTS = Path(__file__).resolve().parents[2] / "results"
MODEL, SHAPE = RESULTS / "smollm2-135m", RESULTS / "mistral-7b-v0.3-synthetic"
ACCEPTANCES = sorted(path.parent for path in RESULTS.glob("**/acceptance.json"))
DOCUMENTS = sorted(path for path in RESULTS.glob("**/*.json") if path.name != "run.json")


def read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def below(path: Path) -> str:
    return path.relative_to(RESULTS).as_posix()


def criteria(folder: Path) -> dict[str, dict[str, Any]]:
    (subject,) = read(folder / "acceptance.json")["subjects"]
    return {criterion["id"]: criterion for criterion in subject["criteria"]}


def provenances(value: Any) -> Iterator[dict[str, Any]]:
    if isinstance(value, dict):
        if "git_dirty" in value:
            yield value
        for entry in value.values():
            yield from provenances(entry)
    elif isinstance(value, list):
        for entry in value:
            yield from provenances(entry)


@pytest.mark.parametrize("path", DOCUMENTS, ids=below)
def test_each_result_is_from_committed_code(path: Path) -> None:
    found = list(provenances(read(path)))
    assert found or path.name == "check.json"  # whose figures are made again by its own test
    assert not any(provenance["git_dirty"] for provenance in found)
    assert all(len(provenance["git_commit"]) == 40 for provenance in found)


@pytest.mark.parametrize("folder", ACCEPTANCES, ids=below)
def test_each_acceptance_is_of_the_schema(folder: Path) -> None:
    validate(read(folder / "acceptance.json"))


@pytest.mark.parametrize("folder", [each for each in ACCEPTANCES if "endpoints" not in each.parts], ids=below)
def test_each_acceptance_judged_the_run_beside_it(folder: Path) -> None:
    run, judged = RunFolder(folder), criteria(folder)
    record = run.read_record()
    measured = judged["training.duration"]["measurements"]
    assert record["examples_per_s"] == measured["examples_per_s"]
    steps = judged["training.completes"]["measurements"]["step_count"]
    assert len(run.read_metrics()) == record["completed_steps"] == steps


@pytest.mark.parametrize(
    ("folder", "decision", "not_passed"),
    [
        (MODEL / "acceptance", "ACCEPTED", set()),
        (MODEL / "gpu" / "lean", "ACCEPTED", set()),
        (MODEL / "endpoints" / "vllm-tuned", "ACCEPTED", set()),
        (MODEL / "endpoints" / "vllm-untuned", "REJECTED", {"FAIL", "UNDECIDED"}),
        (MODEL / "endpoints" / "transformers-tuned", "REJECTED", {"FAIL"}),
        (MODEL / "endpoints" / "transformers-swapped", "REJECTED", {"FAIL"}),
        (MODEL / "endpoints" / "llama-tuned", "REJECTED", {"FAIL", "NOT_RUN"}),
        (MODEL / "endpoints" / "llama-swapped", "REJECTED", {"FAIL"}),
        (MODEL / "gpu" / "golden", "REJECTED", {"FAIL", "UNDECIDED"}),
        *((SHAPE / "gpu" / name, "INCOMPLETE", {"NOT_APPLICABLE"}) for name in ("golden", "lean")),
        *((MODEL / "gpu" / "held-out" / seed, "INCOMPLETE", {"NOT_RUN", "UNDECIDED"}) for seed in ("42", "43", "44")),
    ],
    ids=lambda value: below(value) if isinstance(value, Path) else None,
)
def test_the_verdicts_are_those_that_the_pages_speak_of(folder: Path, decision: str, not_passed: set[str]) -> None:
    assert read(folder / "acceptance.json")["decision"] == decision
    assert {criterion["outcome"] for criterion in criteria(folder).values()} - {"PASS"} == not_passed


@pytest.mark.parametrize("folder", [each for each in ACCEPTANCES if "endpoints" in each.parts], ids=below)
def test_the_style_of_a_server_fails_if_and_only_if_a_wrong_model_stands_behind_it(folder: Path) -> None:
    is_wrong = not folder.name.endswith("-tuned")
    outcomes = {name: criterion["outcome"] for name, criterion in criteria(folder).items()}
    assert outcomes["style.token_separation"] == ("FAIL" if is_wrong else "PASS")
    assert is_wrong or all(outcome == "PASS" for name, outcome in outcomes.items() if name.startswith("style."))


def test_every_acceptance_is_among_these() -> None:
    assert len(ACCEPTANCES) == 14


def test_the_curve_is_of_the_shipped_data() -> None:
    document = read(MODEL / "curve" / "curve.json")
    assert [point["examples"] for point in document["points"]] == [0, *EXAMPLE_COUNTS]
    for point in document["points"]:
        assert point.items() >= json.loads(json.dumps(summarise(point["answers"]))).items()
    assert {point["data_sha256"] for point in document["points"][1:]} == {sha256_of(TRAINING_DATA)}
    assert document["chosen_examples"] == choose(document["points"])


def test_the_demo_follows_the_recipe_with_the_fewest_bad_answers() -> None:
    chosen = recipes.RECIPES[recipes.choose(read(MODEL / "recipes" / "recipes.json")["runs"])]
    assert TARGETS["smollm2-135m"].lean.items() >= chosen.items()


def test_the_benchmarks_rows_are_those_of_its_runs() -> None:
    document = read(MODEL / "bench" / "bench.json")
    assert document["rows"] == training_report.summarise([{"extra_info": run} for run in document["runs"]])


@pytest.mark.parametrize("name", ["held-out", "in-turn", "gpu/held-out"])
def test_the_presets_were_compared_on_all_shipped_examples(name: str) -> None:
    for run in read(MODEL / name / "held_out.json")["runs"]:
        assert run["examples"] + run["held_out_examples"] == 1600
        assert run["data_sha256"] == sha256_of(TRAINING_DATA)


def test_the_rows_of_serving_are_those_of_its_cells() -> None:
    document = read(MODEL / "serving" / "serving.json")
    assert document["rows"] == serving_load.summarise(document["cells"])


@pytest.mark.parametrize("folder", [MODEL / "serving", MODEL / "gpu"], ids=below)
def test_the_engines_answers_are_the_models(folder: Path) -> None:
    assert engine_agreement.disagreements(read(folder / "agreement.json")["ways"]) == []


def test_nothing_was_mixed_up_under_overload() -> None:
    for engine in read(MODEL / "serving" / "overload.json")["engines"].values():
        assert engine["mixed_up"] == engine["other_ids"] == 0


def test_the_generated_requests_add_up() -> None:
    document = read(RESULTS / "abuse" / "abuse.json")
    assert sum(row["requests"] for row in document["rows"]) == document["requests"] > 10_000
    assert {row["status"] for row in document["rows"] if row["status"] >= 500 and row["by"] != "troubled"} == set()


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("preset", ["golden", "lean"])
def test_the_recorded_blocks_add_up_to_the_peak(preset: str, case: str) -> None:
    measured = read(SHAPE / "gpu" / f"memory-{preset}-{case}.json")["measured"]
    peak = measured["peak_memory"]
    assert sum(measured["components_gib"].values()) == pytest.approx(peak["cuda_driver_gib"], rel=1e-3)
    assert measured["allocated_gib"] == pytest.approx(peak["cuda_allocated_gib"], rel=1e-3)


def test_a_sharded_run_is_that_of_one_gpu() -> None:
    runs = {path.name: RunFolder(path) for path in (RESULTS / "tiny-mistral" / "fsdp").iterdir()}
    rows = {name: run.read_metrics() for name, run in runs.items()}
    for one, many in zip(rows["one"], rows["sharded"], strict=True):
        assert many["loss"] == pytest.approx(one["loss"], abs=1e-3)
        assert many["grad_norm"] == pytest.approx(one["grad_norm"], rel=0.005)
    records = {name: run.read_record() for name, run in runs.items()}
    assert records["stopped"]["resumed_from"] == "checkpoint-2"
    for straight, other in (("sharded", "stopped"), ("one", "ddp")):
        assert records[straight]["adapter"]["sha256"] == records[other]["adapter"]["sha256"]
