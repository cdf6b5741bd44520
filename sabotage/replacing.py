"""Replacing a function of the pipeline with a broken one."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from typing import Any


def replace(place: str, broken: Callable[[Any], Any]) -> None:
    """Replace ``module:attribute`` with ``broken(original)``.

    If the module defines it, it is also replaced in every module that has imported it by name already; otherwise in
    this one module alone.
    """
    module_name, _, attribute = place.partition(":")
    module = importlib.import_module(module_name)
    original = getattr(module, attribute)
    replaced = broken(original)
    defines = getattr(original, "__module__", None) == module_name
    for holder in holders_of(original, attribute) if defines else [module]:
        setattr(holder, attribute, replaced)


def holders_of(original: Any, attribute: str) -> list[Any]:
    """The loaded modules of the pipeline, and of the tests that ask it, that have an object by its name."""
    loaded = [module for name, module in sys.modules.items() if name.partition(".")[0] in ("pipeline", "acceptance")]
    return [module for module in loaded if vars(module).get(attribute) is original]
