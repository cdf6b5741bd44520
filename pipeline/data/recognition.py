"""What a file is if it is not UTF-8 JSON lines, recognised from its first line."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from types import MappingProxyType

_MAGIC: Mapping[bytes, str] = MappingProxyType(
    {
        b"\x1f\x8b": "compressed with gzip twice; decompress it once (gunzip)",
        b"BZh": "compressed with bzip2; decompress it (bunzip2) or use gzip",
        b"\xfd7zXZ\x00": "compressed with xz; decompress it (unxz) or use gzip",
        b"\x28\xb5\x2f\xfd": "compressed with zstd; decompress it (unzstd) or use gzip",
        b"PK\x03\x04": "a zip archive; unpack it (unzip)",
        b"7z\xbc\xaf\x27\x1c": "a 7z archive; unpack it (7z x)",
        b"PAR1": "a Parquet file; convert it to JSON lines",
        b"ARROW1": "an Arrow file; convert it to JSON lines",
        b"\x89HDF": "an HDF5 file; convert it to JSON lines",
        b"SQLite format 3": "an SQLite database; export it as JSON lines",
        b"%PDF": "a PDF; write its text as JSON lines",
        b"version https://git-lfs": "a Git LFS pointer and not the data; fetch the data (git lfs pull)",
    }
)
"""The first bytes of formats; the text behind "is"."""
_TAR_PLACE, _TAR_MAGIC = 257, b"ustar"
_HTML = re.compile(rb"<(?:!doctype html|html|head|body)\b", re.IGNORECASE)
_TABLE = re.compile(rb'"?\w+"?(?:[,;\t]"?\w+"?)+')


def recognise(line: bytes) -> str | None:
    """What the file is and what to do about it; None if it may be JSON lines.

    Args:
        line: The first line that is not blank, or as much of it as one example may have, decompressed.
    """
    text = line.strip()
    for magic, message in _MAGIC.items():
        if line.startswith(magic):
            return message
    if line[_TAR_PLACE:].startswith(_TAR_MAGIC):
        return "a tar archive; unpack it (tar -xf)"
    if line.startswith(b"\xef\xbb\xbf"):
        return "starts with a byte-order mark (BOM); save the file as UTF-8 without one"
    if not (encoding := json.detect_encoding(line)).startswith("utf-8"):
        return f"not UTF-8 but {encoding[:6].upper()}; save the file as UTF-8"
    if _HTML.match(text):
        return "an HTML page; download the data file itself"
    if text.startswith(b"<?xml"):
        return "XML; convert it to JSON lines"
    if text.startswith(b"["):
        return "a JSON array; write each of its objects on one line (jq -c '.[]')"
    if text == b"{":
        return "JSON over several lines; write each object on one line (jq -c .)"
    if _TABLE.fullmatch(text):
        return "a table (CSV); convert it to JSON lines"
    if _is_whole(text.partition(b"\r")[0]) and b"\r" in text:
        return "lines that end with CR alone; end them with LF (tr '\\r' '\\n')"
    return None


def _is_whole(text: bytes) -> bool:
    """Whether a text is a JSON value by itself."""
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True
