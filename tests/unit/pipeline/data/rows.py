"""Rows of each format that are as they should be, to be broken in one place at a time."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

TERSE = {"messages": [{"role": "user", "content": "Briefly, why?"}, {"role": "assistant", "content": "Because."}]}
VERBOSE = {"messages": [{"role": "user", "content": "A detailed why."}, {"role": "assistant", "content": "Well, ..."}]}
COMPLETION = {"prompt": "Why?", "completion": "Because.", "style": "terse"}
PAIR = {"prompt": "Why?", "terse": "Because.", "verbose": "There are three reasons."}


def jsonl(*rows: Any) -> bytes:
    """One line a row; a string is a line as it stands."""
    return "".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows).encode()


def write(path: Path, *rows: Any) -> Path:
    path.write_bytes(jsonl(*rows))
    return path


def message(index: int, **fields: Any) -> dict[str, Any]:
    """The good terse row with one message changed."""
    messages = [dict(entry) for entry in TERSE["messages"]]
    messages[index].update(fields)
    return {"messages": messages}
