"""Records what one test measures: named values, samples for figures, tables for the report."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from harness.answers import Answer, checked_answers
from harness.machine import MachineUse
from harness.statistics import Proportion

ATTACHMENT_KINDS = ("series", "distribution", "latency")


class Recorder:
    """Value of the ``measured`` fixture; the criterion is judged on it after the test's body."""

    def __init__(self) -> None:
        """Start with nothing recorded."""
        self.measurements: dict[str, object] = {}
        self.attachments: list[dict[str, object]] = []
        self.tables: list[dict[str, object]] = []
        self.timed: list[str] = []
        self.cases: dict[str, dict[str, bool]] = {}
        self.answers: list[Answer] = []

    def keep(self, answers: Iterable[Answer]) -> None:
        """Keep the answers that the measures rest on, so that ``verbosity judge`` can compute them again.

        Args:
            answers: What was asked and answered, each as JSON values by name: prompt, settings, text, token ids,
                finish reason, seconds. They are read back in the order of the first test that kept them.

        Raises:
            ValueError: One cannot be written as JSON, or two are equal.
        """
        self.answers = checked_answers([*self.answers, *answers])

    def record(self, **measures: object) -> None:
        """Record measured values under their measure names.

        Args:
            measures: Booleans, integers, floats, strings or proportions; numpy scalars are converted. A mapping of
                cases, such as questions, to booleans is recorded as their proportion, and ``verbosity compare`` pairs
                the cases.

        Raises:
            ValueError: A measure was recorded before.
            TypeError: A value is of another type.
        """
        for name, value in measures.items():
            if name in self.measurements:
                raise ValueError(f"{name} was recorded twice")
            cases = _cases(value)
            scalar = Proportion.of(list(cases.values())) if cases else _plain(value)
            if not isinstance(scalar, bool | int | float | str | Proportion):
                raise TypeError(f"{name}: a measured value is a scalar, got {type(value).__name__}")
            self.measurements[name] = scalar
            if cases:
                self.cases[name] = cases

    def taken_during(self, use: MachineUse, *measures: str) -> None:
        """Record what the machine did while measures of time were taken.

        If other work withheld its processors, a violated bound on one of them is UNDECIDED instead of a FAIL.

        Args:
            use: What ``MachineWatch`` found in the interval.
            measures: Names of the measures.

        Raises:
            ValueError: The use of the machine was recorded before.
        """
        self.record(**use.measures())
        self.timed += measures

    def attach(
        self, name: str, *, kind: str, values: Sequence[float] | Mapping[str, float], unit: str, label: str
    ) -> None:
        """Attach a sample that the report draws.

        Attachments of one name share a figure, one series a label.

        Args:
            name: Name of the figure.
            kind: ``series`` (against the step), ``distribution`` (histogram) or ``latency`` (box and points).
            values: The sample, shape (n,), n >= 1; as a mapping by case, ``verbosity compare`` pairs the cases.
            unit: Unit of the values. Bounds of the same unit are drawn as threshold lines.
            label: Name of this sample in the legend.

        Raises:
            ValueError: The kind is unknown, there are no values, the label is taken, or kind or unit
                differ from an earlier attachment of the same name.
        """
        if kind not in ATTACHMENT_KINDS:
            raise ValueError(f"unknown kind {kind!r}, expected one of {', '.join(ATTACHMENT_KINDS)}")
        if len(values) == 0:
            raise ValueError(f"{name}: no values to attach")
        for other in self.attachments:
            if other["name"] == name and other["label"] == label:
                raise ValueError(f"{name}: {label} was attached twice")
            if other["name"] == name and (other["kind"], other["unit"]) != (kind, unit):
                raise ValueError(f"{name}: one figure has one kind and one unit")
        cases = {"cases": list(values)} if isinstance(values, Mapping) else {}
        numbers = [float(value) for value in (values.values() if isinstance(values, Mapping) else values)]
        self.attachments.append({"name": name, "kind": kind, "values": numbers, "unit": unit, "label": label, **cases})

    def show(self, name: str, columns: Sequence[str], rows: Sequence[Sequence[str | int | float]]) -> None:
        """Show a table in the report, such as sample answers side by side.

        Args:
            name: Its caption.
            columns: Column headings.
            rows: Cells, each row as long as ``columns``; numpy scalars are converted.

        Raises:
            ValueError: The name is taken, there is no row, or a row has another length than the headings.
            TypeError: A cell is neither text nor a number.
        """
        if any(table["name"] == name for table in self.tables):
            raise ValueError(f"{name}: shown twice")
        if not rows or any(len(row) != len(columns) for row in rows):
            raise ValueError(f"{name}: a table has rows, each with {len(columns)} cells")
        cells = [[_plain(cell) for cell in row] for row in rows]
        for column, cell in ((column, cell) for row in cells for column, cell in zip(columns, row, strict=True)):
            if not isinstance(cell, str | int | float):
                raise TypeError(f"{name}: a cell is text or a number, got {type(cell).__name__} under {column}")
        self.tables.append({"name": name, "columns": list(columns), "rows": cells})


def _cases(value: object) -> dict[str, bool]:
    """What each case showed; empty where the value is no mapping of names to booleans."""
    given = {name: _plain(flag) for name, flag in value.items()} if isinstance(value, Mapping) else {}
    flags = {name: flag for name, flag in given.items() if isinstance(name, str) and isinstance(flag, bool)}
    return flags if len(flags) == len(given) else {}


def _plain(value: object) -> object:
    # numpy scalars are recognised by their method, so that no suite imports numpy for this.
    return value.item() if hasattr(value, "item") and getattr(value, "ndim", None) == 0 else value
