"""Every check, in the order of the report."""

from __future__ import annotations

from pipeline.doctor.arithmetic import check_bitsandbytes
from pipeline.doctor.findings import Report
from pipeline.doctor.gpu import check_gpu
from pipeline.doctor.machine import check_disks, check_environment, check_memory, check_port, check_python
from pipeline.doctor.models import EMBEDDED, GOLDEN, check_base_model, check_embedded_model, check_tokenizer
from pipeline.doctor.packages import check_packages


def examine() -> Report:
    """Run every check; takes seconds, mostly for importing torch."""
    return Report(
        (
            check_python(),
            *check_packages(),
            *check_gpu(),
            check_memory(),
            *check_disks(),
            check_base_model(),
            check_embedded_model(),
            check_tokenizer(GOLDEN),
            check_tokenizer(EMBEDDED),
            *check_bitsandbytes(),
            *check_environment(),
            check_port(),
        )
    )
