"""A set of criteria as a value: what a project promises. The gate has none of its own."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from types import MappingProxyType

from harness.answers import Answer
from harness.criteria import Bound, Criterion
from harness.sequential import EarlyRejection
from harness.subject import Subject

NO_CRITERIA = """\
no criteria are supplied; write a set and, in the conftest.py of the root folder:
  from harness.criteria_set import CriteriaSet
  from my_criteria import FIRST, SECOND  # each a harness.criteria.Criterion

  def pytest_acceptance_criteria():
      return CriteriaSet("my-model", (FIRST, SECOND))"""


MeasuresOfAnswers = Callable[[Sequence[Answer]], Mapping[str, object]]
"""Computes measures, as ``Recorder.record`` takes them, from the answers that a test kept."""


@dataclass(frozen=True, eq=False)
class CriteriaSet(Mapping[str, Criterion]):
    """The criteria that every subject of a project must meet, by id, in their order.

    Attributes:
        name: Its name in verdicts, and of its entry point in the group ``verbosity.criteria``.
        criteria: The criteria.
        timed: Measures that a busy machine can spoil, by criterion id. Not part of the version: they never make a
            criterion pass, only UNDECIDED instead of FAIL.
        from_answers: How ``verbosity judge`` computes measures again from kept answers, by criterion id; the test
            calls the same function. Not part of the version.
        early: The plan by which a test may stop early, by criterion id. Not part of the version: a verdict holds it.

    Raises:
        ValueError: The name or the set is empty, two criteria share an id, ``timed`` names a measure that no bound
            of the set has, ``from_answers`` or ``early`` a criterion that the set has not, or a plan does not fit the
            bounds.
    """

    name: str
    criteria: tuple[Criterion, ...]
    timed: Mapping[str, frozenset[str]] = field(default_factory=dict)
    from_answers: Mapping[str, MeasuresOfAnswers] = field(default_factory=dict)
    early: Mapping[str, EarlyRejection] = field(default_factory=dict)
    _by_id: Mapping[str, Criterion] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        """Refuse a set that is empty or ambiguous."""
        if not self.name or not self.criteria:
            raise ValueError("a set of criteria has a name and at least one criterion")
        if doubles := [id_ for id_, count in Counter(each.id for each in self.criteria).items() if count > 1]:
            raise ValueError(f"criteria set {self.name}: listed twice: {', '.join(doubles)}")
        by_id = MappingProxyType({criterion.id: criterion for criterion in self.criteria})
        for id_, measures in self.timed.items():
            if id_ not in by_id or not measures <= set(by_id[id_].required_measures):
                raise ValueError(f"criteria set {self.name}: timed names no bounds of the set: {id_}")
        for name in ("from_answers", "early"):
            if unknown := getattr(self, name).keys() - by_id.keys():
                raise ValueError(f"criteria set {self.name}: {name} names no criterion: {', '.join(sorted(unknown))}")
        for id_, plan in self.early.items():
            plan.check(by_id[id_].bounds)
        object.__setattr__(self, "timed", MappingProxyType(dict(self.timed)))
        object.__setattr__(self, "_by_id", by_id)

    def __getitem__(self, criterion_id: str) -> Criterion:
        """Return a criterion by its id."""
        return self._by_id[criterion_id]

    def __iter__(self) -> Iterator[str]:
        """Iterate over the ids in their order."""
        return iter(self._by_id)

    def __len__(self) -> int:
        """Return the number of criteria."""
        return len(self._by_id)

    @cached_property
    def version(self) -> str:
        """The SHA-256 of all criteria: sentences, bounds, thresholds, confidences, sources."""
        described = [dataclasses.asdict(criterion) for criterion in self.criteria]
        return hashlib.sha256(json.dumps(described, sort_keys=True).encode()).hexdigest()

    def marked(self, which: object) -> Criterion:
        """Return the criterion that a ``criterion`` mark names by its id, or brings itself.

        Raises:
            ValueError: There is no such criterion.
        """
        if isinstance(which, Criterion):
            return which
        if not isinstance(which, str) or which not in self:
            raise ValueError(f"no criterion {which!r} in the set {self.name}; known: {', '.join(self)}")
        return self[which]

    def asked_of(self, subject: Subject) -> dict[str, Criterion]:
        """Return the criteria that can be asked of a subject, by id."""
        return {id_: criterion for id_, criterion in self.items() if subject.in_scope(criterion)}

    def excusable(self, criterion_id: str, timed: Iterable[str]) -> tuple[str, ...]:
        """Return which of a test's timed measures a busy machine excuses; of a criterion outside the set, all."""
        return tuple(name for name in timed if criterion_id not in self or name in self.timed.get(criterion_id, ()))

    def early_of(self, criterion_id: str, bounds: Iterable[Bound]) -> EarlyRejection | None:
        """Return the plan of a criterion; None where it has none, or not all its measures are bounded for the subject.

        Args:
            criterion_id: The criterion.
            bounds: Its bounds that apply to the subject.
        """
        plan = self.early.get(criterion_id)
        return plan if plan is not None and {bound.measure for bound in bounds}.issuperset(plan.measures) else None

    def check(self, subject: Subject) -> None:
        """Check the thresholds that a subject replaces, and what it declares out of scope.

        Raises:
            ValueError: A threshold names no numeric bound of the set, is not finite, or accepts less than the
                criterion's early rejection; what is out of scope is neither a criterion nor a bound of the set; or it
                leaves no criterion, or one without a bound.
        """
        known = {f"{criterion.id}/{bound.measure}": bound for criterion in self.criteria for bound in criterion.bounds}
        for key, threshold in subject.thresholds.items():
            if key not in known:
                raise ValueError(f"subject {subject.name}: no bound {key!r} in the criteria set {self.name}")
            if isinstance(threshold, bool) or isinstance(known[key].threshold, bool):
                raise ValueError(f"subject {subject.name}: a boolean bound has no threshold to replace: {key!r}")
            dataclasses.replace(known[key], threshold=threshold)
        if unknown := subject.out_of_scope.keys() - self.keys() - known.keys():
            raise ValueError(
                f"subject {subject.name}: out of scope, but not in the criteria set {self.name}: "
                + ", ".join(sorted(unknown))
            )
        if not (asked := self.asked_of(subject)):
            raise ValueError(f"subject {subject.name}: no criterion of the set {self.name} is in scope")
        for id_, criterion in asked.items():
            bounds = subject.bounds(criterion)
            if (plan := self.early_of(id_, bounds)) is not None:
                plan.check(bounds)
            if subject.can_show(criterion) and not bounds:
                raise ValueError(
                    f"subject {subject.name}: no bound of {id_} is in scope; declare the criterion instead"
                )
