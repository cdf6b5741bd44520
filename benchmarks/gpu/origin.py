"""Where a GPU result comes from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from harness.provenance import collect

ROOT = Path(__file__).resolve().parents[2]


def origin() -> dict[str, Any]:
    """Commit, machine and versions, and the GPU with its driver if there is one."""
    import torch

    gpu = None
    if torch.cuda.is_available():
        properties = torch.cuda.get_device_properties(0)
        gpu = {
            "name": properties.name,
            "memory_gib": round(properties.total_memory / 2**30, 1),
            "multiprocessors": properties.multi_processor_count,
            "cuda": torch.version.cuda,
        }
    return {"provenance": collect(ROOT), "gpu": gpu}
