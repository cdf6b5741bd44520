"""What the HTML and the Markdown report show besides the criteria tables, as rows of text."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from harness.report.formatting import ABSENT, flat_pairs, margin_text, value_text

OUTCOMES = ("PASS", "FAIL", "UNDECIDED", "NOT_RUN", "NOT_APPLICABLE")
_MEMORY_SUFFIXES = ("_gib", "_mib", "_bytes")
_MEMORY_UNITS = ("GiB", "MiB", "bytes")
_OWN_TABLE = ("packages", "golden_pins", "doctor")


def outcome_counts(subject: Mapping[str, Any]) -> dict[str, int]:
    """Return how many criteria of a subject have each outcome, without outcomes that none has."""
    outcomes = [criterion["outcome"] for criterion in subject["criteria"]]
    return {outcome: outcomes.count(outcome) for outcome in OUTCOMES if outcome in outcomes}


def bound_rows(criterion: Mapping[str, Any]) -> list[dict[str, str]]:
    """Return a criterion's bounds as text: measure, limit, documented limit, value, margin, state."""
    return [_bound_row(criterion, bound) for bound in criterion["bounds"]]


def _bound_row(criterion: Mapping[str, Any], bound: Mapping[str, Any]) -> dict[str, str]:
    return {
        "measure": bound["measure"],
        "limit": bound["limit"],
        "documented": bound["documented_limit"] or "",
        "value": value_text(criterion["measurements"][bound["measure"]]) if bound["recorded"] else ABSENT,
        "margin": margin_text(bound),
        "state": bound["state"],
    }


def key_bounds(subject: Mapping[str, Any]) -> list[dict[str, str]]:
    """Return what decides at first sight: the bounds that do not hold, or of each group the one closest to its limit.

    Equalities and sample sizes have no distance that says how well something works, and are left out of the closest.
    """
    judged = [(criterion, bound) for criterion in subject["criteria"] for bound in criterion["bounds"]]
    chosen = [pair for pair in judged if pair[1]["state"] != "holds"]
    if not chosen:
        closest: dict[str, tuple[Mapping[str, Any], Mapping[str, Any]]] = {}
        for criterion, bound in judged:
            group = criterion["id"].partition(".")[0]
            if bound["margin"] is None or bound["comparison"] == "==" or bound["measure"].endswith("_count"):
                continue
            if group not in closest or bound["margin"] < closest[group][1]["margin"]:
                closest[group] = criterion, bound
        chosen = list(closest.values())
    return [{**_bound_row(criterion, bound), "criterion": criterion["id"]} for criterion, bound in chosen]


def memory_rows(subject: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """Return criterion, measure and value of everything measured in units of memory."""
    rows = []
    for criterion in subject["criteria"]:
        units = {bound["measure"]: bound["unit"] for bound in criterion["bounds"]}
        for name, value in criterion["measurements"].items():
            if units.get(name) in _MEMORY_UNITS or name.endswith(_MEMORY_SUFFIXES):
                rows.append((criterion["id"], name, value_text(value)))
    return rows


def identity_rows(subject: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return what identifies the judged artefacts: names and hashes."""
    return flat_pairs(subject["identity"])


def snapshot_rows(document: Mapping[str, Any]) -> list[tuple[str, str, str, str]]:
    """Return test, subject, state and detail of every snapshot."""
    return [
        (snapshot["nodeid"], snapshot["subject"] or ABSENT, snapshot["state"], snapshot["detail"])
        for snapshot in document["goldens"]
    ]


def package_rows(document: Mapping[str, Any]) -> list[tuple[str, str, str, str]]:
    """Return package, version here, golden pin, and how the two compare."""
    packages = document["provenance"]["packages"]
    pins = document["provenance"].get("golden_pins", {})
    rows = []
    for name in dict.fromkeys([*packages, *pins]):
        here, pin = packages.get(name), pins.get(name)
        verdict = "no pin" if pin is None else "absent" if here is None else "as pinned" if here == pin else "differs"
        rows.append((name, here or ABSENT, pin or ABSENT, verdict))
    return rows


def doctor_rows(document: Mapping[str, Any]) -> list[tuple[str, str, str, str]]:
    """Return check, level, detail and remedy of everything that the doctor found; nothing where it was not asked."""
    findings = document["provenance"].get("doctor", {}).get("findings", [])
    return [(finding["check"], finding["level"], finding["detail"], finding["remedy"]) for finding in findings]


def doctor_summary(document: Mapping[str, Any]) -> str:
    """Return the doctor's last sentence; empty where it was not asked."""
    summary: str = document["provenance"].get("doctor", {}).get("summary", "")
    return summary


def origin_rows(document: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return the origin of the results as pairs of property and value, without what has a table of its own."""
    origin = {key: value for key, value in document["provenance"].items() if key not in _OWN_TABLE}
    arguments = " ".join(document["pytest_arguments"]) or "none"
    return [
        *flat_pairs(origin),
        ("criteria_set", document.get("criteria_set", ABSENT)),
        ("criteria_version", document["criteria_version"]),
        ("pytest_arguments", arguments),
        *flat_pairs({"judged_again_from": again} if (again := document.get("judged_again_from")) else {}),
    ]
