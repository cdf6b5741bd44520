"""What is read from the reports of pytest and coverage."""

from __future__ import annotations

import json

import pytest

from benchmarks.suite_durations import summarise_coverage, summarise_junit, summarise_log

JUNIT = """<testsuites><testsuite tests="3" failures="1" errors="0" skipped="0">
<testcase classname="tests.test_a" name="one" time="1.25"/>
<testcase classname="tests.test_b" name="two" time="2.0"/>
<testcase classname="tests.test_a" name="three" time="1.5"><failure/></testcase>
</testsuite></testsuites>"""


def test_the_slowest_files_come_first_and_failures_are_counted() -> None:
    found = summarise_junit(JUNIT)
    assert found["counts"] == {"tests": 3, "failures": 1, "errors": 0, "skipped": 0}
    assert list(found["slowest_files_s"].items()) == [("tests.test_a", 2.8), ("tests.test_b", 2.0)]


@pytest.mark.parametrize(
    "line", ["==== 3 failed, 9 passed in 1228.25s (0:20:28) ====", "3 failed, 9 passed in 1228.25s (0:20:28)"]
)
def test_the_last_line_of_a_log_is_read(line: str) -> None:
    earlier = "1 passed in 0.10s\n"
    assert summarise_log(f"{earlier}{line}\n") == {"counts": {"failed": 3, "passed": 9}, "duration_s": 1228.25}
    with pytest.raises(ValueError, match="no summary line"):
        summarise_log("killed")


def test_the_totals_of_coverage_are_taken() -> None:
    report = json.dumps({"totals": {"num_statements": 200, "missing_lines": 3, "percent_covered": 98.5}, "files": {}})
    assert summarise_coverage(report) == {"statement_count": 200, "missed_count": 3, "covered_percent": 98.5}
