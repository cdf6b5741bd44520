"""Criteria and their bounds: what must be measured, and what counts as success."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import Any, Literal, TypeGuard

from harness.statistics import MOST_FURTHER_TRIALS, Proportion, further_trials

Comparison = Literal["<", "<=", ">", ">=", "=="]

_OPERATORS: Mapping[str, Callable[[Any, Any], bool]] = MappingProxyType(
    {"<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge, "==": operator.eq}
)


class Need(StrEnum):
    """What a subject must offer for a bound to apply."""

    LEARNED_WEIGHTS = "learned weights"
    MODEL = "the model itself"


class BoundState(StrEnum):
    """Whether a measured value meets a bound."""

    HOLDS = "holds"
    VIOLATED = "violated"
    UNDECIDED = "undecided"
    MISSING = "missing"


@dataclass(frozen=True)
class Bound:
    """One threshold on one measure.

    Attributes:
        measure: Name of the measure, unit included where it has one.
        comparison: How the measured value compares with the threshold on success.
        threshold: A finite number, or a boolean that the measure must equal.
        unit: Unit for display; empty for shares, ratios and booleans.
        confidence: Where given, the measure is a ``Proportion`` and the true share behind it must meet the threshold
            with this confidence; a sample that is too small leaves the bound undecided.
        needs: What a subject must offer for the bound to apply to it.
    """

    measure: str
    comparison: Comparison
    threshold: float | bool
    unit: str = ""
    confidence: float | None = None
    needs: tuple[Need, ...] = ()

    def __post_init__(self) -> None:
        """Refuse a bound that could never be decided."""
        if self.comparison not in _OPERATORS:
            raise ValueError(f"{self.measure}: unknown comparison {self.comparison!r}")
        if isinstance(self.threshold, bool):
            if self.comparison != "==":
                raise ValueError(f"{self.measure}: a boolean threshold is compared with ==")
        elif not _is_finite_number(self.threshold):
            raise ValueError(f"{self.measure}: the threshold must be finite, got {self.threshold!r}")
        if self.confidence is not None:
            self._require_decidable_share(self.confidence)

    def _require_decidable_share(self, confidence: float) -> None:
        if not 0.5 < confidence < 1:
            raise ValueError(f"{self.measure}: a confidence lies between 0.5 and 1, got {confidence!r}")
        if isinstance(self.threshold, bool) or self.comparison not in ("<=", ">=") or not 0 < self.threshold < 1:
            raise ValueError(f"{self.measure}: with a confidence the bound is <= or >= a share between 0 and 1")

    def state(self, value: object) -> BoundState:
        """Return whether ``value`` meets the bound; NaN, infinities, None and other types violate it."""
        if self.confidence is not None:
            return self._share_state(value)
        if isinstance(self.threshold, bool):
            holds = isinstance(value, bool) and value is self.threshold
        else:
            holds = _is_finite_number(value) and _OPERATORS[self.comparison](value, self.threshold)
        return BoundState.HOLDS if holds else BoundState.VIOLATED

    def _share_state(self, value: object) -> BoundState:
        if not isinstance(value, Proportion) or self.confidence is None:
            return BoundState.VIOLATED
        low, high = value.low(self.confidence), value.high(self.confidence)
        if self.comparison == ">=":
            good, bad = low >= self.threshold, high < self.threshold
        else:
            good, bad = high <= self.threshold, low > self.threshold
        return BoundState.HOLDS if good else BoundState.VIOLATED if bad else BoundState.UNDECIDED

    def complaint(self, value: object) -> str:
        """Return why ``value`` does not meet the bound, and for an undecided one how many more samples it needs."""
        if self.state(value) is not BoundState.UNDECIDED or not isinstance(value, Proportion):
            return f"{self.describe()} does not hold: measured {_show(value)}"
        missing = further_trials(value, lambda grown: self.state(grown) is not BoundState.UNDECIDED)
        needed = f"more than {MOST_FURTHER_TRIALS}" if missing is None else str(missing)
        return f"{self.describe()} is undecided by {_show(value)}, further samples needed at this share: {needed}"

    def margin(self, value: object) -> float | None:
        """Return the distance of ``value`` to the threshold, positive on the good side.

        It is relative to the threshold's size (absolute where that is 0); None where there is no finite distance.
        """
        number = value.share if isinstance(value, Proportion) else value
        if isinstance(self.threshold, bool) or not _is_finite_number(number):
            return None
        distance = (number - self.threshold) / (abs(self.threshold) or 1.0)
        signed = -abs(distance) if self.comparison == "==" else -distance if "<" in self.comparison else distance
        # Adding zero turns -0.0, which a reader would take for the bad side, into 0.0.
        return signed + 0.0 if math.isfinite(signed) else None

    def describe(self) -> str:
        """Return the bound as text, for example ``terse_median_tokens < 50 tokens``."""
        return f"{self.measure} {self.limit}"

    @property
    def limit(self) -> str:
        """The bound without its measure, for example ``< 50 tokens``."""
        threshold = str(self.threshold) if isinstance(self.threshold, bool) else f"{self.threshold:g}"
        sure = f" at {100 * self.confidence:g}% confidence" if self.confidence is not None else ""
        return f"{self.comparison} {threshold} {self.unit}".rstrip() + sure


def _is_finite_number(value: object) -> TypeGuard[int | float]:
    # bool is a subclass of int: True must not pass for 1.
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return isinstance(value, int) or math.isfinite(value)


def _show(value: object) -> str:
    if isinstance(value, Proportion):
        return f"{value.successes} of {value.trials}"
    return f"{value:.6g}" if isinstance(value, float) else repr(value)


@dataclass(frozen=True)
class Criterion:
    """One success criterion.

    Attributes:
        id: ``group.name``, as used by the ``criterion`` mark.
        sentence: What is promised, as documented.
        bounds: All must hold.
        source: Where the sentence and the statistics come from.
        needs: What a subject must offer for any of it to apply.

    Raises:
        ValueError: The id is no ``group.name``, or there is no bound, or two bounds share a measure.
    """

    id: str
    sentence: str
    bounds: tuple[Bound, ...]
    source: str
    needs: tuple[Need, ...] = ()

    def __post_init__(self) -> None:
        """Refuse a criterion that nothing could violate."""
        group, _, name = self.id.partition(".")
        if not group or not name:
            raise ValueError(f"a criterion's id is group.name, got {self.id!r}")
        if not self.bounds or len(set(self.required_measures)) != len(self.bounds):
            raise ValueError(f"{self.id}: a criterion has at least one bound, each on a measure of its own")

    @property
    def group(self) -> str:
        """The part of the id before the dot."""
        return self.id.partition(".")[0]

    @property
    def required_measures(self) -> tuple[str, ...]:
        """Names of the measures that a test must record, in order."""
        return tuple(bound.measure for bound in self.bounds)
