"""The documented rule from a user's words to a style, and the token that goes in front of them."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from pipeline.config import Style

STYLE_KEYWORDS: Mapping[Style, tuple[str, ...]] = MappingProxyType(
    {Style.TERSE: ("briefly", "concise"), Style.VERBOSE: ("detailed", "well-structured")}
)
"""Words of the golden document that ask for a style, searched for without regard to case."""


def find_keywords(prompt: str) -> dict[Style, list[str]]:
    """The style keywords in a prompt; a style that none of them asks for is left out."""
    text = prompt.lower()
    found = {style: [word for word in words if word in text] for style, words in STYLE_KEYWORDS.items()}
    return {style: words for style, words in found.items() if words}


def detect_style(prompt: str) -> Style:
    """The documented rule: briefly, concise: terse; else detailed, well-structured: verbose; else terse."""
    found = find_keywords(prompt)
    return Style.VERBOSE if Style.VERBOSE in found and Style.TERSE not in found else Style.TERSE


def inject_token(prompt: str, style: Style) -> str:
    """Put the style's token and a newline in front of a user's words."""
    return f"{style.token}\n{prompt}"
