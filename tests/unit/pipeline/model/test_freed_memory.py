from __future__ import annotations

import psutil

from pipeline.model.freed_memory import return_freed_memory

CHUNK_BYTES, CHUNKS = 100_000, 1000


def test_what_is_free_goes_back_although_something_behind_it_is_kept() -> None:
    process = psutil.Process()
    chunks = [bytearray(CHUNK_BYTES) for _ in range(CHUNKS)]
    kept = chunks.pop()
    del chunks
    held_bytes = process.memory_info().rss
    return_freed_memory()
    assert held_bytes - process.memory_info().rss > CHUNK_BYTES * CHUNKS / 2
    assert not any(kept)
