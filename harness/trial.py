"""One test of one criterion on one subject, and its result; does not import pytest."""

from __future__ import annotations

from dataclasses import dataclass, field

from harness.criteria import Criterion
from harness.criteria_set import CriteriaSet
from harness.recorder import Recorder
from harness.statistics import Proportion
from harness.subject import Subject
from harness.verdict import NOT_REACHED, RANDOM_WEIGHTS, CriterionResult, Outcome, judge, worst

XFAIL_REASON = "xfail is not an acceptance"
UNFINISHED_REASON = "interrupted before its teardown ended"


@dataclass
class Trial:
    """One test of one criterion on one subject, and its result."""

    nodeid: str
    criterion: Criterion
    subject: Subject
    criteria: CriteriaSet
    measured: Recorder = field(default_factory=Recorder)
    judged: CriterionResult | None = None
    selected: bool = False
    torn_down: bool = False
    properties: list[tuple[str, object]] = field(default_factory=list)
    _results: list[CriterionResult] = field(default_factory=list)

    def judge(self) -> CriterionResult:
        """Decide the criterion from what the test body recorded."""
        early = self.criteria.early_of(self.criterion.id, self.subject.bounds(self.criterion))
        decided = judge(self.criterion, self.subject, self.measured.measurements, self._excusable, early)
        self.judged = self._result(decided.outcome, decided.reason, decided.violated)
        return self.judged

    def observe(self, when: str, outcome: str, detail: str, xfail: bool) -> str | None:
        """Record one finished phase; a conclusion never improves, so a re-run hides nothing.

        Args:
            when: ``setup``, ``call`` or ``teardown``.
            outcome: pytest's ``passed``, ``failed`` or ``skipped``.
            detail: The exception or skip reason in one line.
            xfail: Whether the test expects to fail, by marker or by ``pytest.xfail``.

        Returns:
            A message where the phase must be reported as failed although pytest did not.
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

    def absorb(self, result: CriterionResult) -> None:
        """Adopt the conclusion of another process about this test."""
        self.torn_down = True
        self._results.append(result)

    @property
    def concluded(self) -> bool:
        """Whether anything is known of the test."""
        return bool(self._results)

    def result(self) -> CriterionResult:
        """Return the worst conclusion; NOT_RUN where the test did not finish."""
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
            *((f"measured.{name}", _property(value)) for name, value in self.measured.measurements.items()),
        ]

    @property
    def not_applicable_reason(self) -> str | None:
        """Why the body need not run, or None when it must."""
        return None if self.subject.can_show(self.criterion) else RANDOM_WEIGHTS

    @property
    def _excusable(self) -> tuple[str, ...]:
        return self.criteria.excusable(self.criterion.id, self.measured.timed)

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
            tuple(self.measured.tables),
            self._excusable,
            dict(self.measured.cases),
            tuple(self.measured.answers),
        )


def _property(value: object) -> object:
    # Workers of pytest-xdist send properties as plain values only.
    return f"{value.successes} of {value.trials}" if isinstance(value, Proportion) else value
