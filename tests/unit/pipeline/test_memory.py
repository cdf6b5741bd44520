"""Peak memory where there is a GPU, and where there is no ``/proc``; memory that is given back."""

from __future__ import annotations

import resource
import sys
from pathlib import Path

import psutil
import pytest
import torch

from pipeline.config import GIB
from pipeline.memory import peak_memory, peak_resident_bytes, return_freed_memory

CHUNK_BYTES, CHUNKS = 100_000, 1000


def test_memory_of_a_gpu_is_what_torch_and_the_driver_say(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda: (20 * GIB, 22 * GIB))
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda: GIB)
    monkeypatch.setattr(torch.cuda, "max_memory_reserved", lambda: 3 * GIB // 2)
    figures = peak_memory("cuda")
    assert figures.pop("rss_gib") > 0
    assert figures == {"cuda_allocated_gib": 1.0, "cuda_reserved_gib": 1.5, "cuda_driver_gib": 2.0}


def test_where_there_is_no_proc_the_system_is_asked_in_its_own_unit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    monkeypatch.setattr("pipeline.memory.Path", lambda name: tmp_path / "none")
    assert peak_resident_bytes() == pytest.approx(1024 * expected, rel=0.05)
    monkeypatch.setattr(sys, "platform", "darwin")
    assert peak_resident_bytes() == pytest.approx(expected, rel=0.05)


def test_what_is_free_goes_back_although_something_behind_it_is_kept() -> None:
    process = psutil.Process()
    chunks = [bytearray(CHUNK_BYTES) for _ in range(CHUNKS)]
    kept = chunks.pop()
    del chunks
    held_bytes = process.memory_info().rss
    return_freed_memory()
    assert held_bytes - process.memory_info().rss > CHUNK_BYTES * CHUNKS / 2
    assert not any(kept)
