"""What is judged, as plain data: a model at hand or a running server."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Literal, get_args

from harness.criteria import Bound, Criterion, Need

Access = Literal["model", "endpoint"]


@dataclass(frozen=True)
class Subject:
    """What is judged.

    Attributes:
        name: Name of the target or server.
        learned: Whether its weights were learned; random weights cannot show style.
        thresholds: Thresholds that replace those of a set's bounds, keyed ``criterion_id/measure``.
        access: ``model`` when the weights are at hand, ``endpoint`` when only a running server can be asked.

    Raises:
        ValueError: The name is empty or the access unknown. ``CriteriaSet.check`` judges the thresholds.
    """

    name: str
    learned: bool
    thresholds: Mapping[str, float] = field(default_factory=dict, hash=False)
    access: Access = "model"

    def __post_init__(self) -> None:
        """Refuse a subject without a name or of unknown access."""
        if not self.name:
            raise ValueError("a subject needs a name")
        if self.access not in get_args(Access):
            raise ValueError(f"subject {self.name}: access is one of {', '.join(get_args(Access))}")
        object.__setattr__(self, "thresholds", MappingProxyType(dict(self.thresholds)))

    def offers(self, need: Need) -> bool:
        """Return whether this subject has what a bound or criterion needs."""
        return self.learned if need is Need.LEARNED_WEIGHTS else self.access == "model"

    def bounds(self, criterion: Criterion) -> tuple[Bound, ...]:
        """Return the bounds that apply to this subject, with the thresholds in force."""
        return tuple(
            replace(bound, threshold=self.thresholds.get(f"{criterion.id}/{bound.measure}", bound.threshold))
            for bound in criterion.bounds
            if all(self.offers(need) for need in (*criterion.needs, *bound.needs))
        )

    def can_show(self, criterion: Criterion) -> bool:
        """Return whether this subject's weights can say anything about the criterion."""
        return self.learned or Need.LEARNED_WEIGHTS not in criterion.needs

    def in_scope(self, criterion: Criterion) -> bool:
        """Return whether the criterion can be asked of this subject, given its access."""
        return self.access == "model" or Need.MODEL not in criterion.needs
