"""Where a result comes from: commit, machine and package versions, without names or paths."""

from __future__ import annotations

import os
import platform
import subprocess
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path

PACKAGES = (
    "torch",
    "transformers",
    "peft",
    "accelerate",
    "bitsandbytes",
    "datasets",
    "pytest",
    "flask",
    "numpy",
    "scipy",
)
_NAMED_FILES = 10


class DirtyTreeError(RuntimeError):
    """The working tree has uncommitted changes."""


def collect(root: Path) -> dict[str, object]:
    """Describe the code, machine and packages of this run.

    Args:
        root: A folder of the working tree.

    Returns:
        JSON-ready values; ``git_commit`` and ``git_dirty`` are None outside git, a missing package's version
        is None. Memory is in GiB. No host name, user name or path is included.
    """
    import psutil  # here, because every suite imports this module

    changed = changed_files(root)
    return {
        "git_commit": _git(root, "rev-parse", "--verify", "--quiet", "HEAD"),
        "git_dirty": None if changed is None else bool(changed),
        "time_utc": datetime.now(UTC).isoformat(timespec="seconds"),
        "os": f"{platform.system()} {platform.release()}",
        "machine": platform.machine(),
        "cpu_model": _cpu_model(),
        "cpu_count": os.cpu_count(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "python_version": platform.python_version(),
        "packages": {name: _version(name) for name in PACKAGES},
    }


def changed_files(root: Path) -> list[str] | None:
    """Return changed and untracked files of the working tree, or None outside git."""
    status = _git(root, "status", "--porcelain", "--untracked-files=all")
    return None if status is None else [line[2:].strip() for line in status.splitlines()]


def require_clean(root: Path) -> None:
    """Refuse a working tree with uncommitted changes.

    Raises:
        DirtyTreeError: Files are changed or untracked, there is no commit, or ``root`` is outside git.
    """
    changed = changed_files(root)
    if changed is None or _git(root, "rev-parse", "--verify", "--quiet", "HEAD") is None:
        raise DirtyTreeError("there is no git commit to refer to: commit the code first")
    if changed:
        named = ", ".join(changed[:_NAMED_FILES])
        more = f" and {len(changed) - _NAMED_FILES} more" if len(changed) > _NAMED_FILES else ""
        raise DirtyTreeError(f"uncommitted changes: {named}{more}. Commit, stash or ignore them first")


def _git(root: Path, *arguments: str) -> str | None:
    # Without the option ``git status`` writes the index, which a read must not do.
    command = ["git", "--no-optional-locks", "-C", str(root), *arguments]
    try:
        finished = subprocess.run(command, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return finished.stdout.rstrip("\n")


def cpu_kind() -> str:
    """Return the CPU's maker and whether it has matrix instructions, such as ``intel-amx``.

    Libraries choose their kernels by both, and another kernel sums a product in another order. Where the system does
    not name the maker, it is the architecture, such as ``arm64``.
    """
    first = _first_cpu()
    maker = {"GenuineIntel": "intel", "AuthenticAMD": "amd"}.get(first.get("vendor_id", ""), platform.machine().lower())
    return f"{maker}-amx" if "amx_tile" in first.get("flags", "").split() else maker


def _first_cpu() -> dict[str, str]:
    """What Linux says about the first processor; empty on other systems."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return {}
    pairs = (line.partition(":") for line in text.partition("\n\n")[0].splitlines())
    return {name.strip(): value.strip() for name, _, value in pairs}


def _cpu_model() -> str | None:
    return _first_cpu().get("model name") or platform.processor() or None


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
