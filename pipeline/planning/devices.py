"""What devices have: memory that a run may use and speeds, as data, and what is free on this machine."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from pipeline.config import GIB
from pipeline.environment import torch_is_installed
from pipeline.errors import PipelineError
from pipeline.memory import resident_bytes

CUDA_CONTEXT_BYTES = int(0.78 * GIB)
"""What a process holds on a GPU outside torch's allocator (CUDA context, kernels of cuBLAS and bitsandbytes): the
driver's 11.57 GiB less 10.79 reserved, from one golden run on an H200; smaller GPUs need less."""


@dataclass(frozen=True, slots=True)
class Gpu:
    """One kind of GPU.

    Attributes:
        name: Its name on the command line; its words are found in the name that the driver gives.
        usable_gib: What the driver offers to one process, in GiB, its CUDA context included.
        bf16_tflops: Dense bfloat16 matrix products with float32 sums, in 1e12 operations per second, from data sheets.
        bandwidth_gb_per_s: Of its memory, in 1e9 bytes per second, from data sheets.
        source: Where the figures are from.
    """

    name: str
    usable_gib: float
    bf16_tflops: float
    bandwidth_gb_per_s: float
    source: str


GPUS: Mapping[str, Gpu] = MappingProxyType(
    {
        gpu.name: gpu
        for gpu in (
            Gpu("a10g", 22.0, 70.0, 600.0, "golden (memory); NVIDIA A10G data sheet"),
            Gpu("l4", 22.0, 121.0, 300.0, "NVIDIA L4 data sheet, 24 GB less ECC and reserve"),
            Gpu("t4", 14.5, 8.1, 320.0, "NVIDIA T4 data sheet, 16 GB less ECC; no bfloat16 units, so its float32 rate"),
            Gpu("a100", 79.1, 312.0, 2039.0, "NVIDIA A100 80GB SXM data sheet, less reserve"),
            Gpu("h100", 79.1, 989.0, 3350.0, "NVIDIA H100 SXM data sheet, less reserve"),
            Gpu("h200", 139.7, 989.0, 4800.0, "NVIDIA H200 data sheet, less reserve"),
            Gpu("rtx-4090", 23.5, 165.0, 1008.0, "NVIDIA Ada architecture paper, 24 GB less reserve"),
            Gpu("rtx-4060", 7.6, 30.0, 272.0, "NVIDIA RTX 4060 data sheet, 8 GB less reserve"),
        )
    }
)


@dataclass(frozen=True, slots=True)
class Device:
    """Where a run is planned.

    Attributes:
        name: For the reader.
        kind: ``cpu`` or ``cuda``.
        available_bytes: What the run may take, what it holds already included.
        gpu: Its speeds; None on a CPU and on a GPU that the table lacks.
        threads: Of a CPU's matrix products.
    """

    name: str
    kind: str
    available_bytes: int
    gpu: Gpu | None = None
    threads: int = 1


def named_gpu(name: str) -> Device:
    """A GPU of the table, with nothing else on it."""
    gpu = GPUS[name]
    return Device(name, "cuda", int(gpu.usable_gib * GIB), gpu)


def this_device(kind: str) -> Device:
    """This machine's CPU or GPU with what is free on it now.

    Args:
        kind: ``cpu`` or ``cuda``.

    Raises:
        PipelineError: ``cuda`` was asked for and there is none.
    """
    import psutil

    if kind == "cpu":
        available_bytes = psutil.virtual_memory().available + resident_bytes()
        return Device("this CPU", kind, available_bytes, threads=_cpu_threads())
    if not _cuda_is_available():
        raise PipelineError(f"no CUDA device found; name the GPU to plan for: --gpu {'|'.join(GPUS)}.")
    import torch

    name = torch.cuda.get_device_name(0)
    # Asking creates the context, which is then no longer free.
    return Device(name, kind, torch.cuda.mem_get_info()[0] + CUDA_CONTEXT_BYTES, find_gpu(name))


def _cuda_is_available() -> bool:
    if not torch_is_installed():
        return False
    import torch

    return torch.cuda.is_available()


def _cpu_threads() -> int:
    if not torch_is_installed():
        import psutil

        return psutil.cpu_count(logical=False) or 1
    import torch

    return torch.get_num_threads()


def find_gpu(device_name: str) -> Gpu | None:
    """The table's entry for a driver's name such as ``NVIDIA A100-SXM4-80GB``; None if it has none."""
    words = set(re.split(r"[\s-]+", device_name.lower()))
    return next((gpu for gpu in GPUS.values() if words >= set(gpu.name.split("-"))), None)
