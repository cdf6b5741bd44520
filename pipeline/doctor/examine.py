"""Every check, in the order of the report."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from types import MappingProxyType

from pipeline.console import system_problem
from pipeline.doctor.arithmetic import check_bitsandbytes
from pipeline.doctor.findings import Finding, Report
from pipeline.doctor.gpu import check_gpu
from pipeline.doctor.machine import (
    check_disks,
    check_environment,
    check_memory,
    check_port,
    check_proxy,
    check_python,
)
from pipeline.doctor.models import EMBEDDED, GOLDEN, check_base_model, check_embedded_model, check_tokenizer
from pipeline.doctor.packages import check_packages

CHECKS: Mapping[str, Callable[[], Finding | list[Finding]]] = MappingProxyType(
    {
        "python": check_python,
        "package": check_packages,
        "gpu": check_gpu,
        "memory": check_memory,
        "disk": check_disks,
        f"model.{GOLDEN.name}": check_base_model,
        f"model.{EMBEDDED.name}": check_embedded_model,
        f"tokenizer.{GOLDEN.name}": partial(check_tokenizer, GOLDEN),
        f"tokenizer.{EMBEDDED.name}": partial(check_tokenizer, EMBEDDED),
        "bitsandbytes": check_bitsandbytes,
        "environment": check_environment,
        "environment.proxy": check_proxy,
        "port": check_port,
    }
)
"""Each check, by the name of its finding or of its group of findings."""


def examine() -> Report:
    """Run every check; takes seconds, mostly for importing torch."""
    return Report(tuple(finding for name, check in CHECKS.items() for finding in _run(name, check)))


def _run(name: str, check: Callable[[], Finding | list[Finding]]) -> list[Finding]:
    """The findings of one check; one that the system refuses is a finding too, and the others still run."""
    try:
        found = check()
    except OSError as error:
        problem = system_problem(error)
        if problem is None:
            raise
        detail, _, remedy = problem.rstrip(".").partition("; ")
        return [Finding(name, "FAIL", detail, remedy)]
    return found if isinstance(found, list) else [found]
