"""Comparing two acceptance runs: what differs, and which differences are more than noise.

The rules, by what was recorded:

- An outcome that was PASS and no longer is, is a regression in any case.
- Proportions of the same cases, such as questions: McNemar's exact test; of other cases, or where the cases were not
  recorded: Fisher's exact test. Both two-sided, p < 0.05.
- Samples of distributions and latencies: Wilcoxon's signed-rank test for the same cases, else Mann-Whitney U,
  two-sided, p < 0.05, and a relative change of the median of more than 5 %, because in large samples tiny changes are
  significant.
- Single numbers carry no claim of significance: they are listed as changes, and are a regression only where the
  state of their bound got worse.

The tests are not corrected for their number, so one in twenty unchanged quantities is listed by chance: a gate had
better raise a false alarm than miss a regression. Times and rates are compared only between equal machines with equal
package versions.

Sources of the tests: see ``samples``.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

from harness.report import samples
from harness.report.formatting import access_text, comparison_notes, flat_pairs, is_proportion, value_text

SIGNIFICANCE = 0.05
_TIMED_UNITS = ("s", "tokens/s", "examples/s")
_RATES = ("tokens/s", "examples/s")
_MACHINE = ("cpu_model", "cpu_count", "machine")
_TIMING_PACKAGES = ("torch", "transformers")
# From good to bad. A value that could not be measured is worse than an undecided one, better than a proven violation.
_STATES = ("holds", "undecided", "missing", "violated")
_NOT_IN_RUN = "not in the run"
_NOT_RECORDED = "not recorded"


class IncomparableRunsError(ValueError):
    """Two documents do not judge the same thing by the same criteria."""


class Kind(StrEnum):
    """What a difference means."""

    REGRESSION = "regression"
    IMPROVEMENT = "improvement"
    CHANGE = "change"
    WITHIN_NOISE = "within noise"


@dataclass(frozen=True)
class Difference:
    """One thing that differs between two runs.

    Attributes:
        kind: What it means.
        subject: Name of the subject; empty for snapshots of no subject.
        criterion: Id of the criterion, or ``identity`` or ``goldens``.
        name: Name of the measure or sample, ``outcome``, a key of the identity, or a node id.
        before: Value in the first run, as text.
        after: Value in the second run, as text.
        detail: The rule that decided, in a few words.
        p_value: Of the test that decided, None where none was made.
    """

    kind: Kind
    subject: str
    criterion: str
    name: str
    before: str
    after: str
    detail: str
    p_value: float | None = None


@dataclass(frozen=True)
class Comparison:
    """Notes on what was not compared, and the differences, in the order of the second document."""

    notes: tuple[str, ...]
    differences: tuple[Difference, ...]

    @property
    def has_regression(self) -> bool:
        """Whether anything got worse."""
        return any(difference.kind is Kind.REGRESSION for difference in self.differences)

    def as_document(self) -> dict[str, Any]:
        """Return the comparison as JSON-ready data."""
        differences = [{**asdict(difference), "kind": str(difference.kind)} for difference in self.differences]
        return {"notes": list(self.notes), "differences": differences}


def compare(before: Mapping[str, Any], after: Mapping[str, Any]) -> Comparison:
    """Compare two result documents; see the module for the rules.

    Args:
        before: The earlier ``acceptance.json``, valid.
        after: The later one, valid.

    Raises:
        IncomparableRunsError: The subjects or the criteria differ.
    """
    _require_comparable(before, after)
    obstacle = _timing_obstacle(before["provenance"], after["provenance"])
    notes = comparison_notes(before, after, obstacle)
    differences: list[Difference] = []
    earlier = {subject["name"]: subject for subject in before["subjects"]}
    for subject in after["subjects"]:
        comparer = _SubjectComparer(subject["name"], timed=obstacle is None, notes=notes)
        differences += comparer.compare(earlier[subject["name"]], subject)
    differences += _snapshots(before["goldens"], after["goldens"])
    return Comparison(tuple(notes), tuple(differences))


def _require_comparable(before: Mapping[str, Any], after: Mapping[str, Any]) -> None:
    first, second = (
        {(subject["name"], access_text(subject), subject["learned"]) for subject in document["subjects"]}
        for document in (before, after)
    )
    if first != second:
        named = [_names(first - second) or "nothing else", _names(second - first) or "nothing else"]
        raise IncomparableRunsError(
            f"the subjects differ: the first run alone judges {named[0]}, the second {named[1]};"
            " compare two runs of the same subjects"
        )
    names = [document.get("criteria_set", "of an earlier version") for document in (before, after)]
    versions = [document["criteria_version"] for document in (before, after)]
    # Documents of earlier versions name no set; theirs was the one that the version tells.
    if versions[0] != versions[1] or ("criteria_set" in before and names[0] != names[1]):
        raise IncomparableRunsError(
            f"the criteria differ (set {names[0]}, criteria_version {versions[0][:12]}, and set {names[1]},"
            f" {versions[1][:12]}); repeat the older run with the newer criteria"
        )


def _names(subjects: Iterable[tuple[str, str, bool]]) -> str:
    return ", ".join(
        f"{name} ({access}, {'learned' if learned else 'random'} weights)" for name, access, learned in sorted(subjects)
    )


def _timing_obstacle(before: Mapping[str, Any], after: Mapping[str, Any]) -> str | None:
    differing = []
    for key in _MACHINE:
        if before[key] is None or after[key] is None:
            differing.append(f"{key} is not known")
        elif before[key] != after[key]:
            differing.append(f"{key} is {before[key]} and {after[key]}")
    pairs = [("gpu", _gpu_name(before), _gpu_name(after))]
    pairs += [(name, before["packages"].get(name), after["packages"].get(name)) for name in _TIMING_PACKAGES]
    differing += [
        f"{name} is {first or 'none'} and {second or 'none'}" for name, first, second in pairs if first != second
    ]
    return "; ".join(differing) or None


def _gpu_name(provenance: Mapping[str, Any]) -> object:
    gpu = provenance.get("gpu")
    return gpu.get("name") if isinstance(gpu, Mapping) else gpu


@dataclass
class _SubjectComparer:
    name: str
    timed: bool
    notes: list[str]

    def compare(self, before: Mapping[str, Any], after: Mapping[str, Any]) -> list[Difference]:
        if before["thresholds"] != after["thresholds"]:
            self.notes.append(f"{self.name}: the two runs replaced different thresholds; each is judged by its own.")
        earlier = {criterion["id"]: criterion for criterion in before["criteria"]}
        later = {criterion["id"]: criterion for criterion in after["criteria"]}
        found: list[Difference] = []
        for id_ in dict.fromkeys([*later, *earlier]):
            found += self._outcome(id_, earlier.get(id_), later.get(id_))
            if id_ in earlier and id_ in later:
                found += self._measures(earlier[id_], later[id_])
                found += self._samples(earlier[id_], later[id_])
        old, new = dict(flat_pairs(before["identity"])), dict(flat_pairs(after["identity"]))
        for key in dict.fromkeys([*new, *old]):
            if old.get(key) != new.get(key):
                values = old.get(key, _NOT_RECORDED), new.get(key, _NOT_RECORDED)
                found.append(Difference(Kind.CHANGE, self.name, "identity", key, *values, "another artefact"))
        return found

    def _outcome(
        self, id_: str, before: Mapping[str, Any] | None, after: Mapping[str, Any] | None
    ) -> Iterator[Difference]:
        first = before["outcome"] if before else _NOT_IN_RUN
        second = after["outcome"] if after else _NOT_IN_RUN
        if first != second:
            kind = Kind.REGRESSION if first == "PASS" else Kind.IMPROVEMENT if second == "PASS" else Kind.CHANGE
            reason = after["reason"] if after else ""
            yield Difference(kind, self.name, id_, "outcome", first, second, reason)

    def _measures(self, before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterator[Difference]:
        first, second = before["measurements"], after["measurements"]
        # The outcome already says that a criterion was not reached in one run; listing its measures adds nothing.
        for name in dict.fromkeys([*second, *first]) if first and second else ():
            bound = _bound(after, name)
            if first.get(name) == second.get(name) or (
                not self.timed and is_timing(name, bound["unit"] if bound else "")
            ):
                continue
            texts = [value_text(values[name]) if name in values else _NOT_RECORDED for values in (first, second)]
            if is_proportion(first.get(name)) and is_proportion(second.get(name)):
                kind, detail, p_value = _judge_shares(before, after, name, bound)
            else:
                kind, detail, p_value = _judge(_bound(before, name), bound)
            yield Difference(kind, self.name, after["id"], name, texts[0], texts[1], detail, p_value)

    def _samples(self, before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterator[Difference]:
        earlier = {(sample["name"], sample["label"]): sample for sample in before["attachments"]}
        for sample in after["attachments"]:
            other = earlier.get((sample["name"], sample["label"]))
            if other is None or sample["kind"] == "series" or other["unit"] != sample["unit"]:
                continue
            if other["values"] == sample["values"] or (not self.timed and is_timing("", sample["unit"])):
                continue
            shift = samples.compare_samples(other, sample)
            name = f"{sample['name']} ({sample['label']}), median"
            if shift is None:
                self.notes.append(f"{self.name}, {after['id']}: {name} was not compared, a value is not finite.")
            elif shift.median_before != shift.median_after:
                significant = shift.p_value < SIGNIFICANCE and shift.is_substantial
                kind = _direction(_better_samples(sample, after), shift.rises) if significant else Kind.WITHIN_NOISE
                texts = [
                    f"{value:.4g} {sample['unit']}".rstrip() for value in (shift.median_before, shift.median_after)
                ]
                detail = f"{shift.test}, median {shift.relative_change:+.1%}"
                yield Difference(kind, self.name, after["id"], name, texts[0], texts[1], detail, shift.p_value)


def is_timing(name: str, unit: str) -> bool:
    """Return whether a measure depends on the machine's speed, by its unit or by the unit that ends its name."""
    return unit in _TIMED_UNITS or name.endswith("_s")


def _bound(criterion: Mapping[str, Any], measure: str) -> Mapping[str, Any] | None:
    return next((bound for bound in criterion["bounds"] if bound["measure"] == measure), None)


def _judge_shares(
    before: Mapping[str, Any], after: Mapping[str, Any], name: str, bound: Mapping[str, Any] | None
) -> tuple[Kind, str, float | None]:
    first, second = before["measurements"][name], after["measurements"][name]
    cases = [criterion.get("cases", {}).get(name, {}) for criterion in (before, after)]
    p_value, detail = samples.compare_shares(first, second, *cases)
    if p_value >= SIGNIFICANCE:
        return Kind.WITHIN_NOISE, detail, p_value
    better = {"<": -1, "<=": -1, ">": 1, ">=": 1}.get(bound["comparison"], 0) if bound else 0
    return _direction(better, second["share"] > first["share"]), detail, p_value


def _judge(bound_before: Mapping[str, Any] | None, bound: Mapping[str, Any] | None) -> tuple[Kind, str, float | None]:
    if bound is None or bound_before is None or bound["state"] == bound_before["state"]:
        return Kind.CHANGE, "single value, no claim of significance", None
    worse = _STATES.index(bound["state"]) > _STATES.index(bound_before["state"])
    kind = Kind.REGRESSION if worse else Kind.IMPROVEMENT
    return kind, f"bound {bound['limit']}: {bound_before['state']}, then {bound['state']}", None


def _direction(better: int, rises: bool) -> Kind:
    if better == 0:
        return Kind.CHANGE
    return Kind.IMPROVEMENT if (better > 0) == rises else Kind.REGRESSION


def _better_samples(sample: Mapping[str, Any], criterion: Mapping[str, Any]) -> int:
    """Return 1 where larger samples are better, -1 where smaller are, 0 where nothing says so."""
    if sample["unit"] in _TIMED_UNITS:
        return 1 if sample["unit"] in _RATES else -1
    # A sample is on the side of the bounds that carry its label: ``terse`` of ``terse_median_tokens < 50 tokens``.
    signs = {
        -1 if bound["comparison"].startswith("<") else 1
        for bound in criterion["bounds"]
        if bound["unit"] == sample["unit"]
        and bound["comparison"] != "=="
        and sample["label"].lower() in bound["measure"].split("_")
    }
    return signs.pop() if len(signs) == 1 else 0


def _snapshots(before: Iterable[Mapping[str, Any]], after: Iterable[Mapping[str, Any]]) -> Iterator[Difference]:
    earlier = {snapshot["nodeid"]: snapshot for snapshot in before}
    later = {snapshot["nodeid"]: snapshot for snapshot in after}
    for nodeid in dict.fromkeys([*later, *earlier]):
        first, second = (run[nodeid]["state"] if nodeid in run else _NOT_IN_RUN for run in (earlier, later))
        if first != second:
            kind = Kind.IMPROVEMENT if second == "MATCH" and first in ("DIFFERENT", "REFUSED") else Kind.CHANGE
            if first == "MATCH" and second in ("DIFFERENT", "REFUSED", "NO_GOLDEN"):
                kind = Kind.REGRESSION
            snapshot = later.get(nodeid) or earlier[nodeid]
            detail = snapshot["detail"] if nodeid in later else ""
            yield Difference(kind, snapshot["subject"] or "", "goldens", nodeid, first, second, detail)
