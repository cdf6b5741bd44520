"""Memory of this process: resident now, at its peak, and given back."""

from __future__ import annotations

import ctypes
import gc
import sys
from pathlib import Path

from pipeline.config import GIB
from pipeline.environment import torch_is_installed

TRAINING_LIBRARIES_BYTES = 360 * 1024**2
"""Resident memory that importing torch and PEFT adds to a process, measured with the CPU build of torch 2.13.0 (CUDA
build of 2.7.1: 545 MiB). Used only for plans made without torch."""


def resident_bytes() -> int:
    """Resident memory of this process in bytes: Python, the libraries imported so far, the tokenizer and the data."""
    import psutil

    return int(psutil.Process().memory_info().rss)


def missing_libraries_bytes() -> int:
    """Resident memory in bytes of the libraries that training will import but this process cannot; 0 with torch."""
    return 0 if torch_is_installed() else TRAINING_LIBRARIES_BYTES


def peak_resident_bytes() -> int:
    """Peak resident memory of this process in bytes.

    Read from ``/proc``, because ``getrusage`` also counts the parent process before ``exec``.
    """
    status = Path("/proc/self/status")
    if status.exists():
        (line,) = [line for line in status.read_text(encoding="ascii").splitlines() if line.startswith("VmHWM:")]
        return int(line.split()[1]) * 1024
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def peak_memory(device: str) -> dict[str, float]:
    """Peak memory in GiB: the resident set; on CUDA also allocated, reserved and the driver's figure."""
    figures = {"rss_gib": peak_resident_bytes() / GIB}
    if device == "cuda":
        import torch

        free_bytes, total_bytes = torch.cuda.mem_get_info()
        figures["cuda_allocated_gib"] = torch.cuda.max_memory_allocated() / GIB
        figures["cuda_reserved_gib"] = torch.cuda.max_memory_reserved() / GIB
        figures["cuda_driver_gib"] = (total_bytes - free_bytes) / GIB
    return figures


def return_freed_memory() -> None:
    """Collect garbage and give what is free back, which glibc otherwise keeps: after loading a model half of it.

    Elsewhere than on glibc only garbage is collected.
    """
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
