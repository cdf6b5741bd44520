"""A self-contained verdict: what was judged, its figures and a seal over both; and judging it again from them.

A plain digest reveals damage and careless edits. Against deliberate edits a key is needed: with
``VERBOSITY_VERDICT_KEY`` set the seal is an HMAC, and a verdict without one is refused.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from harness.criteria import Bound, Criterion
from harness.criteria_set import CriteriaSet
from harness.statistics import Proportion
from harness.subject import Subject
from harness.verdict import Outcome, decide, judge

SCHEMA_VERSION = 1
KEY_VARIABLE = "VERBOSITY_VERDICT_KEY"

_BOUND_FIELDS = ("measure", "comparison", "threshold", "unit", "confidence")
_PLAN = "early_rejection"
_PROVENANCE_FIELDS = ("git_commit", "git_dirty", "time_utc")
_SUBJECT_FIELDS = ("name", "learned", "access", "thresholds", "scope", "out_of_scope_reasons")
# From worst to best; an outcome may be worse than its figures, because a test can fail outside its bounds.
_JUDGED = (Outcome.FAIL, Outcome.UNDECIDED, Outcome.PASS)


def key_from_environment() -> bytes | None:
    """Return the key of ``VERBOSITY_VERDICT_KEY``, or None where it is unset or empty."""
    return os.environ.get(KEY_VARIABLE, "").encode() or None


def seal(document_subject: Mapping[str, Any], document: Mapping[str, Any], key: bytes | None) -> dict[str, Any]:
    """Make the verdict about one subject.

    Args:
        document_subject: The subject's entry in the document.
        document: The content of ``acceptance.json``.
        key: Key of the HMAC; None seals with a plain SHA-256.

    Returns:
        The content of ``verdict.json``. ``seal.digest`` is taken over the canonical JSON of everything else, and
        ``seal.fields`` holds a SHA-256 of each part, which locates an edit.
    """
    body = {
        "schema_version": SCHEMA_VERSION,
        "subject": {name: document_subject[name] for name in _SUBJECT_FIELDS},
        "decision": document_subject["decision"],
        "identity": document_subject["identity"],
        "criteria_set": document["criteria_set"],
        "criteria_version": document["criteria_version"],
        "criteria": [_sealed_criterion(entry) for entry in document_subject["criteria"]],
        "provenance": {name: document["provenance"][name] for name in _PROVENANCE_FIELDS},
        "document_sha256": document_digest(document),
    }
    if "answers" in document_subject:
        body["answers"] = document_subject["answers"]
    if "judged_again_from" in document:
        body["judged_again_from"] = document["judged_again_from"]
    # Sealed as it is read back: tuples as lists, enumerations as strings.
    verdict: dict[str, Any] = json.loads(_canonical(body))
    verdict["seal"] = {
        "algorithm": "sha256" if key is None else "hmac-sha256",
        "fields": {name: _sha256(part) for name, part in _parts(verdict)},
    }
    verdict["seal"]["digest"] = _digest(verdict, key)
    return verdict


def document_digest(document: Mapping[str, Any]) -> str:
    """Return the SHA-256 of a document's canonical JSON, which a verdict seals and a later judgement names."""
    return _sha256(document)


def _sealed_criterion(entry: Mapping[str, Any]) -> dict[str, Any]:
    bounds = [{name: bound[name] for name in _BOUND_FIELDS} for bound in entry["bounds"]]
    sealed = {
        "id": entry["id"],
        "outcome": entry["outcome"],
        "bounds": bounds,
        "measurements": dict(entry["measurements"]),
        "timed": list(entry.get("timed", ())),
    }
    return {**sealed, **({_PLAN: entry[_PLAN]} if _PLAN in entry else {})}


def _canonical(value: object) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()


def _sha256(value: object) -> str:
    return hashlib.sha256(_canonical(value)).hexdigest()


def _parts(verdict: Mapping[str, Any]) -> Iterator[tuple[str, object]]:
    for name, value in verdict.items():
        if name == "criteria":
            yield from ((f"criteria.{entry['id']}", entry) for entry in value)
        elif name != "seal" and isinstance(value, Mapping):
            yield from ((f"{name}.{inner}", part) for inner, part in value.items())
        elif name != "seal":
            yield name, value


def _digest(verdict: Mapping[str, Any], key: bytes | None) -> str:
    covered = {name: value for name, value in verdict["seal"].items() if name != "digest"}
    text = _canonical({**verdict, "seal": covered})
    return hashlib.sha256(text).hexdigest() if key is None else hmac.new(key, text, "sha256").hexdigest()


def recheck(verdict: Mapping[str, Any], criteria: CriteriaSet) -> list[str]:
    """Judge a verdict again: its seal, its criteria, and whether outcomes and decision follow from its figures.

    Args:
        verdict: The content of ``verdict.json``.
        criteria: The set in force, never one that comes with the verdict.

    Returns:
        Complaints, each naming its field; empty where the verdict is valid. An edit that keeps every outcome shows in
        the seal alone, so without a key it is found only where the seal was not computed again.
    """
    return [
        *seal_complaints(verdict),
        *_guarded("criteria_set", _set_complaints, verdict, criteria),
        *_guarded("criteria", _outcome_complaints, verdict, criteria),
        *_guarded("decision", _decision_complaints, verdict, criteria),
    ]


def seal_complaints(verdict: Mapping[str, Any]) -> list[str]:
    """Return what is wrong with a verdict's seal, whatever the criteria."""
    return _guarded("seal", _seal_complaints, verdict)


def _guarded(field: str, check: Callable[..., Iterable[str]], *arguments: Any) -> list[str]:
    try:
        return list(check(*arguments))
    except Exception as error:  # an untrusted file: any error in a check refuses it
        return [f"{field}: malformed ({type(error).__name__}: {error})"]


def _seal_complaints(verdict: Mapping[str, Any]) -> Iterator[str]:
    sealed, key = verdict["seal"], key_from_environment()
    recorded, found = sealed["fields"], {name: _sha256(part) for name, part in _parts(verdict)}
    for name in sorted(recorded.keys() | found.keys()):
        if recorded.get(name) != found.get(name):
            change = "removed" if name not in found else "added" if name not in recorded else "edited"
            yield f"{name}: {change} after the verdict was sealed"
    algorithm = sealed["algorithm"]
    if algorithm not in ("sha256", "hmac-sha256"):
        yield f"seal.algorithm: unknown {algorithm!r}"
    elif algorithm == "hmac-sha256" and key is None:
        yield f"seal: an HMAC, and {KEY_VARIABLE} is not set; set the key that the verdict was sealed with"
    elif algorithm == "sha256" and key is not None:
        yield f"seal.algorithm: a plain digest although {KEY_VARIABLE} is set; seal the verdict with the key"
    elif not hmac.compare_digest(str(sealed["digest"]).encode(), _digest(verdict, key).encode()):
        yield "seal.digest: does not match; the verdict was edited or damaged, or sealed with another key"


def _set_complaints(verdict: Mapping[str, Any], criteria: CriteriaSet) -> Iterator[str]:
    if verdict["criteria_set"] != criteria.name:
        yield f"criteria_set: {verdict['criteria_set']!r}, and the set in force is {criteria.name!r}"
    if verdict["criteria_version"] != criteria.version:
        yield "criteria_version: not that of the criteria in force; run the acceptance again"


def _subject(verdict: Mapping[str, Any], criteria: CriteriaSet) -> Subject:
    given = verdict["subject"]
    if not isinstance(given["learned"], bool):
        raise ValueError("subject.learned is true or false")
    # Verdicts of earlier versions declare nothing.
    declared = (given.get("out_of_scope_reasons", {}), given.get("scope", ""))
    subject = Subject(given["name"], given["learned"], given["thresholds"], given["access"], *declared)
    criteria.check(subject)
    return subject


def _required(subject: Subject, verdict: Mapping[str, Any], criteria: CriteriaSet) -> list[str]:
    """Ids that must pass: the set's criteria in the subject's scope, and others that were judged."""
    others = (entry["id"] for entry in verdict["criteria"] if entry["id"] not in criteria)
    return [*criteria.asked_of(subject), *others]


def _outcome_complaints(verdict: Mapping[str, Any], criteria: CriteriaSet) -> Iterator[str]:
    subject = _subject(verdict, criteria)
    listed = Counter(entry["id"] for entry in verdict["criteria"])
    yield from (f"criteria.{id_}: listed {count} times" for id_, count in listed.items() if count > 1)
    yield from (f"criteria.{id_}: missing" for id_ in _required(subject, verdict, criteria) if id_ not in listed)
    for entry in verdict["criteria"]:
        yield from _guarded(f"criteria.{entry['id']}", _criterion_complaints, entry, subject, criteria)


def _criterion_complaints(entry: Mapping[str, Any], subject: Subject, criteria: CriteriaSet) -> Iterator[str]:
    id_, outcome = entry["id"], Outcome(entry["outcome"])
    recorded = [{name: bound[name] for name in _BOUND_FIELDS} for bound in entry["bounds"]]
    criterion = criteria.get(id_)
    if criterion is not None:
        in_force = [{name: getattr(bound, name) for name in _BOUND_FIELDS} for bound in subject.bounds(criterion)]
        # As text, because True equals 1 and a flag must not stand in for a number.
        if _canonical(_by_measure(recorded)) != _canonical(_by_measure(in_force)):
            yield f"criteria.{id_}.bounds: not the bounds in force for this subject"
    bounds = () if criterion is None else subject.bounds(criterion)
    plan = criteria.early_of(id_, bounds)
    planned = None if plan is None else plan.describe(bounds, entry["measurements"])
    if _canonical(entry.get(_PLAN)) != _canonical(planned):
        yield f"criteria.{id_}.{_PLAN}: not the plan in force; run the acceptance again"
    if outcome not in _JUDGED:
        return
    # Judged by the set's bounds where there are any, never by those of the file.
    criterion = criterion or Criterion(id_, "", tuple(Bound(**bound) for bound in recorded), "")
    measurements = {name: measured_value(value) for name, value in entry["measurements"].items()}
    # Verdicts of earlier versions have no timed measures.
    judged = judge(criterion, subject, measurements, criteria.excusable(id_, entry.get("timed", ())), plan)
    if judged.outcome in _JUDGED:
        is_better = _JUDGED.index(outcome) > _JUDGED.index(judged.outcome)
    else:
        is_better = outcome is Outcome.PASS
    if is_better:
        yield f"criteria.{id_}.outcome: {outcome} does not follow from its measurements: {judged.reason}"


def _by_measure(bounds: list[dict[str, Any]]) -> list[dict[str, Any]]:
    plain = [{**bound, "threshold": _number(bound["threshold"])} for bound in bounds]
    return sorted(plain, key=lambda bound: str(bound["measure"]))


def _number(threshold: object) -> object:
    # A replaced threshold may be written 6 and read 6.0; both are the same bound.
    return float(threshold) if isinstance(threshold, int) and not isinstance(threshold, bool) else threshold


def measured_value(value: Any) -> object:
    """Return a measurement of a document as it was recorded.

    Raises:
        ValueError: A proportion contradicts itself.
    """
    if not isinstance(value, Mapping):
        return value
    proportion = Proportion(value["successes"], value["trials"])
    if value["share"] != proportion.share:
        raise ValueError(f"a share of {value['share']} is not {proportion.successes} of {proportion.trials}")
    return proportion


def _decision_complaints(verdict: Mapping[str, Any], criteria: CriteriaSet) -> Iterator[str]:
    subject = _subject(verdict, criteria)
    required = _required(subject, verdict, criteria)
    outcomes = {entry["id"]: Outcome(entry["outcome"]) for entry in verdict["criteria"]}
    follows = decide({id_: outcome for id_, outcome in outcomes.items() if id_ in required}, required)
    if verdict["decision"] != follows:
        yield f"decision: {verdict['decision']} does not follow from the outcomes, which make it {follows}"
