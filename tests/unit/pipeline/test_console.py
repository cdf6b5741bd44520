from __future__ import annotations

import argparse
import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.cli import main
from pipeline.commands import Command

SAY = """
import sys
from pathlib import Path
from pipeline import cli
from pipeline.commands import Command

def run(arguments):
    print("caf\\xe9 \\u2192 \\ud800", flush=True)
    print("warned \\u2192", file=sys.stderr, flush=True)
    Path(arguments.done).touch()
    return 0

cli.COMMANDS = {"say": Command("", lambda parser: parser.add_argument("done"), run)}
sys.exit(cli.main())
"""


def say(done: Path, redirection: str = "", **variables: str) -> subprocess.CompletedProcess[str]:
    """Run a command that prints, works and ends well; ``redirection`` is the shell's."""
    return subprocess.run(
        ["bash", "-c", f'"$@" {redirection}', "bash", sys.executable, "-c", SAY, "say", str(done)],
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
        errors="surrogateescape",
        check=False,
        timeout=60,
    )


@pytest.mark.parametrize(
    ("encoding", "shown"),
    [
        ("ascii", "caf\\xe9 \\u2192 \\ud800\n"),
        ("latin-1", "caf\udce9 \\u2192 \\ud800\n"),
        ("utf-8", "café → \\ud800\n"),
    ],
)
def test_what_an_encoding_lacks_is_escaped(encoding: str, shown: str, tmp_path: Path) -> None:
    finished = say(tmp_path / "done", PYTHONIOENCODING=encoding)
    assert (finished.returncode, finished.stdout) == (0, shown)


def test_a_full_disk_behind_the_output_is_one_line_and_the_work_goes_on(tmp_path: Path) -> None:
    finished = say(tmp_path / "done", "> /dev/full", PYTHONIOENCODING="ascii")
    assert finished.returncode == 1
    assert finished.stderr == (
        "warned \\u2192\nverbosity: standard output: No space left on device; make room or send it elsewhere.\n"
    )
    assert (tmp_path / "done").exists()


def test_a_reader_that_has_gone_ends_nothing_and_the_status_is_the_shells(tmp_path: Path) -> None:
    finished = say(tmp_path / "done", "| true; exit ${PIPESTATUS[0]}", PYTHONIOENCODING="ascii")
    reader, writer = os.pipe()
    os.close(reader)
    assert finished.returncode in (0, 141)  # it may have written before its reader ended
    with os.fdopen(writer, "w") as closed:
        process = subprocess.run(
            [sys.executable, "-c", SAY, "say", str(tmp_path / "again")],
            stdout=closed,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONIOENCODING": "ascii"},
            check=False,
            timeout=60,
        )
    assert (process.returncode, process.stderr) == (141, "warned \\u2192\n")
    assert (tmp_path / "again").exists()


@pytest.mark.parametrize("redirection", ["2> /dev/full", "2>&-", ">&-"])
def test_streams_that_are_closed_or_full_do_not_fail_a_command(redirection: str, tmp_path: Path) -> None:
    finished = say(tmp_path / "done", redirection)
    assert finished.returncode == 0
    assert "Traceback" not in finished.stderr
    assert (tmp_path / "done").exists()


def test_help_into_a_full_disk_is_one_line() -> None:
    finished = subprocess.run(
        ["bash", "-c", '"$0" -m pipeline.cli --help > /dev/full', sys.executable],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert finished.returncode == 1
    assert finished.stderr == "verbosity: standard output: No space left on device; make room or send it elsewhere.\n"


def failing(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> int:
    def run(arguments: argparse.Namespace) -> int:
        raise error

    monkeypatch.setattr("pipeline.cli.COMMANDS", {"work": Command("", lambda parser: None, run)})
    return main(["work"])


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (
            PermissionError(errno.EACCES, "Permission denied", "data"),
            "data: Permission denied; change its permissions or name another place.",
        ),
        (
            OSError(errno.EROFS, "Read-only file system", "/run", None, "/run/new"),
            "/run/new: Read-only file system; name a place that can be written.",
        ),
        (OSError(errno.ENOSPC, "No space left on device"), "No space left on device; make room or name another place."),
        (OSError(errno.EMFILE, "Too many open files"), "Too many open files; raise the limit (ulimit -n)."),
        (
            FileNotFoundError(errno.ENOENT, "No usable temporary directory found in ['/tmp']"),
            "No usable temporary directory found in ['/tmp']; set TMPDIR to a folder that can be written.",
        ),
        (NotADirectoryError(errno.ENOTDIR, "Not a directory", b"a/b"), "a/b: Not a directory; check the path."),
    ],
)
def test_an_error_of_the_system_is_one_line_with_its_remedy(
    error: OSError, line: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert failing(monkeypatch, error) == 1
    assert capsys.readouterr().err == f"verbosity work: {line}\n"


@pytest.mark.parametrize("error", [OSError("a library's own"), OSError(errno.EBADF, "Bad file descriptor")])
def test_an_error_that_may_be_a_bug_keeps_its_traceback(error: OSError, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(OSError, match=str(error.args[-1])):
        failing(monkeypatch, error)


def test_an_interruption_is_one_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert failing(monkeypatch, KeyboardInterrupt()) == 130
    assert capsys.readouterr().err == "verbosity work: interrupted.\n"


def test_what_is_lost_at_the_end_is_one_line_too(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(arguments: argparse.Namespace) -> int:
        print("kept in the buffer until the end")
        return 0

    monkeypatch.setattr("pipeline.cli.COMMANDS", {"work": Command("", lambda parser: None, run)})
    with open("/dev/full", "w", encoding="utf-8") as full:
        monkeypatch.setattr(sys, "stdout", full)
        assert main(["work"]) == 1
    assert capsys.readouterr().err == (
        "verbosity: standard output: No space left on device; make room or send it elsewhere.\n"
    )
