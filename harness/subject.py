"""What is judged, as plain data: a model at hand or a running server."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from types import MappingProxyType
from typing import Any, Literal, get_args

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
        out_of_scope: What a server cannot show although it needs no model, with the reason: a criterion's id, or
            ``criterion_id/measure``. Declared before anything is measured, and part of the verdict.
        scope: How a server is asked and which questions were asked, in words; part of the verdict.

    Raises:
        ValueError: The name is empty, the access unknown, or something out of scope that is no server or has no reason.
            ``CriteriaSet.check`` judges the thresholds and what is out of scope.
    """

    name: str
    learned: bool
    thresholds: Mapping[str, float] = field(default_factory=dict, hash=False)
    access: Access = "model"
    out_of_scope: Mapping[str, str] = field(default_factory=dict, hash=False)
    scope: str = ""

    def __post_init__(self) -> None:
        """Refuse a subject without a name or of unknown access."""
        if not self.name:
            raise ValueError("a subject needs a name")
        if self.access not in get_args(Access):
            raise ValueError(f"subject {self.name}: access is one of {', '.join(get_args(Access))}")
        if self.out_of_scope and self.access != "endpoint":
            raise ValueError(f"subject {self.name}: only a running server has anything out of scope")
        if unexplained := [key for key, reason in self.out_of_scope.items() if not str(reason).strip()]:
            raise ValueError(f"subject {self.name}: out of scope without a reason: {', '.join(unexplained)}")
        for name in ("thresholds", "out_of_scope"):
            object.__setattr__(self, name, MappingProxyType(dict(getattr(self, name))))

    def describe(self) -> dict[str, Any]:
        """Return its fields as plain values."""
        return {each.name: _plain(getattr(self, each.name)) for each in fields(self)}

    def offers(self, need: Need) -> bool:
        """Return whether this subject has what a bound or criterion needs."""
        return self.learned if need is Need.LEARNED_WEIGHTS else self.access == "model"

    def bounds(self, criterion: Criterion) -> tuple[Bound, ...]:
        """Return the bounds that apply to this subject, with the thresholds in force."""
        return tuple(
            self._in_force(criterion.id, bound)
            for bound in criterion.bounds
            if all(self.offers(need) for need in (*criterion.needs, *bound.needs))
            and f"{criterion.id}/{bound.measure}" not in self.out_of_scope
        )

    def _in_force(self, criterion_id: str, bound: Bound) -> Bound:
        threshold = self.thresholds.get(f"{criterion_id}/{bound.measure}")
        return bound if threshold is None else replace(bound, threshold=threshold)

    def can_show(self, criterion: Criterion) -> bool:
        """Return whether this subject's weights can say anything about the criterion."""
        return self.learned or Need.LEARNED_WEIGHTS not in criterion.needs

    def in_scope(self, criterion: Criterion) -> bool:
        """Return whether the criterion can be asked of this subject, given its access and what it declares."""
        return criterion.id not in self.out_of_scope and (self.access == "model" or Need.MODEL not in criterion.needs)


def _plain(value: object) -> object:
    return dict(value) if isinstance(value, Mapping) else value


def marked_subject(arguments: Sequence[object], settings: Mapping[str, Any]) -> Subject:
    """Return the subject that a ``subject`` mark describes by its keywords.

    Raises:
        ValueError: There are positional arguments, or a keyword is missing, unknown or wrong.
    """
    # A truthy string would pass for learned weights, so the types are checked.
    typed = isinstance(settings.get("name"), str) and isinstance(settings.get("learned"), bool)
    if arguments or settings.keys() - {each.name for each in fields(Subject)} or not typed:
        raise ValueError(
            "the subject mark takes name='...', learned=True or False, and optionally thresholds, access, out_of_scope"
            " and scope"
        )
    return Subject(**settings)
