"""Output that never fails a command, free of what other libraries remark, and errors of the system as one line."""

from __future__ import annotations

import errno
import io
import logging
import os
import signal
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout, suppress
from typing import Any, TextIO, cast

from pipeline.errors import PipelineError

_PERMISSIONS = "change its permissions or name another place"
_NO_SPACE = "make room or name another place"
_NO_DESCRIPTORS = "raise the limit (ulimit -n)"
_PLACE_REMEDIES = {
    errno.EACCES: _PERMISSIONS,
    errno.EPERM: _PERMISSIONS,
    errno.EROFS: "name a place that can be written",
    errno.ENOENT: "check the path",
    errno.ENOTDIR: "check the path",
    errno.EISDIR: "name a file, not a folder",
    errno.EEXIST: "name another place",
    errno.ENAMETOOLONG: "name a shorter path",
    errno.ELOOP: "repair the symbolic link",
    errno.EIO: "check the disk",
    errno.ESTALE: "mount the file system again",
}
"""What to do about an error at a path."""
_SYSTEM_REMEDIES = {
    errno.ENOSPC: _NO_SPACE,
    errno.EDQUOT: _NO_SPACE,
    errno.EFBIG: _NO_SPACE,
    errno.EMFILE: _NO_DESCRIPTORS,
    errno.ENFILE: _NO_DESCRIPTORS,
    errno.ENOMEM: "close other programs",
}
"""What to do about an error that need not name a path."""


class OutputLostError(PipelineError):
    """Standard output could not be written; the command itself came to its end."""


class ClosedPipeError(OutputLostError):
    """The reader of standard output ended, as ``head`` does; a shell expects this status and no message."""

    exit_status = 128 + signal.SIGPIPE


class _Stream:
    """A text stream that escapes what its encoding lacks; after an error of the system it discards everything."""

    def __init__(self, stream: TextIO | None) -> None:
        # Python has no stream where the user closed it, and some libraries need one.
        self._stream = stream or io.StringIO()
        self.error: OSError | None = None

    def write(self, text: str) -> int:
        if self.error is None:
            try:
                self._write(text)
            except OSError as error:
                self._discard(error)
        return len(text)

    def _write(self, text: str) -> None:
        try:
            self._stream.write(text)
        except UnicodeEncodeError as error:
            self._stream.write(text.encode(error.encoding, "backslashreplace").decode(error.encoding))

    def flush(self) -> None:
        if self.error is None:
            try:
                self._stream.flush()
            except OSError as error:
                self._discard(error)

    def _discard(self, error: OSError) -> None:
        self.error = error
        # Otherwise the interpreter fails at its end, when it writes what is left in the buffer.
        with suppress(OSError):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self._stream.fileno())
            os.close(nowhere)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextmanager
def reliable_output() -> Iterator[None]:
    """Within the block, writing to standard output or error never raises, so that no work is lost to it.

    Raises:
        OutputLostError: After the block, if standard output could not be written.
    """
    output, error_output = _Stream(sys.stdout), _Stream(sys.stderr)
    ended: SystemExit | None = None
    with redirect_stdout(cast(TextIO, output)), redirect_stderr(cast(TextIO, error_output)):
        try:
            yield
        except SystemExit as error:  # argparse: its help was printed, or a usage error
            ended = error
        finally:
            output.flush()
            error_output.flush()
    if ended is not None and (ended.code or output.error is None):
        raise ended
    if isinstance(output.error, BrokenPipeError):
        raise ClosedPipeError("standard output was closed by its reader.")
    if output.error is not None:
        raise OutputLostError(f"standard output: {output.error.strerror}; make room or send it elsewhere.")


def quiet_libraries() -> None:
    """Keep from the terminal what other libraries say and no user can act on; before they are imported."""
    # That a package which would fetch compiled kernels at run time is missing; the built-in ones are used.
    logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)
    # PEFT 0.21 asks transformers 5 for a property under its old name.
    warnings.filterwarnings("ignore", message="`is_gradient_checkpointing` is deprecated", category=FutureWarning)


def system_problem(error: OSError) -> str | None:
    """Say what failed and what to do about it, in one line; None if the error is none of the user's system."""
    remedy = _SYSTEM_REMEDIES.get(error.errno or 0)
    place = error.filename2 or error.filename
    if str(error.strerror).startswith("No usable temporary directory"):
        remedy = "set TMPDIR to a folder that can be written"
    if remedy is None and place is not None:
        remedy = _PLACE_REMEDIES.get(error.errno or 0)
    if remedy is None:
        return None
    named = f"{os.fsdecode(place)}: " if isinstance(place, str | bytes | os.PathLike) else ""
    return f"{named}{error.strerror}; {remedy}."
