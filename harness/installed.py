"""The sets of criteria that are installed here, by which verdicts are judged again."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Mapping
from typing import Any

from harness.criteria_set import CriteriaSet
from harness.seal import recheck, seal_complaints

CRITERIA_GROUP = "verbosity.criteria"
"""Entry point group of sets of criteria; an entry has the name of its set."""


def installed_criteria(name: str) -> CriteriaSet:
    """Return the installed set of a name.

    Raises:
        LookupError: None is installed, several are, or it is no ``CriteriaSet`` of this name.
    """
    found = importlib.metadata.entry_points(group=CRITERIA_GROUP, name=name)
    if len(found) != 1:
        raise LookupError(
            f"{len(found) or 'no'} installed sets of criteria are called {name!r}; install the package whose entry"
            f" point group {CRITERIA_GROUP} has it, once"
        )
    (entry,) = found
    try:
        criteria = entry.load()
    except Exception as error:  # any error of a foreign module on import
        raise LookupError(f"the set {entry.value} cannot be loaded ({error}); reinstall its package") from error
    if not isinstance(criteria, CriteriaSet) or criteria.name != name:
        raise LookupError(f"{entry.value} is no CriteriaSet with the name {name!r}; correct the entry point")
    return criteria


def recheck_by_installed(verdict: Mapping[str, Any]) -> list[str]:
    """Judge a verdict again by the installed set that it names, never by anything that comes with it.

    Args:
        verdict: The content of ``verdict.json``.

    Returns:
        Complaints, each naming its field; empty where the verdict is valid.
    """
    name = verdict.get("criteria_set")
    if not isinstance(name, str):
        return [*seal_complaints(verdict), "criteria_set: names no set; run the acceptance again"]
    try:
        criteria = installed_criteria(name)
    except LookupError as error:
        return [*seal_complaints(verdict), f"criteria_set: {error}"]
    return recheck(verdict, criteria)
