"""Everything one pytest run finds out about the criteria; does not import pytest."""

from __future__ import annotations

import json
import pickle
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.answers import answers_text, describe_answers
from harness.attestation import signer_from_environment
from harness.criteria import Criterion
from harness.criteria_set import CriteriaSet
from harness.files import write_text_atomically
from harness.subject import Subject
from harness.trial import Trial
from harness.verdict import EXIT_CODES, Decision, Outcome

if TYPE_CHECKING:
    from harness.report.document import Judged

LOST_WORKER = "a worker process crashed before it reported the outcome"

# pytest's codes for all passed, some failed, nothing collected. Interruption, internal error and misuse keep theirs.
_REPLACED_STATUSES = (0, 1, 5)
_TESTS_FAILED = 1


class AcceptanceSession:
    """All trials of one run, from collection to the written report."""

    def __init__(self, folder: Path, criteria: CriteriaSet) -> None:
        """Start a session that judges by ``criteria`` and writes into ``folder``.

        Raises:
            ValueError: The signing key that the environment names cannot be used.
        """
        self.folder = folder
        self.criteria = criteria
        self._signer = signer_from_environment()  # here, so that a bad key does not cost a long run its attestation
        self.trials: list[Trial] = []
        self.snapshots: list[dict[str, object]] = []
        self.identities: dict[str, dict[str, object]] = {}
        self.answers: dict[str, str] = {}
        self.document: dict[str, Any] | None = None
        self.exit_status: int | None = None
        self.lost_worker = False

    def add(self, nodeid: str, criterion: Criterion, subject: Subject) -> Trial:
        """Register a collected test.

        Raises:
            ValueError: Another test describes the same subject or criterion differently, or the criterion cannot be
                asked of this subject.
        """
        if not subject.in_scope(criterion):
            raise ValueError(f"{criterion.id} needs the model itself, and {subject.name} is only a running server")
        if self.criteria.get(criterion.id, criterion) != criterion:
            raise ValueError(f"{criterion.id} is in the set {self.criteria.name}; choose another id for your own")
        self.criteria.check(subject)
        for other in self.trials:
            if other.subject.name == subject.name and other.subject != subject:
                raise ValueError(f"subject {subject.name} is described differently by {other.nodeid}")
            if other.criterion.id == criterion.id and other.criterion != criterion:
                raise ValueError(f"criterion {criterion.id} is described differently by {other.nodeid}")
        trial = Trial(nodeid, criterion, subject, self.criteria)
        self.trials.append(trial)
        return trial

    def identify(self, subject: str, identity: Mapping[str, object]) -> None:
        """Name the artefact behind a subject, so that the verdict is bound to it.

        Raises:
            ValueError: The subject was identified as another artefact before.
            TypeError: A value of the identity cannot be written as JSON.
        """
        json.dumps(dict(identity))  # fails here, where it is given, and not at the end of a long run
        if self.identities.setdefault(subject, dict(identity)) != dict(identity):
            raise ValueError(f"{subject} changed while it was judged: its identity is not what it was before")

    @property
    def active(self) -> bool:
        """Whether any criterion test is going to run, so that there is something to decide."""
        return any(trial.selected for trial in self.trials)

    def untested(self) -> list[str]:
        """Return ``subject: criterion`` for each criterion of the set without a test of a collected subject."""
        tested = {(trial.subject.name, trial.criterion.id) for trial in self.trials}
        return [
            f"{subject.name}: {id_}"
            for subject in self._subjects()
            for id_ in self.criteria.asked_of(subject)
            if (subject.name, id_) not in tested
        ]

    def export(self) -> bytes:
        """Return the results of a worker process, for ``merge`` in the process that decides.

        Pickle is safe here: a parent reads what its own child wrote.
        """
        trials = [
            (
                trial.nodeid,
                trial.criterion,
                trial.subject.describe(),
                trial.selected,
                trial.result() if trial.concluded else None,
            )
            for trial in self.trials
        ]
        return pickle.dumps((self.criteria.name, self.criteria.version, trials, self.identities))

    def merge(self, exported: bytes) -> None:
        """Merge the results of a worker; what no worker concluded stays NOT_RUN.

        Raises:
            ValueError: The worker judged by other criteria.
        """
        name, version, trials, identities = pickle.loads(exported)
        if (name, version) != (self.criteria.name, self.criteria.version):
            raise ValueError(
                f"a worker judged by other criteria: {name} {version[:12]} there, {self.criteria.name}"
                f" {self.criteria.version[:12]} here; supply the set in the conftest.py of the root folder"
            )
        known = {trial.nodeid: trial for trial in self.trials}
        for nodeid, criterion, subject, selected, result in trials:
            trial = known.get(nodeid) or self.add(nodeid, criterion, Subject(**subject))
            trial.selected = trial.selected or selected
            if result is not None:
                trial.absorb(result)
        for name, identity in identities.items():
            try:
                self.identify(name, identity)
            except ValueError as error:
                self._fail_all(name, str(error))

    def _ordered_snapshots(self) -> list[dict[str, object]]:
        """By subject and test, since workers report in the order in which they finish."""
        subjects = [subject.name for subject in self._subjects()]

        def place(snapshot: Mapping[str, object]) -> tuple[int, str]:
            subject = snapshot["subject"]
            return subjects.index(str(subject)) if subject in subjects else len(subjects), str(snapshot["nodeid"])

        return sorted(self.snapshots, key=place)

    def _fail_all(self, subject: str, reason: str) -> None:
        for trial in self.trials:
            if trial.subject.name == subject:
                trial.absorb(replace(trial.result(), outcome=Outcome.FAIL, reason=reason))

    def conclude(self, status: int, provenance: Mapping[str, object], arguments: Sequence[str]) -> int:
        """Decide about every subject with a selected test, and return the run's exit status.

        Args:
            status: The status pytest would leave with.
            provenance: Origin of the results.
            arguments: Command-line arguments for the document, free of absolute paths.

        Returns:
            The decision's code in place of pytest's 0, 1 and 5; any other status is kept. A run that is
            ACCEPTED although pytest failed has a failing test that decides no criterion, and stays failed.
        """
        from harness.report import document

        if self.lost_worker:
            for trial in self.trials:
                if trial.selected and not trial.concluded:
                    trial.absorb(replace(trial.result(), reason=LOST_WORKER))
        names = {trial.subject.name for trial in self.trials if trial.selected}
        judged = [self._judged(subject) for subject in self._subjects() if subject.name in names]
        unselected = sorted({subject.name for subject in self._subjects()} - names)
        self.document = document.build(
            self.criteria, judged, unselected, self._ordered_snapshots(), provenance, arguments
        )
        decision = Decision(self.document["decision"])
        replaced = status in _REPLACED_STATUSES
        if decision is Decision.ACCEPTED and status == _TESTS_FAILED:
            replaced = False
        self.exit_status = EXIT_CODES[decision] if replaced else status
        return self.exit_status

    def _judged(self, subject: Subject) -> Judged:
        from harness.report.document import Judged, finite

        identity, tests = finite(self.identities.get(subject.name, {})), self._tests(subject)
        text = answers_text(subject.name, identity, ((nodeid, result.answers) for nodeid, result in tests))
        self.answers[subject.name] = text
        described = describe_answers(subject.name, text) if text else {}
        return Judged(subject, self._required(subject), tests, identity, described)

    def _subjects(self) -> list[Subject]:
        return list({trial.subject.name: trial.subject for trial in self.trials}.values())

    def _required(self, subject: Subject) -> tuple[Criterion, ...]:
        """The set's criteria in the subject's scope, then others that have a test of it."""
        tested = {trial.criterion.id: trial.criterion for trial in self.trials if trial.subject.name == subject.name}
        return tuple({**self.criteria.asked_of(subject), **tested}.values())

    def _tests(self, subject: Subject) -> list[tuple[str, Any]]:
        return [(trial.nodeid, trial.result()) for trial in self.trials if trial.subject.name == subject.name]

    def write(self) -> None:
        """Write the document and what belongs to it; an accepted one is kept to compare the next run with."""
        if self.document is None:
            raise RuntimeError("the session is not concluded")
        from harness.report.changes import changes_since
        from harness.results import document_text, write_results

        accepted = self.folder / "accepted.json"
        if accepted.is_file():
            self.document["changes"] = changes_since(_parsed(accepted), self.document)
        write_results(self.document, self.answers, self.folder, signer=self._signer)
        if self.document["decision"] == Decision.ACCEPTED:
            write_text_atomically(accepted, document_text(self.document))


def _parsed(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        content = None
    # A broken file must not stop this run's report, which says that the two cannot be compared.
    return content if isinstance(content, dict) else {}
