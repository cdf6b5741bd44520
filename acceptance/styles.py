"""How a style is asked for through a protocol that knows no styles: a small table, in TOML."""

from __future__ import annotations

import dataclasses
import json
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

from pipeline.config import Style
from pipeline.data.style import inject_token
from pipeline.errors import PipelineError

RESERVED = ("max_tokens", "messages", "model", "n", "stream", "temperature", "top_p")
"""Fields of a request that the gate sets itself, by the documented presets."""


@dataclass(frozen=True)
class StyleRequest:
    """How one style is asked for.

    Attributes:
        prefix: What stands in front of the question in the user's message.
        system: The system message; none where empty.
        model: The model's name where a style has one of its own; empty takes that of ``--model``.
        extra: Further fields of the request's body.
    """

    prefix: str = ""
    system: str = ""
    model: str = ""
    extra: Mapping[str, Any] = field(default_factory=dict)


StyleTable = Mapping[Style, StyleRequest]

TOKEN_IN_FRONT: StyleTable = MappingProxyType({style: StyleRequest(inject_token("", style)) for style in Style})
"""What the model was trained with: the style's token and a newline in front of the question."""


def read_styles(file: Path) -> StyleTable:
    """Read a table of styles.

    Args:
        file: A TOML file with a table for each style, whose keys are the fields of ``StyleRequest``.

    Raises:
        PipelineError: The file cannot be read, lacks a style, has an unknown or wrong field, or asks for both styles in
            the same way.
    """
    try:
        content = tomllib.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise PipelineError(f"{file}: no table of styles ({error}); write one in TOML.") from error
    names = [style.value for style in Style]
    if content.keys() != set(names):
        raise PipelineError(f"{file}: has {', '.join(content) or 'nothing'}; write the tables {', '.join(names)}.")
    table = {style: _style_request(f"{file}: {style}", content[style.value]) for style in Style}
    if table[Style.TERSE] == table[Style.VERBOSE]:
        raise PipelineError(f"{file}: asks for both styles in the same way; give each a prefix, system or field.")
    return MappingProxyType(table)


def _style_request(where: str, given: object) -> StyleRequest:
    known = [each.name for each in dataclasses.fields(StyleRequest)]
    if not isinstance(given, dict) or not given.keys() <= set(known):
        raise PipelineError(f"{where}: has an unknown field; the fields are {', '.join(known)}.")
    extra = given.get("extra", {})
    if wrong := [name for name in known if name != "extra" and not isinstance(given.get(name, ""), str)]:
        raise PipelineError(f"{where}.{wrong[0]}: is text.")
    if not isinstance(extra, dict) or set(extra) & set(RESERVED):
        raise PipelineError(f"{where}.extra: is a table without {', '.join(RESERVED)}, which the gate sets itself.")
    try:
        json.dumps(extra, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise PipelineError(f"{where}.extra: cannot be sent as JSON ({error}).") from error
    return StyleRequest(**given)
