"""Checks of Python, memory, disks, environment variables and the server's port."""

from __future__ import annotations

import os
import platform
import shutil
import socket
import sys
from pathlib import Path

import psutil

from pipeline.config import DEFAULT_PORT, GIB, TARGETS
from pipeline.doctor.findings import Finding
from pipeline.environment import GOLDEN_VARIABLES, wanted_environment
from pipeline.files import cache_folder

OLDEST_PYTHON = (3, 11)
CACHE_GIB = 2
"""Cache size: the embedded model in float32 and tokenised data."""
GOLDEN_RUN_GIB = 6
"""Size of a golden run: adapter (1.2 GiB in float32), one checkpoint (adapter and AdamW's two moments), report."""


def check_python() -> Finding:
    """Whether Python is new enough."""
    if sys.version_info < OLDEST_PYTHON:
        return Finding("python", "FAIL", platform.python_version(), "install Python 3.11 or newer")
    return Finding("python", "OK", platform.python_version())


def check_memory() -> Finding:
    """Whether the embedded target fits in the available memory."""
    needed_gib = TARGETS["smollm2-135m"].peak_memory_limit_gib
    memory = psutil.virtual_memory()
    available_gib = memory.available / GIB
    detail = f"{available_gib:.1f} of {memory.total / GIB:.1f} GiB free, the embedded target may take {needed_gib:g}"
    if available_gib < needed_gib:
        return Finding("memory", "WARN", detail, "close other programs")
    return Finding("memory", "OK", detail)


def check_disks() -> list[Finding]:
    """Whether there is space for the cache, and for a golden run in the current folder."""
    cache = next(path for path in (cache_folder(), *cache_folder().parents) if path.exists())
    cache_gib, here_gib = (shutil.disk_usage(folder).free / GIB for folder in (cache, Path.cwd()))
    cache_detail = f"{cache_gib:.1f} GiB free for the cache, which may take {CACHE_GIB}"
    here_detail = f"{here_gib:.1f} GiB free in the current folder, a golden run takes up to {GOLDEN_RUN_GIB}"
    findings = [Finding("disk.cache", "OK", cache_detail), Finding("disk.results", "OK", here_detail)]
    if cache_gib < CACHE_GIB:
        findings[0] = Finding("disk.cache", "FAIL", cache_detail, "make room or set VERBOSITY_CACHE to another disk")
    if here_gib < GOLDEN_RUN_GIB:
        findings[1] = Finding("disk.results", "WARN", here_detail, "make room or work elsewhere", blocks_golden=True)
    return findings


def check_environment() -> list[Finding]:
    """Whether each wanted environment variable has its value; the commands set those that are unset."""
    findings = []
    for name, wanted in wanted_environment().items():
        check, value = f"environment.{name}", os.environ.get(name)
        source = "golden path" if name in GOLDEN_VARIABLES else "project"
        if value is None:
            detail = f"not set, wanted {wanted!r} ({source})"
            findings.append(Finding(check, "WARN", detail, "run it through the verbosity command, which sets it"))
        elif value == wanted:
            findings.append(Finding(check, "OK", f"{value!r}, as wanted ({source})"))
        else:
            findings.append(Finding(check, "WARN", f"{value!r}, wanted {wanted!r} ({source})", f"unset {name}"))
    return findings


def check_port(port: int = DEFAULT_PORT) -> Finding:
    """Whether the server's default port is free on loopback."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            detail = f"{port}, the server's default, is taken ({error.strerror})"
            return Finding("port", "WARN", detail, "verbosity serve --port 0 takes a free one")
    return Finding("port", "OK", f"{port}, the server's default, is free")
