"""Writing files atomically, and digests of their contents."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import resources
from pathlib import Path
from typing import Any

from pipeline.errors import PipelineError

ASSETS = Path(str(resources.files("pipeline"))) / "assets"
TRAINING_DATA = ASSETS / "verbosity_pairs_1600_nosys_mixed.jsonl"
HELD_OUT_QUESTIONS = ASSETS / "heldout_questions.jsonl"
RECORDED_RUNS = ASSETS / "recorded"


def cache_location() -> Path:
    """Where prepared weights and tokenised data are kept: ``VERBOSITY_CACHE`` or ``~/.cache/verbosity``.

    Raises:
        PipelineError: The variable is not set and the user has no home folder.
    """
    if named := os.environ.get("VERBOSITY_CACHE"):
        return Path(named)
    try:
        return Path.home() / ".cache" / "verbosity"
    except RuntimeError:
        raise PipelineError("this user has no home folder for the cache; set VERBOSITY_CACHE to a folder.") from None


def cache_folder() -> Path:
    """The folder at ``cache_location``, created and tried by writing.

    Raises:
        PipelineError: Nothing can be written there, or as ``cache_location``.
    """
    folder = cache_location()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as trial:
            trial.write(b"0")
    except OSError as error:
        raise PipelineError(
            f"{folder}: the cache cannot be written ({error.strerror}); set VERBOSITY_CACHE to a folder that can."
        ) from error
    return folder


def write_text(path: Path, text: str) -> None:
    """Write a text atomically: to a temporary name beside ``path``, then rename; lone surrogates are escaped."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    temporary.write_text(text, encoding="utf-8", errors="backslashreplace")
    os.replace(temporary, path)


def write_json(path: Path, value: Any) -> None:
    """Write a value atomically as JSON."""
    write_text(path, json.dumps(value, indent=2, sort_keys=True) + "\n")


@contextmanager
def building_folder(final: Path) -> Iterator[Path]:
    """Yield an empty folder beside ``final`` that replaces it if the block succeeds and is deleted if not.

    The umask decides who may read the result, whatever permissions its writers gave.
    """
    final.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{final.name}.", dir=final.parent))
    try:
        yield temporary
        _apply_umask(temporary)
        if final.exists():
            shutil.rmtree(final)
        os.replace(temporary, final)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _apply_umask(folder: Path) -> None:
    # Reading the umask would change it for other threads for a moment; a new file and folder show it.
    shown = folder / ".umask"
    shown.touch()
    file_mode = stat.S_IMODE(shown.stat().st_mode)
    shown.unlink()
    shown.mkdir()
    folder_mode = stat.S_IMODE(shown.stat().st_mode)
    shown.rmdir()
    for path in (folder, *folder.rglob("*")):
        if not path.is_symlink():
            may_enter_or_run = path.is_dir() or path.stat().st_mode & stat.S_IXUSR
            path.chmod(folder_mode if may_enter_or_run else file_mode)


def sha256_of(*paths: Path) -> str:
    """SHA-256 over the names and contents of files, in the order given.

    Raises:
        PipelineError: A file cannot be read.
    """
    digest = hashlib.sha256()
    for path in paths:
        digest.update(os.fsencode(path.name))
        try:
            with path.open("rb") as handle:
                while chunk := handle.read(1 << 22):
                    digest.update(chunk)
        except OSError as error:
            raise PipelineError(f"{path}: cannot be read ({error.strerror}).") from error
    return digest.hexdigest()


def weights_digest(folder: Path) -> str:
    """SHA-256 over the safetensors files of a model or adapter folder.

    Raises:
        PipelineError: There are none; other weight formats are refused, since loading them can run code.
    """
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise PipelineError(f"{folder}: no *.safetensors file found; convert the weights to safetensors.")
    return sha256_of(*files)


def sha256_of_text(*texts: str) -> str:
    """SHA-256 over texts, each prefixed with its length so that different lists never share a digest."""
    return hashlib.sha256("".join(f"{len(text)}:{text}" for text in texts).encode()).hexdigest()
