"""What this machine has, what that allows, and what to do about the rest."""

from __future__ import annotations

import platform
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

import psutil

from pipeline.config import GIB, TARGETS
from pipeline.errors import PipelineError
from pipeline.files import cache_folder
from pipeline.runs import package_versions
from pipeline.targets import base_model_folder

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


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the report; FAIL means that not even the embedded target can run."""

    level: Literal["OK", "WARN", "FAIL"]
    subject: str
    detail: str
    remedy: str = ""


def examine() -> list[Finding]:
    """Look at Python, memory, disk, packages, the GPU and the golden base model."""
    return [_python(), _memory(), _disk(), *_packages(), _gpu(), _base_model()]


def _python() -> Finding:
    return Finding("OK", "Python", platform.python_version())


def _memory() -> Finding:
    needed_gib = TARGETS["smollm2-135m"].peak_memory_limit_gib
    available_gib = psutil.virtual_memory().available / GIB
    detail = f"{available_gib:.1f} GiB available, the embedded target may take {needed_gib:g}"
    if available_gib < needed_gib:
        return Finding("WARN", "memory", detail, "close other programs")
    return Finding("OK", "memory", detail)


def _disk() -> Finding:
    folder = next(path for path in (cache_folder(), *cache_folder().parents) if path.exists())
    free_gib = shutil.disk_usage(folder).free / GIB
    detail = f"{free_gib:.1f} GiB free for the cache"
    return (
        Finding("OK", "disk", detail)
        if free_gib >= 2
        else Finding("FAIL", "disk", detail, "free 2 GiB or set VERBOSITY_CACHE")
    )


def _packages() -> list[Finding]:
    findings = []
    for name, version in package_versions().items():
        pin = GOLDEN_PINS[name]
        if version is None:
            findings.append(Finding("FAIL", name, "missing", "install from constraints/current.txt"))
        elif version == pin:
            findings.append(Finding("OK", name, f"{version}, the golden pin"))
        else:
            findings.append(Finding("OK", name, f"{version} (golden pin: {pin})"))
    return findings


def _gpu() -> Finding:
    import torch

    if not torch.cuda.is_available():
        return Finding(
            "WARN", "GPU", "none that torch can use", "the golden path needs a CUDA GPU; the embedded target does not"
        )
    properties = torch.cuda.get_device_properties(0)
    return Finding("OK", "GPU", f"{properties.name}, {properties.total_memory / GIB:.1f} GiB")


def _base_model() -> Finding:
    try:
        folder = base_model_folder(TARGETS["mistral-7b-v0.3"])
    except PipelineError as error:
        return Finding("WARN", "mistral-7b-v0.3", str(error))
    return Finding("OK", "mistral-7b-v0.3", f"found in {folder}")
