"""Reading request bodies: strict JSON, then validation by the route's model; errors name the field."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any, NoReturn, TypeVar

from flask import request
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from pipeline.service.problems import Problem

MAX_BODY_BYTES = 64 * 1024
GZIP_MAGIC = b"\x1f\x8b"
"""RFC 1952; no JSON begins with it."""
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
    body = request.get_data()
    encoding = request.headers.get("Content-Encoding", "identity")
    if encoding.strip().lower() != "identity":
        raise Problem(415, f"send the body uncompressed, without the header Content-Encoding: {_ascii(encoding)}.")
    if body.startswith(GZIP_MAGIC):
        raise Problem(415, "the body is compressed with gzip; send it uncompressed.")
    value = parse_json(body)
    if not isinstance(value, dict):
        raise Problem(400, f"the body is not a JSON object; send one with the fields {_fields(model)}.")
    try:
        return model.model_validate(value)
    except ValidationError as error:
        raise _problem(error, value, model) from None


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
    """A place as OpenAI writes it, such as ``messages[0].content``."""
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in place if part != "")
    return text.removeprefix(".")


def _fields(model: type[BaseModel]) -> str:
    return ", ".join(model.model_fields)


def _problem(error: ValidationError, body: dict[str, Any], model: type[BaseModel]) -> Problem:
    """The first validation error as a problem."""
    complaint, place = _first(error, body)
    kind, field = complaint["type"], _join(place)
    if kind == "extra_forbidden":
        remedy = "leave it out" if len(place) > 1 else f"the known ones are: {_fields(model)}"
        return Problem(400, f"unknown field {field[:80]!r}; {remedy}.", field)
    if kind == "missing":
        return Problem(400, f"{field} is missing.", field)
    if kind == "value_error":
        return Problem(400, f"{field}: {complaint['ctx']['error']}", field)
    message = complaint["msg"][:1].lower() + complaint["msg"][1:]
    described = model.model_fields.get(str(place[0]))
    hint = f" {described.description}" if described and described.description else ""
    return Problem(413 if kind == "string_too_long" else 400, f"{field}: {message}.{hint}", field)


def _first(error: ValidationError, body: dict[str, Any]) -> tuple[ErrorDetails, list[str | int]]:
    """The first error and its place; if a union fails, that of the alternative that fits the body furthest."""
    found = [(complaint, _place(complaint, body)) for complaint in error.errors(include_url=False)]
    _, outer = found[0]
    inside = [one for one in found if one[1][: len(outer)] == outer]
    return max(inside, key=lambda one: len(one[1]))


def _place(complaint: ErrorDetails, body: Any) -> list[str | int]:
    """Where in the body an error is: pydantic's location without the names of a union's alternatives."""
    place: list[str | int] = []
    for part in complaint["loc"]:
        is_key = isinstance(body, dict) and part in body
        is_index = isinstance(body, list) and isinstance(part, int)
        if is_key or is_index:
            place.append(part)
            body = body[part]
    return [*place, complaint["loc"][-1]] if complaint["type"] == "missing" else place
