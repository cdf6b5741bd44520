"""The criteria in force, and which trials are older than one that could change them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from harness.criteria import Need
from tests.unit.all_criteria import CRITERIA

BOUNDS: Mapping[str, Mapping[str, str]] = {
    criterion.id: {bound.measure: bound.limit for bound in criterion.bounds} for criterion in CRITERIA
}
"""The limit of every measure, by criterion; a target's own counts as the documented one."""
_ON_LEARNED_WEIGHTS = {criterion.id for criterion in CRITERIA if Need.LEARNED_WEIGHTS in criterion.needs}


def as_judged(trial: Mapping[str, Any], bounds: Mapping[str, Mapping[str, str]]) -> dict[str, Any]:
    """A trial of an earlier matrix without the outcomes of criteria whose bounds are others now.

    Args:
        trial: A fault's or a healthy repeat's.
        bounds: The limits that it was judged by.
    """
    outcomes = {id_: outcome for id_, outcome in trial["outcomes"].items() if bounds.get(id_) == BOUNDS.get(id_)}
    return {**trial, "outcomes": outcomes}


def younger(trial: Mapping[str, Any]) -> list[str]:
    """The criteria that did not judge a trial and could change it: those that its target's weights can show."""
    learned = trial.get("target") != "tiny-mistral"
    return [id_ for id_ in BOUNDS if id_ not in trial["outcomes"] and (learned or id_ not in _ON_LEARNED_WEIGHTS)]
