"""Judging a run again without its model: from the answers that it kept, else from the figures that it recorded.

Nothing that is missing looks better than before. What did not run stays so; a test that failed outside its bounds stays
failed; a criterion that the run did not test is NOT_RUN; a measure that was not recorded violates its bound.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from harness.answers import Answer, read_answers
from harness.criteria import Bound, Criterion, Need
from harness.criteria_set import CriteriaSet
from harness.installed import installed_criteria
from harness.recorder import Recorder
from harness.report.document import Judged, build
from harness.report.schema import DOCUMENT_NAME, read_document
from harness.results import verdict_files
from harness.seal import document_digest, key_from_environment, measured_value, seal_complaints
from harness.subject import Subject
from harness.verdict import CriterionResult, Outcome, judge, worst

_BOUND_FIELDS = ("measure", "comparison", "threshold", "unit", "confidence")
_NOT_FINITE = ("nan", "inf", "-inf")
_NOT_ASKED = "the run did not measure it: it did not apply to the subject by the criteria of then"


class JudgeAgainError(ValueError):
    """Results cannot be judged again."""


@dataclass
class JudgedAgain:
    """A new judgement.

    Attributes:
        document: The new document, whose ``judged_again_from`` names the old one.
        answers: Content of each subject's file of kept answers.
        sealed: Whether the old document agrees with a sealed verdict for each subject with an identity; without, an
            edited document could be sealed by judging it again.
        notes: What a reader should know, a line each.
    """

    document: dict[str, Any]
    answers: dict[str, str]
    sealed: bool
    notes: list[str] = field(default_factory=list)


def judge_again(results: Path, set_name: str | None = None) -> JudgedAgain:
    """Decide about the subjects of a run again.

    Args:
        results: ``acceptance.json`` of the run, or its folder.
        set_name: Name of the installed set of criteria to judge by; None takes the one that the document names.

    Raises:
        DocumentError: The document cannot be read.
        AnswersError: The kept answers are missing, edited, or of another subject or identity.
        JudgeAgainError: The set is not installed, the document contradicts its sealed verdict, or the answers cannot be
            measured.
        ValueError: A figure of the document contradicts itself.
    """
    file = results / DOCUMENT_NAME if results.is_dir() else results
    source = read_document(file)
    name = set_name or source.get("criteria_set")
    if name is None:
        raise JudgeAgainError(f"{file}: names no set of criteria; name one with --criteria")
    try:
        judging = _Judging(installed_criteria(name))
    except LookupError as error:
        raise JudgeAgainError(str(error)) from error
    sealed = _agrees_with_verdicts(file.parent, source, judging.notes)
    answers: dict[str, str] = {}
    judged = []
    for subject in source["subjects"]:
        answers[subject["name"]], kept = read_answers(file.parent, subject)
        judged.append(judging.subject(subject, kept))
    document = build(
        judging.criteria,
        judged,
        source["subjects_not_selected"],
        source["goldens"],
        source["provenance"],
        source["pytest_arguments"],
    )
    document["judged_again_from"] = {
        "document_sha256": document_digest(source),
        "criteria_set": source.get("criteria_set", "unknown"),
        "criteria_version": source["criteria_version"],
        "from_answers": judging.from_answers,
        "from_measurements": judging.from_measurements,
    }
    return JudgedAgain(document, answers, sealed, judging.notes)


def _agrees_with_verdicts(folder: Path, source: Mapping[str, Any], notes: list[str]) -> bool:
    sealed = True
    for name, subject in verdict_files(source).items():
        file = folder / name
        if not file.is_file():
            notes.append(f"{subject['name']}: {name} is not beside the document, so no verdict is sealed")
            sealed = False
            continue
        try:
            verdict = json.loads(file.read_text(encoding="utf-8"))
            algorithm = verdict["seal"]["algorithm"]
        except (OSError, ValueError, LookupError, TypeError) as error:
            raise JudgeAgainError(f"{file}: is no verdict ({error}); restore it") from error
        if algorithm == "hmac-sha256" and key_from_environment() is None:
            notes.append(f"{subject['name']}: {name} has a key that is not here, so no verdict is sealed")
            sealed, complaints = False, []
        else:
            complaints = seal_complaints(verdict)
        if verdict.get("document_sha256") != document_digest(source):
            complaints.append(f"document_sha256: not that of {DOCUMENT_NAME}")
        if complaints:
            raise JudgeAgainError(f"{file}: {'; '.join(complaints)}; restore the files of that run")
    return sealed


@dataclass
class _Judging:
    criteria: CriteriaSet
    from_answers: list[str] = field(default_factory=list)
    from_measurements: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def subject(self, described: Mapping[str, Any], kept: Mapping[str, Sequence[Answer]]) -> Judged:
        name, entries = described["name"], {entry["id"]: entry for entry in described["criteria"]}
        known = {f"{each.id}/{bound.measure}" for each in self.criteria.values() for bound in each.bounds}
        thresholds = {key: value for key, value in described["thresholds"].items() if key in known}
        declared = described.get("out_of_scope_reasons", {}).items()
        out_of_scope = {key: reason for key, reason in declared if key in known or key in self.criteria}
        scope = described.get("scope", "")
        subject = Subject(name, described["learned"], thresholds, described["access"], out_of_scope, scope)
        self.criteria.check(subject)
        own = {
            id_: _recorded(entry)
            for id_, entry in entries.items()
            if not entry["documented"] and id_ not in self.criteria
        }
        asked = {**self.criteria.asked_of(subject), **own}
        if left_out := [id_ for id_ in entries if id_ not in asked]:
            self.notes.append(f"{name}: not in the set {self.criteria.name}: {', '.join(left_out)}")
        tests = [
            (test["nodeid"], self._test(subject, asked[id_], entry, test, kept.get(test["nodeid"], ())))
            for id_, entry in entries.items()
            if id_ in asked
            for test in entry["tests"]
        ]
        return Judged(subject, tuple(asked.values()), tests, described["identity"], described.get("answers", {}))

    def _test(
        self,
        subject: Subject,
        criterion: Criterion,
        entry: Mapping[str, Any],
        test: Mapping[str, Any],
        answers: Sequence[Answer],
    ) -> CriterionResult:
        timed = self.criteria.excusable(criterion.id, entry.get("timed", ()))
        recorded = CriterionResult(
            criterion.id,
            Outcome(test["outcome"]),
            test["reason"],
            {name: _value(value) for name, value in test["measurements"].items()},
            subject.bounds(criterion),
            attachments=tuple(entry["attachments"]),
            tables=tuple(entry["tables"]),
            timed=timed,
            cases=entry.get("cases", {}),
            answers=tuple(answers),
        )
        if recorded.outcome is Outcome.NOT_RUN:
            return recorded
        if recorded.outcome is Outcome.NOT_APPLICABLE:
            can_show = subject.can_show(criterion)
            return replace(recorded, outcome=Outcome.NOT_RUN, reason=_NOT_ASKED) if can_show else recorded
        measured = self._measured(subject, recorded)
        early = self.criteria.early_of(criterion.id, recorded.bounds)
        decided = judge(criterion, subject, measured.measurements, timed, early)
        result = replace(measured, outcome=decided.outcome, reason=decided.reason, violated=decided.violated)
        by_figures = judge(_recorded(entry), subject, recorded.measurements, entry.get("timed", ()))
        if (recorded.outcome, recorded.reason) == (by_figures.outcome, by_figures.reason):
            return result
        # It failed outside its bounds, which no bound makes up for.
        return worst([replace(result, outcome=recorded.outcome, reason=recorded.reason), result])

    def _measured(self, subject: Subject, recorded: CriterionResult) -> CriterionResult:
        id_ = recorded.criterion_id
        named, compute = f"{subject.name}: {id_}", self.criteria.from_answers.get(id_)
        if compute is None or not recorded.answers:
            self._log(self.from_measurements, named)
            return recorded
        again = Recorder()
        try:
            again.record(**compute(recorded.answers))
        except Exception as error:  # of a foreign function, or of answers that it does not expect
            raise JudgeAgainError(
                f"{named}: the set {self.criteria.name} cannot measure the kept answers"
                f" ({type(error).__name__}: {error}); run the acceptance again"
            ) from error
        self._log(self.from_answers, named)
        for name, value in again.measurements.items():
            if name in recorded.measurements and recorded.measurements[name] != value:
                self.notes.append(f"{named}: {name} was {recorded.measurements[name]}, from the answers it is {value}")
        return replace(
            recorded,
            measurements={**recorded.measurements, **again.measurements},
            cases={**recorded.cases, **again.cases},
        )

    def _log(self, names: list[str], name: str) -> None:
        if name not in names:
            names.append(name)


def _recorded(entry: Mapping[str, Any]) -> Criterion:
    """The criterion as it was in force; one of which no bound applied needs weights that the subject has not."""
    bounds = tuple(Bound(**{name: bound[name] for name in _BOUND_FIELDS}) for bound in entry["bounds"])
    needs = () if bounds else (Need.LEARNED_WEIGHTS,)
    return Criterion(entry["id"], entry["sentence"], bounds or (Bound("applies", "==", True),), entry["source"], needs)


def _value(value: Any) -> object:
    return float(value) if value in _NOT_FINITE else measured_value(value)
