"""What the documented configuration says of a style: its keywords, the token in front of a prompt, its lengths."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from pipeline.config import Style

STYLE_KEYWORDS: Mapping[Style, tuple[str, ...]] = MappingProxyType(
    {Style.TERSE: ("briefly", "concise"), Style.VERBOSE: ("detailed", "well-structured")}
)
"""Keywords of the documented configuration that ask for a style; matched without regard to case."""
TERSE_LIMIT_TOKENS = 50
VERBOSE_FLOOR_TOKENS = 80
"""Bounds of ``style.token_separation``; an answer is shorter, or longer."""
CLEAR_SHARE = 0.8
"""An answer is clear of its bound if it stays within when it is a quarter longer (terse) or a fifth shorter (verbose):
about as far as the embedded run's answers spread beyond those of its data (``results/smollm2-135m/acceptance``)."""


def find_keywords(prompt: str) -> dict[Style, list[str]]:
    """The style keywords in a prompt, by style; styles without one are left out."""
    text = prompt.lower()
    found = {style: [word for word in words if word in text] for style, words in STYLE_KEYWORDS.items()}
    return {style: words for style, words in found.items() if words}


def detect_style(prompt: str) -> Style:
    """Verbose if the prompt has a keyword for verbose and none for terse; otherwise terse."""
    found = find_keywords(prompt)
    return Style.VERBOSE if Style.VERBOSE in found and Style.TERSE not in found else Style.TERSE


def inject_token(prompt: str, style: Style) -> str:
    """Prefix a prompt with the style's token and a newline."""
    return f"{style.token}\n{prompt}"


def length_fits(style: Style, tokens: int) -> bool:
    """Whether an answer's length is within the criteria's bound for its style."""
    return tokens < TERSE_LIMIT_TOKENS if style is Style.TERSE else tokens > VERBOSE_FLOOR_TOKENS


def is_clear_of_bound(style: Style, tokens: int) -> bool:
    """Whether a model that answers like this, but not exactly, stays within the bound."""
    if style is Style.TERSE:
        return tokens < CLEAR_SHARE * TERSE_LIMIT_TOKENS
    return tokens > VERBOSE_FLOOR_TOKENS / CLEAR_SHARE
