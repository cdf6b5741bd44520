"""What a page tells its reader to write and to run, taken out of the page itself, so that it cannot become stale."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from types import MappingProxyType

from tests.smoke.wheel import ROOT

_MODULES: Mapping[str, str] = MappingProxyType({"verbosity": "pipeline.cli", "pytest": "pytest"})


def blocks(page: str, language: str) -> list[str]:
    """The page's blocks of a language, in order."""
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL)


def commands(page: str, first: str, instead: Mapping[str, str] = MappingProxyType({})) -> list[list[str]]:
    """The commands of a console block, as arguments of ``python -m``.

    Args:
        page: The page.
        first: How the block's first command begins.
        instead: What replaces words of the commands that only the reader knows; each must occur.
    """
    (block,) = [block for block in blocks(page, "console") if block.startswith(f"$ {first}")]
    words = [shlex.split(line.removeprefix("$ "), comments=True) for line in block.splitlines()]
    assert {*instead} <= {word for command in words for word in command}, f"{page} says something else: {block}"
    return [
        [_MODULES.get(program, program), *(instead.get(word, word) for word in arguments)]
        for program, *arguments in words
    ]
