"""pytest in processes of its own, forked from one that has imported the libraries.

A new interpreter imports torch, transformers and peft for seven seconds of a core; a fork of one that has, starts at
once. What the process sees is what ``python -m pytest`` gives it, but what a library reads on import has been read.
"""

from __future__ import annotations

import atexit
import multiprocessing
import os
import runpy
import subprocess
import sys
import tempfile
from pathlib import Path

_FORKS = multiprocessing.get_context("forkserver")
_FORKS.set_forkserver_preload(["tests.libraries"])


def run_pytest(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run ``python -m pytest arguments``, without its cache, in a folder and this process's environment."""
    # Plugins among the libraries were imported before pytest could rewrite their assertions.
    words = [*arguments, "-p", "no:cacheprovider", "-W", "ignore::pytest.PytestAssertRewriteWarning"]
    with tempfile.TemporaryDirectory() as folder:
        outputs = [Path(folder) / name for name in ("stdout", "stderr")]
        process = _FORKS.Process(target=_become, args=(words, cwd, dict(os.environ), outputs))
        process.start()
        process.join()
        assert process.exitcode is not None
        printed = [output.read_text(encoding="utf-8") if output.exists() else "" for output in outputs]
        return subprocess.CompletedProcess(["pytest", *words], process.exitcode, *printed)


def _become(words: list[str], where: Path, variables: dict[str, str], outputs: list[Path]) -> None:
    for descriptor, output in zip((1, 2), outputs, strict=True):
        with output.open("wb") as file:
            os.dup2(file.fileno(), descriptor)
    os.chdir(where)
    os.environ.clear()
    os.environ.update(variables)
    sys.argv = ["pytest", *words]
    sys.path.insert(0, str(where))
    try:
        runpy.run_module("pytest", run_name="__main__", alter_sys=True)
    finally:
        atexit._run_exitfuncs()  # the process of a fork server leaves them out
        sys.stdout.flush()
        sys.stderr.flush()
