"""The small TOML file that describes a base model: the project's own ones, and a user's ``target.toml``."""

from __future__ import annotations

import dataclasses
import math
import re
import tomllib
from collections.abc import Callable, Iterator, Mapping
from importlib import resources
from pathlib import Path
from typing import Any

from pipeline.errors import PipelineError

TARGET_FILE = "target.toml"
"""Its name in a base model's folder."""
SHIPPED = ("mistral-7b-v0.3", "mistral-7b-v0.3-synthetic", "smollm2-135m", "tiny-mistral")
"""The project's own targets, in the order in which they are listed."""
SHIPPED_TEMPLATES = ("mistral", "chatml", "plain")
LARGEST_FILE_BYTES = 1 << 20
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


def shipped_targets() -> Iterator[tuple[Path, dict[str, Any]]]:
    """The file and the fields of each of the project's own targets."""
    folder = Path(str(resources.files("pipeline"))) / "assets" / "targets"
    for name in SHIPPED:
        yield folder / f"{name}.toml", read_fields(folder / f"{name}.toml")


def read_fields(file: Path) -> dict[str, Any]:
    """A file's fields, not yet checked.

    Raises:
        PipelineError: It is missing, too large or not TOML.
    """
    try:
        with file.open("rb") as handle:
            content = handle.read(LARGEST_FILE_BYTES + 1)
        if len(content) > LARGEST_FILE_BYTES:
            raise PipelineError(f"{file}: larger than {LARGEST_FILE_BYTES} bytes; a target needs a few lines.")
        return tomllib.loads(content.decode("utf-8"))
    except OSError as error:
        raise PipelineError(f"{file}: cannot be read ({error.strerror}); name a target's TOML file.") from error
    except ValueError as error:
        raise PipelineError(f"{file}: not TOML ({error}); correct it.") from error


def check_fields(fields: Mapping[str, Any], training: Any) -> None:
    """Check every field of a target.

    Args:
        fields: By name.
        training: A training configuration, whose fields ``lean`` may change.

    Raises:
        PipelineError: A field is unknown, or its type or value is wrong; the message names it.
    """
    for name, value in fields.items():
        if name not in _CHECKS:
            raise PipelineError(f"{name}: no field of a target; use {', '.join(_CHECKS)}.")
        is_right, remedy = _CHECKS[name]
        if not is_right(value):
            raise PipelineError(f"{name}: {value!r}; use {remedy}.")
    known = {field.name: field.default for field in dataclasses.fields(training)}
    for name, value in fields.get("lean", {}).items():
        if name not in known:
            raise PipelineError(f"lean.{name}: no setting of training; use {', '.join(known)}.")
        if not _is_like(value, known[name]):
            raise PipelineError(f"lean.{name}: {value!r} is of another kind than {known[name]!r}; correct it.")
    dataclasses.replace(training, **fields.get("lean", {}))


def _is_like(value: object, default: object) -> bool:
    if isinstance(default, bool) or isinstance(value, bool):
        return isinstance(value, bool) and isinstance(default, bool)
    if isinstance(default, float):
        return isinstance(value, int | float)
    return isinstance(value, str if isinstance(default, str) else int)


def _is_limit(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < math.inf


def _is_template(value: object) -> bool:
    return value is None or (isinstance(value, str) and (value in SHIPPED_TEMPLATES or "{" in value))


def _is_words(value: object) -> bool:
    if not isinstance(value, Mapping) or set(value) != {"terse", "verbose"}:
        return False
    return all(isinstance(words, str) and words.strip() for words in value.values())


_CHECKS: Mapping[str, tuple[Callable[[Any], object], str]] = {
    "name": (lambda value: isinstance(value, str) and _NAME.fullmatch(value), "letters, digits, '.', '_' and '-'"),
    "device": (lambda value: value in ("cuda", "cpu"), '"cuda" or "cpu"'),
    "weights": (lambda value: value in ("local", "gguf", "random"), '"local"'),
    "template": (_is_template, f"{', '.join(SHIPPED_TEMPLATES)} or a Jinja template"),
    "learned": (lambda value: isinstance(value, bool), "true or false"),
    "peak_memory_limit_gib": (_is_limit, "a positive number"),
    "training_limit_s": (_is_limit, "a positive number"),
    "style_words": (_is_words, "a table with words for terse and for verbose"),
    "lean": (lambda value: isinstance(value, Mapping), "a table of training settings"),
}
