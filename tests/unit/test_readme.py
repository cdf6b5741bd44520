"""The README says what the committed result files say."""

from __future__ import annotations

import json
import re
from pathlib import Path

from benchmarks import training_report
from benchmarks.data_curve import EXAMPLE_COUNTS, choose, draw, summarise, to_markdown
from harness.documented_criteria import DOCUMENTED
from harness.report.table import table_markdown
from pipeline.config import TARGETS
from pipeline.data.formats import FORMATS, find_sources, read_examples
from pipeline.files import TRAINING_DATA, sha256_of

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
RESULT = ROOT / "results" / "smollm2-135m" / "acceptance" / "acceptance.json"


def test_the_table_is_the_committed_acceptance() -> None:
    document = json.loads(RESULT.read_text(encoding="utf-8"))
    table = [line for line in table_markdown(document).splitlines() if line.startswith("|")]
    assert len(table) == 2 + 17
    assert "\n".join(table) in README
    assert document["decision"] == "ACCEPTED"
    assert document["provenance"]["git_dirty"] is False


def test_the_criteria_are_counted() -> None:
    own = "two of the project's own"
    assert f"each of {len(DOCUMENTED)} documented success criteria, and {own}" in " ".join(README.split())


def test_the_worst_cases_are_the_committed_ones() -> None:
    (subject,) = json.loads(RESULT.read_text(encoding="utf-8"))["subjects"]
    measured = {criterion["id"]: criterion["measurements"] for criterion in subject["criteria"]}[
        "style.token_separation"
    ]
    longest, shortest = measured["terse_worst_tokens"], measured["verbose_worst_tokens"]
    assert f"longest TERSE answer had {longest} tokens and the shortest VERBOSE answer {shortest}." in README


def test_the_figures_of_the_gate_are_the_committed_ones() -> None:
    matrix = json.loads((ROOT / "results" / "sabotage" / "matrix.json").read_text(encoding="utf-8"))
    accepted = matrix["healthy_count"] - matrix["false_reject_count"]
    assert f"caught\n{matrix['caught_count']} of {matrix['fault_count']} faults" in README
    assert f"accepted {accepted} of {matrix['healthy_count']} healthy runs" in README
    assert matrix["criteria_without_fault"] == matrix["faults_not_run"] == []


def test_the_curve_is_the_committed_one_and_the_demo_follows_it() -> None:
    folder = ROOT / "results" / "smollm2-135m" / "curve"
    document = json.loads((folder / "curve.json").read_text(encoding="utf-8"))
    table = (folder / "curve.md").read_text(encoding="utf-8")
    assert table == to_markdown(document)
    assert table in README
    assert (folder / "curve.svg").read_text(encoding="utf-8") == draw(document)
    assert document["provenance"]["git_dirty"] is False
    assert [point["examples"] for point in document["points"]] == [0, *EXAMPLE_COUNTS]
    for point in document["points"]:
        assert point.items() >= json.loads(json.dumps(summarise(point["answers"]))).items()
    assert {point["data_sha256"] for point in document["points"][1:]} == {sha256_of(TRAINING_DATA)}
    assert document["chosen_examples"] == choose(document["points"])
    assert TARGETS["smollm2-135m"].lean["max_examples"] == document["chosen_examples"]


def test_the_training_benchmark_is_the_committed_one() -> None:
    folder = ROOT / "results" / "smollm2-135m" / "bench"
    document = json.loads((folder / "bench.json").read_text(encoding="utf-8"))
    table = (folder / "bench.md").read_text(encoding="utf-8")
    assert table == training_report.to_markdown(document)
    assert table in README
    assert (folder / "bench.svg").read_text(encoding="utf-8") == training_report.draw(document)
    assert document["rows"] == training_report.summarise([{"extra_info": run} for run in document["runs"]])
    assert document["provenance"]["git_dirty"] is False


def test_the_shown_formats_are_the_ones_that_are_read(tmp_path: Path) -> None:
    rows = re.findall(r"^\| ([a-z ]+) \| `(\{.*\})` \|$", README, flags=re.MULTILINE)
    assert [name for name, _ in rows] == [known.name for known in FORMATS]
    for number, (_, row) in enumerate(rows):
        (tmp_path / f"{number}.jsonl").write_text(row, encoding="utf-8")
    assert [source.format.name for source in find_sources(tmp_path)] == [name for name, _ in rows]
    assert [example.style for example in read_examples(tmp_path)] == ["terse", "verbose", "terse", "verbose"]


def test_the_figures_of_large_data_are_the_committed_ones() -> None:
    document = json.loads((ROOT / "results" / "data" / "large_data.json").read_text(encoding="utf-8"))
    first, last = document["points"][0], document["points"][-1]
    assert f"{last['examples']:,} made-up examples ({last['file_mib']:.0f} MiB)" in README
    assert f"read in {last['reading_s']:.0f} s" in README
    grown_mib = last["peak_rss_mib"] - first["peak_rss_mib"]
    assert f"peak of {last['peak_rss_mib']:.0f} MiB, {grown_mib:.0f} MiB more than {first['examples']:,}" in README


def test_every_link_leads_to_a_file() -> None:
    links = re.findall(r"\]\(([^)#:]+)\)", README)
    assert links
    for link in links:
        assert (ROOT / link).exists(), link
