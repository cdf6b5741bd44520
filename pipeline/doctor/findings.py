"""The doctor's findings, and the report of them with its conclusion for the golden acceptance."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, Literal

SCHEMA_VERSION = 1
LEVELS = ("OK", "WARN", "FAIL")
"""From best to worst."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the report.

    Attributes:
        check: Stable name of the check, such as ``package.torch``.
        level: FAIL if something is broken or every target lacks it; WARN if one target cannot run.
        detail: What was found.
        remedy: How to fix it; empty if there is nothing to fix.
        blocks_golden: Whether it prevents the golden acceptance from running.
    """

    check: str
    level: Literal["OK", "WARN", "FAIL"]
    detail: str
    remedy: str = ""
    blocks_golden: bool = False

    def __str__(self) -> str:
        """Format the finding as one line."""
        return f"{self.level:4}  {self.check}: {self.detail}" + (f" -> {self.remedy}" if self.remedy else "")


@dataclass(frozen=True, slots=True)
class Report:
    """All findings, in the order of the checks."""

    findings: tuple[Finding, ...]

    @property
    def level(self) -> str:
        """The worst level of all findings."""
        return max((finding.level for finding in self.findings), key=LEVELS.index)

    @property
    def golden_obstacles(self) -> list[str]:
        """Why the golden acceptance cannot run on this machine; empty if it can."""
        return [
            f"{finding.check}: {finding.detail}"
            for finding in self.findings
            if finding.level == "FAIL" or finding.blocks_golden
        ]

    @property
    def summary(self) -> str:
        """Whether the golden acceptance can run, as one sentence."""
        if self.golden_obstacles:
            return f"this machine cannot run the golden acceptance because {'; '.join(self.golden_obstacles)}"
        return "this machine can run the golden acceptance because no check above stands in its way"

    def describe(self) -> dict[str, Any]:
        """The report as JSON values: what ``verbosity doctor --json`` prints."""
        return {
            "schema_version": SCHEMA_VERSION,
            "level": self.level,
            "golden_acceptance": {"can_run": not self.golden_obstacles, "obstacles": self.golden_obstacles},
            "summary": self.summary,
            "findings": [dataclasses.asdict(finding) for finding in self.findings],
        }
