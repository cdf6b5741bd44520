"""Reading request bodies: strict JSON, then validation by the route's model; errors name the field."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any, NoReturn, TypeVar

from flask import request
from pydantic import BaseModel, ValidationError

from pipeline.service.problems import Problem

MAX_BODY_BYTES = 64 * 1024
MAX_DEPTH = 32
"""Maximum nesting of objects and arrays; valid requests need four levels."""

Model = TypeVar("Model", bound=BaseModel)


def read_body(model: type[Model]) -> Model:
    """Parse and validate the request's body.

    Raises:
        Problem: 415, 413 or 400, with the invalid field if there is one.
    """
    if request.mimetype != "application/json":
        raise Problem(415, "send JSON with the header Content-Type: application/json.")
    value = parse_json(request.get_data())
    if not isinstance(value, dict):
        raise Problem(400, f"the body is not a JSON object; send one with the fields {_fields(model)}.")
    try:
        return model.model_validate(value)
    except ValidationError as error:
        raise _problem(error, model) from None


def parse_json(body: bytes) -> Any:
    """Parse strict JSON: UTF-8, no NaN, no duplicate keys, no unpaired surrogates, bounded nesting.

    Raises:
        Problem: 400 with the reason.
    """
    try:
        value = json.loads(body.decode(), object_pairs_hook=_unique_keys, parse_constant=_refuse_constant)
    except UnicodeDecodeError as error:
        raise Problem(400, f"the body is not valid JSON: byte {error.start} is not UTF-8.") from None
    except json.JSONDecodeError as error:
        place = f"line {error.lineno}, column {error.colno}"
        raise Problem(400, f"the body is not valid JSON: {error.msg} at {place}.") from None
    except RecursionError:
        raise _too_deep() from None
    except ValueError:
        raise Problem(400, "the body is not valid JSON: a number has too many digits.") from None
    _check_strings(value, "", 1)
    return value


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) < len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise Problem(400, f"the field {twice[:80]!r} occurs twice.", _ascii(twice))
    return value


def _refuse_constant(name: str) -> NoReturn:
    raise Problem(400, f"the body is not valid JSON: {name} is not a JSON number.")


def _too_deep() -> Problem:
    return Problem(400, f"the body is not valid JSON for this server: it is nested more than {MAX_DEPTH} levels deep.")


def _check_strings(value: Any, field: str, depth: int) -> None:
    if depth > MAX_DEPTH:
        raise _too_deep()
    if isinstance(value, str) and not value.isascii() and any("\ud800" <= c <= "\udfff" for c in value):
        raise Problem(400, "the text contains half of a surrogate pair; send valid Unicode.", _ascii(field) or None)
    if isinstance(value, dict):
        for key, member in value.items():
            _check_strings(key, key, depth)
            _check_strings(member, _join((field, key)), depth + 1)
    elif isinstance(value, list):
        for number, member in enumerate(value):
            _check_strings(member, _join((field, number)), depth + 1)


def _ascii(text: str) -> str:
    return text[:80].encode("ascii", "backslashreplace").decode()


def _join(place: Iterable[str | int]) -> str:
    return ".".join(str(part) for part in place if part != "")


def _fields(model: type[BaseModel]) -> str:
    return ", ".join(model.model_fields)


def _problem(error: ValidationError, model: type[BaseModel]) -> Problem:
    """The first validation error as a problem."""
    complaint = error.errors(include_url=False)[0]
    place, kind = complaint["loc"], complaint["type"]
    if kind == "extra_forbidden":
        name = str(place[-1])
        return Problem(400, f"unknown field {name[:80]!r}; the known ones are: {_fields(model)}.", name)
    # pydantic puts the alternatives of a union into the location, too; keep only field names and positions.
    field = _join(part for part in place if isinstance(part, int) or part.replace("_", "").isalnum())
    if kind == "missing":
        return Problem(400, f"{field} is missing.", field)
    if kind == "value_error":
        return Problem(400, f"{field}: {complaint['ctx']['error']}", field)
    message = complaint["msg"][:1].lower() + complaint["msg"][1:]
    described = model.model_fields.get(str(place[0]))
    hint = f" {described.description}" if described and described.description else ""
    return Problem(413 if kind == "string_too_long" else 400, f"{field}: {message}.{hint}", field)
