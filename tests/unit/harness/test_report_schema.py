"""The published schema accepts what the gate writes and names what breaks it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from acceptance.criteria import DOCUMENTED
from harness.report.changes import changes_since
from harness.report.document import Judged, build
from harness.report.html import write_report
from harness.report.schema import DocumentError, read_document, schema, validate
from harness.statistics import Proportion
from harness.subject import Subject
from harness.verdict import judge
from tests.unit.harness.report_documents import accepted_document, rejected_document

Document = dict[str, Any]


def first_criterion(document: Document) -> Any:
    return document["subjects"][0]["criteria"][0]


def test_the_schema_is_one() -> None:
    jsonschema.Draft202012Validator.check_schema(schema())


def test_complete_documents_are_valid() -> None:
    validate(accepted_document())
    validate(rejected_document())
    validate({**rejected_document(), "changes": changes_since(accepted_document(), rejected_document())})
    validate({**rejected_document(), "changes": changes_since({"schema_version": 1}, rejected_document())})


def test_a_document_without_a_doctor_is_valid_and_reported(tmp_path: Path) -> None:
    document = accepted_document()
    del document["provenance"]["doctor"]
    validate(document)
    write_report(document, tmp_path)
    assert "octor" not in (tmp_path / "report.md").read_text(encoding="utf-8")
    assert "octor" not in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_what_the_gate_builds_is_valid() -> None:
    subject = Subject("small", learned=True, thresholds={"training.gpu_memory/peak_memory_gib": 6.0})
    criteria = tuple(DOCUMENTED.values())
    measured: dict[str, dict[str, object]] = {
        "style.consistency": {"ordered_question_share": Proportion(19, 20), "token_effect_low_tokens": float("nan")},
        "training.gpu_memory": {"peak_memory_gib": 2.5},
    }
    tests = [(f"t.py::{id_}", judge(DOCUMENTED[id_], subject, values)) for id_, values in measured.items()]
    golden = {"nodeid": "t.py::g", "subject": "small", "state": "NO_GOLDEN", "detail": ""}
    provenance = accepted_document()["provenance"]
    document = build(
        DOCUMENTED, [Judged(subject, criteria, tests, {"adapter_sha256": "9c" * 32})], [], [golden], provenance, ["-q"]
    )
    validate(document)
    assert document["schema_version"] == schema()["properties"]["schema_version"]["const"]


@pytest.mark.parametrize(
    ("damage", "place"),
    [
        (lambda d: d.update(extra=1), "document"),
        (lambda d: d.pop("goldens"), "document"),
        (lambda d: d.update(decision="MAYBE"), "decision"),
        (lambda d: d["subjects"][0].pop("access"), "subjects[0]"),
        (lambda d: first_criterion(d).update(outcome="OK"), "subjects[0].criteria[0].outcome"),
        (lambda d: first_criterion(d)["bounds"][1].update(state="?"), "subjects[0].criteria[0].bounds[1].state"),
        (lambda d: first_criterion(d)["bounds"][0].update(holds=True), "subjects[0].criteria[0].bounds[0]"),
        (lambda d: first_criterion(d)["measurements"].update(x=None), "subjects[0].criteria[0].measurements.x"),
        (
            lambda d: first_criterion(d)["attachments"][0].update(kind="pie"),
            "subjects[0].criteria[0].attachments[0].kind",
        ),
        (lambda d: d["goldens"][0].update(state="SAME"), "goldens[0].state"),
        (lambda d: d["provenance"].pop("cpu_model"), "provenance"),
        (
            lambda d: d["provenance"]["doctor"]["findings"][0].update(level="GOOD"),
            "provenance.doctor.findings[0].level",
        ),
        (lambda d: d["provenance"].update(doctor=None), "provenance.doctor"),
        (lambda d: d.update(criteria_version="short"), "criteria_version"),
    ],
)
def test_what_breaks_the_schema_is_named(damage: Callable[[Document], object], place: str) -> None:
    document = accepted_document()
    damage(document)
    with pytest.raises(DocumentError) as caught:
        validate(document)
    assert str(caught.value).startswith(f"{place}: ")


def test_another_version_is_refused_by_its_number() -> None:
    with pytest.raises(ValueError, match="schema_version is 1, expected 2: repeat that run"):
        validate({**accepted_document(), "schema_version": 1})


def test_a_document_is_read_from_file_or_folder(tmp_path: Path) -> None:
    path = tmp_path / "acceptance.json"
    path.write_text(json.dumps(accepted_document()), encoding="utf-8")
    assert read_document(path) == read_document(tmp_path) == accepted_document()


@pytest.mark.parametrize(
    ("content", "complaint"),
    [(None, "No such file"), ("{", "Expecting"), ("[]", "is not of type 'object'"), ('{"a": NaN}', "NaN is not JSON")],
)
def test_unreadable_documents_are_named(content: str | None, complaint: str, tmp_path: Path) -> None:
    path = tmp_path / "acceptance.json"
    if content is not None:
        path.write_text(content, encoding="utf-8")
    with pytest.raises(DocumentError, match=complaint) as caught:
        read_document(path)
    assert str(path) in str(caught.value)
