"""Atomic file writes."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

_READABLE_BY_ALL = 0o644


def write_text_atomically(path: Path, text: str) -> Path:
    """Write ``text`` to a temporary file beside ``path`` and rename it into place.

    Args:
        path: The file to create or replace; missing parent folders are made.
        text: The complete content, written as UTF-8.

    Returns:
        ``path``.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
            stream.write(text)
        # mkstemp makes the file private; a report is meant to be read by others too.
        os.chmod(temporary, _READABLE_BY_ALL)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    return path
