"""The kind of CPU names snapshots: another maker's library kernels, or matrix instructions, round differently."""

from __future__ import annotations

import platform
from pathlib import Path

import pytest

from harness.provenance import cpu_kind

AMD = "processor\t: 0\nvendor_id\t: AuthenticAMD\nmodel name\t: AMD EPYC\nflags\t\t: fpu avx512f\n"
SECOND = "\nprocessor\t: 1\nvendor_id\t: GenuineIntel\nflags\t\t: amx_tile\n"
INTEL = "processor\t: 0\nvendor_id\t: GenuineIntel\nflags\t\t: fpu avx512f amx_bf16 amx_tile\n"


@pytest.mark.parametrize(
    ("cpuinfo", "kind"),
    [
        (AMD + SECOND, "amd"),
        (INTEL, "intel-amx"),
        (INTEL.replace("amx_tile", ""), "intel"),
        ("processor\t: 0\nBogoMIPS\t: 50.00\n", platform.machine().lower()),
    ],
)
def test_the_kind_of_cpu_is_maker_and_matrix_instructions(
    monkeypatch: pytest.MonkeyPatch, cpuinfo: str, kind: str
) -> None:
    monkeypatch.setattr(Path, "read_text", lambda *_, **__: cpuinfo)
    assert cpu_kind() == kind


def test_a_system_without_cpuinfo_is_named_by_its_architecture(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(*_: object, **__: object) -> str:
        raise FileNotFoundError

    monkeypatch.setattr(Path, "read_text", missing)
    assert cpu_kind() == platform.machine().lower()
