"""Giving freed memory back to the operating system."""

from __future__ import annotations

import ctypes
import gc


def return_freed_memory() -> None:
    """Collect garbage and give what is free back, which glibc otherwise keeps: after loading a model half of it.

    Elsewhere than on glibc only garbage is collected.
    """
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
