"""The GPU as reported by its driver, and whether torch can use it."""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass

from pipeline.config import GIB, TARGETS
from pipeline.doctor.findings import Finding
from pipeline.environment import torch_is_installed

FIELDS = ("name", "driver_version", "compute_cap", "memory.free", "memory.total")
BFLOAT16_CAPABILITY = (8, 0)
"""The first compute capability with bfloat16 arithmetic (Ampere)."""
QUERY_LIMIT_S = 20.0
NO_GPU_REMEDY = "the golden path needs a CUDA GPU; the embedded target does not"


@dataclass(frozen=True, slots=True)
class GpuState:
    """The current state of a GPU; memory in GiB."""

    name: str
    driver: str
    capability: tuple[int, int]
    free_gib: float
    total_gib: float


def query_gpu() -> GpuState | None:
    """The GPU that the golden path uses, from ``nvidia-smi``, which needs no CUDA context; None if there is none."""
    device = os.environ.get("CUDA_VISIBLE_DEVICES", "0").partition(",")[0]
    command = ["nvidia-smi", f"--id={device}", f"--query-gpu={','.join(FIELDS)}", "--format=csv,noheader,nounits"]
    try:
        finished = subprocess.run(command, capture_output=True, text=True, check=True, timeout=QUERY_LIMIT_S)
    except (OSError, subprocess.SubprocessError):
        return None
    return parse_gpu(finished.stdout)


def query_torch() -> GpuState | None:
    """The same from torch, if ``nvidia-smi`` is missing or does not list the device, such as a MIG slice."""
    if not torch_is_installed():
        return None
    import torch

    if not torch.cuda.is_available():
        return None
    free_bytes, total_bytes = torch.cuda.mem_get_info()
    capability = torch.cuda.get_device_capability()
    return GpuState(torch.cuda.get_device_name(), "unknown", capability, free_bytes / GIB, total_bytes / GIB)


def parse_gpu(output: str) -> GpuState | None:
    """Parse ``nvidia-smi``'s line of ``FIELDS``; None if it cannot be parsed, for example for a lost GPU."""
    try:
        name, driver, capability, free_mib, total_mib = (cell.strip() for cell in output.splitlines()[0].split(","))
        major, minor = capability.split(".")
        return GpuState(name, driver, (int(major), int(minor)), float(free_mib) / 1024, float(total_mib) / 1024)
    except (IndexError, ValueError):
        return None


def check_gpu() -> list[Finding]:
    """Name and driver, usability from torch, compute capability and free memory."""
    gpu = query_gpu() or query_torch()
    if gpu is None:
        return [Finding("gpu", "WARN", "none that nvidia-smi or torch can see", NO_GPU_REMEDY, blocks_golden=True)]
    return [
        Finding("gpu", "OK", f"{gpu.name}, driver {gpu.driver}"),
        _cuda(gpu),
        _capability(gpu),
        _memory(gpu),
    ]


def _cuda(gpu: GpuState) -> Finding:
    if not torch_is_installed():
        return Finding("gpu.cuda", "WARN", "torch is not installed", "pip install 'verbosity[train]'", True)
    import torch

    if torch.version.cuda is None:
        remedy = "install a CUDA build of torch"
        return Finding("gpu.cuda", "WARN", f"torch {torch.__version__} is a CPU build", remedy, True)
    if not torch.cuda.is_available():
        detail = f"torch's CUDA {torch.version.cuda} cannot use the GPU with driver {gpu.driver}"
        return Finding("gpu.cuda", "WARN", detail, "update the driver", True)
    return Finding("gpu.cuda", "OK", f"CUDA {torch.version.cuda}, of torch")


def _capability(gpu: GpuState) -> Finding:
    detail = f"{gpu.capability[0]}.{gpu.capability[1]}"
    if gpu.capability < BFLOAT16_CAPABILITY:
        detail += " has no bfloat16 arithmetic, which golden computes in"
        return Finding("gpu.capability", "WARN", detail, "use a GPU of capability 8.0 or newer (Ampere)", True)
    return Finding("gpu.capability", "OK", f"{detail}, with bfloat16 arithmetic")


def _memory(gpu: GpuState) -> Finding:
    needed_gib = TARGETS["mistral-7b-v0.3"].peak_memory_limit_gib
    detail = f"{gpu.free_gib:.1f} of {gpu.total_gib:.1f} GiB free, the golden path may take {needed_gib:g}"
    if gpu.free_gib < needed_gib:
        return Finding("gpu.memory", "WARN", detail, "end what else uses the GPU, or use a larger one", True)
    return Finding("gpu.memory", "OK", detail)
