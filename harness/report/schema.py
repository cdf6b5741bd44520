"""The published schema of ``acceptance.json``, and reading documents that follow it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, NoReturn

SCHEMA_PATH = Path(__file__).with_name("acceptance.schema.json")
DOCUMENT_NAME = "acceptance.json"


class DocumentError(ValueError):
    """A result document cannot be read or breaks the schema."""


@cache
def schema() -> Mapping[str, Any]:
    """Return the schema of ``acceptance.json`` (JSON Schema, draft 2020-12)."""
    content: Mapping[str, Any] = json.loads(SCHEMA_PATH.read_text(encoding="utf-8"))
    return content


def validate(document: object) -> None:
    """Check a parsed result document against the published schema.

    Args:
        document: The content of ``acceptance.json``.

    Raises:
        DocumentError: A value breaks the schema; names its place, for example ``subjects[0].criteria[3].outcome``.
    """
    import jsonschema

    if isinstance(document, Mapping) and document.get("schema_version") != _current_version():
        found = document.get("schema_version")
        raise DocumentError(
            f"schema_version is {found!r}, expected {_current_version()}: repeat that run with this version of the gate"
        )
    validator = jsonschema.Draft202012Validator(schema())
    error = jsonschema.exceptions.best_match(validator.iter_errors(document))
    if error is not None:
        raise DocumentError(f"{error.json_path.removeprefix('$').removeprefix('.') or 'document'}: {error.message}")


def _current_version() -> int:
    version: int = schema()["properties"]["schema_version"]["const"]
    return version


def read_document(path: Path) -> dict[str, Any]:
    """Read and check a result document.

    Args:
        path: The file, or the folder of a run that holds ``acceptance.json``.

    Raises:
        DocumentError: The file is missing, is no JSON, or breaks the schema; the message names it.
    """
    file = path / DOCUMENT_NAME if path.is_dir() else path
    try:
        document: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"), parse_constant=_refuse)
        validate(document)
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise DocumentError(f"{file}: {reason}; give an {DOCUMENT_NAME} or its folder") from error
    except ValueError as error:
        raise DocumentError(f"{file}: {error}") from error
    return document


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not JSON; non-finite numbers are the strings nan, inf and -inf")
