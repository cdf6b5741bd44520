"""Python modules in processes of their own, forked from one that has imported the libraries.

A new interpreter imports torch, transformers and peft for seven seconds of a core; a fork of one that has, starts at
once. What the process sees is what ``python -m`` gives it: arguments, folder, environment, exit status, output.
"""

from __future__ import annotations

import atexit
import multiprocessing
import os
import runpy
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

LIBRARIES = "tests.libraries"
_FORKS = multiprocessing.get_context("forkserver")
_FORKS.set_forkserver_preload([LIBRARIES])


def run_module(
    module: str, *arguments: str, cwd: Path | None = None, env: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run ``python -m module arguments`` to its end.

    Args:
        module: The module.
        arguments: Its arguments.
        cwd: Folder to run in; None for the current one.
        env: The environment; None for the current one. What a library reads on import has been read.
    """
    with tempfile.TemporaryDirectory() as folder:
        outputs = [Path(folder) / name for name in ("stdout", "stderr")]
        where, variables = Path(cwd or Path.cwd()), dict(os.environ if env is None else env)
        process = _FORKS.Process(target=_become, args=(module, arguments, where, variables, outputs))
        process.start()
        process.join()
        assert process.exitcode is not None
        printed = [output.read_text(encoding="utf-8") if output.exists() else "" for output in outputs]
        return subprocess.CompletedProcess([module, *arguments], process.exitcode, *printed)


def run_pytest(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run pytest, without its cache, in a folder."""
    # Plugins among the libraries were imported before pytest could rewrite their assertions.
    quiet = ("-p", "no:cacheprovider", "-W", "ignore::pytest.PytestAssertRewriteWarning")
    return run_module("pytest", *arguments, *quiet, cwd=cwd)


def _become(
    module: str, arguments: tuple[str, ...], where: Path, variables: dict[str, str], outputs: list[Path]
) -> None:
    for descriptor, output in zip((1, 2), outputs, strict=True):
        with output.open("wb") as file:
            os.dup2(file.fileno(), descriptor)
    os.chdir(where)
    os.environ.clear()
    os.environ.update(variables)
    sys.argv = [module, *arguments]
    sys.path.insert(0, str(where))
    try:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    finally:
        atexit._run_exitfuncs()  # the process of a fork server leaves them out
        sys.stdout.flush()
        sys.stderr.flush()
