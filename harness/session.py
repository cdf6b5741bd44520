"""What one pytest run learns about the documented criteria; free of pytest itself."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from harness.criteria import DOCUMENTED, Criterion
from harness.files import write_text_atomically
from harness.report import document, page
from harness.verdict import (
    EXIT_CODES,
    NOT_REACHED,
    RANDOM_WEIGHTS,
    CriterionResult,
    Decision,
    Outcome,
    Subject,
    judge,
    worst,
)

ATTACHMENT_KINDS = ("series", "distribution", "latency")
XFAIL_REASON = "xfail is not an acceptance"
UNFINISHED_REASON = "interrupted before its teardown ended"

# pytest's all passed, some failed, nothing collected. Interruption, internal error and misuse keep theirs.
_REPLACED_STATUSES = (0, 1, 5)
_TESTS_FAILED = 1


class Measured:
    """What one test measured: named values, and samples for the report's figures."""

    def __init__(self) -> None:
        """Start with nothing measured."""
        self.measurements: dict[str, object] = {}
        self.attachments: list[dict[str, object]] = []

    def record(self, **measures: object) -> None:
        """Record measured values under their measure names.

        Args:
            measures: Booleans, integers, floats or strings; numpy scalars are converted.

        Raises:
            ValueError: A measure was recorded before.
            TypeError: A value is of another type.
        """
        for name, value in measures.items():
            if name in self.measurements:
                raise ValueError(f"{name} was recorded twice")
            scalar = value.item() if isinstance(value, np.generic) else value
            if not isinstance(scalar, bool | int | float | str):
                raise TypeError(f"{name}: a measured value is a scalar, got {type(value).__name__}")
            self.measurements[name] = scalar

    def attach(self, name: str, *, kind: str, values: Sequence[float], unit: str, label: str) -> None:
        """Attach a sample that the report draws.

        Attachments of one name share a figure, one series a label.

        Args:
            name: Name of the figure.
            kind: `series` (against the step), `distribution` (histogram) or `latency` (box and points).
            values: The sample, shape (n,), n >= 1.
            unit: Unit of the values. Bounds of the same unit are drawn as threshold lines.
            label: Name of this sample in the legend.

        Raises:
            ValueError: The kind is unknown, there are no values, the label is taken, or kind or unit
                differ from an earlier attachment of the same name.
        """
        if kind not in ATTACHMENT_KINDS:
            raise ValueError(f"unknown kind {kind!r}, expected one of {', '.join(ATTACHMENT_KINDS)}")
        if len(values) == 0:
            raise ValueError(f"{name}: no values to attach")
        for other in self.attachments:
            if other["name"] == name and other["label"] == label:
                raise ValueError(f"{name}: {label} was attached twice")
            if other["name"] == name and (other["kind"], other["unit"]) != (kind, unit):
                raise ValueError(f"{name}: one figure has one kind and one unit")
        numbers = [float(value) for value in values]
        self.attachments.append({"name": name, "kind": kind, "values": numbers, "unit": unit, "label": label})


@dataclass
class Trial:
    """One test of one criterion on one subject, and what happened to it."""

    nodeid: str
    criterion: Criterion
    subject: Subject
    measured: Measured = field(default_factory=Measured)
    judged: CriterionResult | None = None
    selected: bool = False
    torn_down: bool = False
    properties: list[tuple[str, object]] = field(default_factory=list)
    _results: list[CriterionResult] = field(default_factory=list)

    def judge(self) -> CriterionResult:
        """Decide the criterion from what the body recorded before it returned."""
        decided = judge(self.criterion, self.subject, self.measured.measurements)
        self.judged = self._result(decided.outcome, decided.reason, decided.violated)
        return self.judged

    def observe(self, when: str, outcome: str, detail: str, xfail: bool) -> str | None:
        """Take note of one finished phase; a conclusion never gets better, so a re-run hides nothing.

        Args:
            when: `setup`, `call` or `teardown`.
            outcome: pytest's `passed`, `failed` or `skipped`.
            detail: The exception or skip reason in one line.
            xfail: Whether the test expects to fail, in whatever form.

        Returns:
            A message when the phase must be reported as failed whatever pytest made of it.
        """
        self.torn_down = when == "teardown"
        judged = self.judged if when == "call" else None
        if xfail:
            self._conclude(Outcome.FAIL, XFAIL_REASON)
            return XFAIL_REASON
        if judged is not None and judged.outcome is not Outcome.PASS:
            self._results.append(judged)
            return f"{self.criterion.id}: {judged.reason}"
        if outcome == "skipped":
            applies = self.subject.can_show(self.criterion)
            self._conclude(Outcome.NOT_RUN if applies else Outcome.NOT_APPLICABLE, detail)
        elif outcome == "failed":
            failed = {
                "setup": (Outcome.NOT_RUN, f"setup failed: {detail}"),
                "teardown": (Outcome.FAIL, f"teardown failed: {detail}"),
            }
            self._conclude(*failed.get(when, (Outcome.FAIL, detail)))
        elif judged is not None:
            self._results.append(judged)
        return None

    def result(self) -> CriterionResult:
        """Return the gravest conclusion; NOT_RUN when the test never ran to its end."""
        if not self._results:
            return self._result(Outcome.NOT_RUN, NOT_REACHED)
        if not self.torn_down:
            return worst([*self._results, self._result(Outcome.NOT_RUN, UNFINISHED_REASON)])
        return worst(self._results)

    def describe(self) -> list[tuple[str, object]]:
        """Return the criterion, its outcome so far and every measurement as JUnit properties."""
        outcome = worst(self._results) if self._results else self._result(Outcome.NOT_RUN, NOT_REACHED)
        return [
            ("criterion", self.criterion.id),
            ("subject", self.subject.name),
            ("outcome", str(outcome.outcome)),
            ("reason", outcome.reason),
            *((f"measured.{name}", value) for name, value in self.measured.measurements.items()),
        ]

    @property
    def not_applicable_reason(self) -> str | None:
        """Why the body need not run, or None when it must."""
        return None if self.subject.can_show(self.criterion) else RANDOM_WEIGHTS

    def _conclude(self, outcome: Outcome, reason: str) -> None:
        self._results.append(self._result(outcome, reason))

    def _result(self, outcome: Outcome, reason: str, violated: tuple[str, ...] = ()) -> CriterionResult:
        return CriterionResult(
            self.criterion.id,
            outcome,
            reason,
            dict(self.measured.measurements),
            self.subject.bounds(self.criterion),
            violated,
            tuple(self.measured.attachments),
        )


class AcceptanceSession:
    """All trials of one run, from collection to the written report."""

    def __init__(self, folder: Path) -> None:
        """Start a session that writes into `folder`."""
        self.folder = folder
        self.trials: list[Trial] = []
        self.document: dict[str, object] | None = None
        self.exit_status: int | None = None

    def add(self, nodeid: str, criterion_id: str, subject: Subject) -> Trial:
        """Register a collected test.

        Raises:
            ValueError: Another test describes the same subject differently.
        """
        for other in self.trials:
            if other.subject.name == subject.name and other.subject != subject:
                raise ValueError(f"subject {subject.name} is described differently by {other.nodeid}")
        trial = Trial(nodeid, DOCUMENTED[criterion_id], subject)
        self.trials.append(trial)
        return trial

    @property
    def active(self) -> bool:
        """Whether any criterion test is going to run, so that there is something to decide."""
        return any(trial.selected for trial in self.trials)

    def untested(self) -> list[str]:
        """Return `subject: criterion` for each documented criterion without a test of a collected subject."""
        tested = {(trial.subject.name, trial.criterion.id) for trial in self.trials}
        names = dict.fromkeys(trial.subject.name for trial in self.trials)
        return [f"{name}: {id_}" for name in names for id_ in DOCUMENTED if (name, id_) not in tested]

    def conclude(self, status: int, provenance: Mapping[str, object], arguments: Sequence[str]) -> int:
        """Decide about every subject of which a test was selected, and return the run's exit status.

        Args:
            status: The status pytest would leave with.
            provenance: Origin of the results.
            arguments: Command-line arguments for the document, free of absolute paths.

        Returns:
            The decision's code in place of pytest's 0, 1 and 5; any other status is kept. A run that is
            ACCEPTED although pytest failed had a failing test that is no criterion, and stays failed.
        """
        judged = {trial.subject.name for trial in self.trials if trial.selected}
        results: dict[Subject, list[tuple[str, CriterionResult]]] = {}
        for subject in {trial.subject.name: trial.subject for trial in self.trials}.values():
            if subject.name in judged:
                mine = [trial for trial in self.trials if trial.subject.name == subject.name]
                results[subject] = [(trial.nodeid, trial.result()) for trial in mine]
        unselected = sorted({trial.subject.name for trial in self.trials} - judged)
        self.document = document.build(results, unselected, provenance, arguments)
        decision = Decision(str(self.document["decision"]))
        replaced = status in _REPLACED_STATUSES
        if decision is Decision.ACCEPTED and status == _TESTS_FAILED:
            replaced = False
        self.exit_status = EXIT_CODES[decision] if replaced else status
        return self.exit_status

    def write(self) -> None:
        """Write `acceptance.json` and the report of the concluded session."""
        if self.document is None:
            raise RuntimeError("the session is not concluded")
        text = json.dumps(self.document, indent=2, allow_nan=False) + "\n"
        write_text_atomically(self.folder / "acceptance.json", text)
        page.write_report(self.document, self.folder)
