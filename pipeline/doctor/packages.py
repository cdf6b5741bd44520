"""Installed packages compared with the versions pinned by the documented configuration."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from packaging.version import Version

from pipeline.doctor.findings import Finding
from pipeline.run_folder import package_versions

GOLDEN_PINS: Mapping[str, str] = MappingProxyType(
    {
        "transformers": "4.54.0",
        "torch": "2.7.1+cu126",
        "peft": "0.16.0",
        "accelerate": "1.9.0",
        "bitsandbytes": "0.46.1",
        "datasets": "3.6.0",
    }
)
TRAINING_EXTRA = "pip install 'verbosity[train]'"


def check_packages() -> list[Finding]:
    """Compare each pinned package; the pins are the oldest supported versions."""
    return [compare(name, version, GOLDEN_PINS[name]) for name, version in package_versions().items()]


def compare(name: str, version: str | None, pin: str) -> Finding:
    """Compare an installed version with the golden pin.

    Args:
        name: Name of the package.
        version: Installed version; None if it is missing.
        pin: The pinned version, with a build label if the documented configuration has one.
    """
    check = f"package.{name}"
    if version is None:
        return Finding(check, "FAIL", f"missing (golden pin {pin})", TRAINING_EXTRA)
    here, golden = Version(version), Version(pin)
    if Version(here.public) < Version(golden.public):
        remedy = f"pip install --upgrade --constraint constraints/golden.txt {name}"
        return Finding(check, "FAIL", f"{version}, older than the golden pin {pin}, the oldest supported", remedy)
    if Version(here.public) > Version(golden.public):
        return Finding(check, "OK", f"{version}, newer than the golden pin {pin}")
    # Builds from the package index have no label.
    if here.local and golden.local and here.local != golden.local:
        remedy = f"for the golden path install {pin}"
        return Finding(check, "WARN", f"{version}, the version of the golden pin {pin} in another build", remedy)
    return Finding(check, "OK", f"{version}, same as the golden pin")
