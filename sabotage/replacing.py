"""Putting a broken function in the place of the pipeline's."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any


def replace(place: str, broken: Callable[[Any], Any]) -> None:
    """Replace what stands at `module:attribute` by what `broken` makes of it.

    Modules take functions by name, so this happens before the module that uses them is imported.
    """
    module_name, _, attribute = place.partition(":")
    module = importlib.import_module(module_name)
    setattr(module, attribute, broken(getattr(module, attribute)))
