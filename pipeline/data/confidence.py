"""What the criteria's confidence asks of a sample of questions, computed without the gate."""

from __future__ import annotations

import math

IN_BOUND_SHARE, CONFIDENCE = 0.9, 0.95
"""Of all questions of the kind this share must be answered in bound, shown at this confidence
(``style.token_separation``)."""
SHIPPED_QUESTIONS = 120


def fewest_in_bound(questions: int) -> int | None:
    """The fewest answers in bound that hold the criterion; None where not even all do.

    The lower Clopper-Pearson bound is at least 0.9 if and only if so many successes had a chance of at most 5 % were
    the share 0.9.
    """
    chance = 0.0
    for hits in range(questions, -1, -1):
        chance += _probability(hits, questions, IN_BOUND_SHARE)
        if chance > 1 - CONFIDENCE:
            break
    return hits + 1 if hits < questions else None


def needed_questions() -> int:
    """The fewest questions with which the criterion can hold at all."""
    return math.ceil(math.log(1 - CONFIDENCE) / math.log(IN_BOUND_SHARE))


def judged_questions(given: int) -> int:
    """How many questions the criterion will be asked on: those given, if they can hold it, else the shipped ones."""
    return given if given >= needed_questions() else SHIPPED_QUESTIONS


def chance_to_hold(share: float, questions: int) -> float:
    """The chance that the criterion holds for a model that answers this share of all questions in bound."""
    fewest = fewest_in_bound(questions)
    if fewest is None:
        return 0.0
    return math.fsum(_probability(hits, questions, share) for hits in range(fewest, questions + 1))


def _probability(hits: int, trials: int, share: float) -> float:
    """The binomial probability of exactly so many hits; by logarithms, since the coefficient may exceed a float."""
    if share in (0.0, 1.0):
        return float(hits == trials * share)
    ways = math.lgamma(trials + 1) - math.lgamma(hits + 1) - math.lgamma(trials - hits + 1)
    return math.exp(ways + hits * math.log(share) + (trials - hits) * math.log1p(-share))
