"""Replacing a function of the pipeline with a broken one."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any


def replace(place: str, broken: Callable[[Any], Any]) -> None:
    """Replace ``module:attribute`` with ``broken(original)``.

    Modules import functions by name, so this must happen before the module that uses them is imported.
    """
    module_name, _, attribute = place.partition(":")
    module = importlib.import_module(module_name)
    setattr(module, attribute, broken(getattr(module, attribute)))
