"""The README says what the committed result files say."""

from __future__ import annotations

import json
import re
from pathlib import Path

from harness.report import table_markdown

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
RESULT = ROOT / "golden" / "smollm2-135m" / "acceptance" / "acceptance.json"


def test_the_table_is_the_committed_acceptance() -> None:
    document = json.loads(RESULT.read_text(encoding="utf-8"))
    table = [line for line in table_markdown(document).splitlines() if line.startswith("|")]
    assert len(table) == 2 + 13
    assert "\n".join(table) in README
    assert document["decision"] == "ACCEPTED"
    assert document["provenance"]["git_dirty"] is False


def test_the_worst_cases_are_the_committed_ones() -> None:
    (subject,) = json.loads(RESULT.read_text(encoding="utf-8"))["subjects"]
    measured = {criterion["id"]: criterion["measurements"] for criterion in subject["criteria"]}[
        "style.token_separation"
    ]
    longest, shortest = measured["terse_worst_tokens"], measured["verbose_worst_tokens"]
    assert f"longest TERSE answer had {longest} tokens and the shortest VERBOSE answer {shortest}." in README


def test_every_link_leads_to_a_file() -> None:
    links = re.findall(r"\]\(([^)#:]+)\)", README)
    assert links
    for link in links:
        assert (ROOT / link).exists(), link
