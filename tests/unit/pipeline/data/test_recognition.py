"""Files that are something else than UTF-8 JSON lines: one line says what they are and what to do."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import tarfile
import zipfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet
import pytest

from pipeline.data.formats import read_examples, read_questions
from pipeline.errors import PipelineError
from tests.unit.pipeline.data.rows import TERSE, VERBOSE, jsonl

GOOD = jsonl(TERSE, VERBOSE)
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a214614ab2935c943f9e0ff69d22\nsize 12345\n"


def zipped(content: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("data.jsonl", content)
    return buffer.getvalue()


def tarred(content: bytes) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        member = tarfile.TarInfo("data.jsonl")
        member.size = len(content)
        archive.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def parquet() -> bytes:
    buffer = io.BytesIO()
    pyarrow.parquet.write_table(pa.table({"prompt": ["Why?"], "completion": ["So."]}), buffer)
    return buffer.getvalue()


FILES = {
    "double gzip": (gzip.compress(gzip.compress(GOOD)), "compressed with gzip twice; decompress it once (gunzip)"),
    "bzip2": (bz2.compress(GOOD), "compressed with bzip2; decompress it (bunzip2)"),
    "xz": (lzma.compress(GOOD), "compressed with xz; decompress it (unxz)"),
    "zstd": (b"\x28\xb5\x2f\xfd\x04\x00" + GOOD, "compressed with zstd; decompress it (unzstd)"),
    "zip": (zipped(GOOD), "a zip archive; unpack it (unzip)"),
    "tar": (tarred(GOOD), "a tar archive; unpack it (tar -xf)"),
    "tar.gz": (gzip.compress(tarred(GOOD)), "a tar archive; unpack it (tar -xf)"),
    "parquet": (parquet(), "a Parquet file; convert it"),
    "git lfs": (POINTER, "a Git LFS pointer and not the data; fetch the data (git lfs pull)"),
    "html": (b"\n<!DOCTYPE html>\n<html>Log in</html>", "an HTML page; download the data file itself"),
    "xml": (b'<?xml version="1.0"?><rows/>', "XML; convert it"),
    "array": (json.dumps([TERSE, VERBOSE]).encode(), "a JSON array; write each of its objects on one line"),
    "long array": (json.dumps([TERSE] * 20_000).encode(), "a JSON array; write each"),
    "pretty array": (json.dumps([TERSE, VERBOSE], indent=2).encode(), "a JSON array; write each"),
    "pretty object": (json.dumps(TERSE, indent=2).encode(), "JSON over several lines; write each object on one line"),
    "csv": (b"prompt,completion\nWhy?,Because.\n", "a table (CSV); convert it"),
    "utf-16 le": (GOOD.decode().encode("utf-16-le"), "not UTF-8 but UTF-16; save the file as UTF-8"),
    "utf-16 be": (GOOD.decode().encode("utf-16-be"), "not UTF-8 but UTF-16; save the file as UTF-8"),
    "utf-32": (GOOD.decode().encode("utf-32"), "not UTF-8 but UTF-32; save the file as UTF-8"),
    "cr alone": (GOOD.replace(b"\n", b"\r"), "lines that end with CR alone; end them with LF"),
    "cr alone, long": (jsonl(*[TERSE] * 20_000).replace(b"\n", b"\r"), "lines that end with CR alone; end them"),
}


@pytest.mark.parametrize("name", FILES)
def test_what_a_file_is_instead_is_said_in_one_line(name: str, tmp_path: Path) -> None:
    content, expected = FILES[name]
    path = tmp_path / "bad.jsonl"
    path.write_bytes(content)
    for read in (read_examples, read_questions):
        with pytest.raises(PipelineError) as refused:
            read(path)
        (line,) = str(refused.value).splitlines()
        assert line.startswith("bad.jsonl:")
        assert expected in line


def test_cr_inside_a_row_and_before_lf_is_white_space(tmp_path: Path) -> None:
    (tmp_path / "d.jsonl").write_bytes(GOOD.replace(b'", "', b'",\r "').replace(b"\n", b"\r\n"))
    assert len(read_examples(tmp_path / "d.jsonl")) == 2
