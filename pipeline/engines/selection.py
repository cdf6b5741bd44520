"""Opening an engine by name."""

from __future__ import annotations

from typing import Any, Literal

from pipeline.engines.interface import Engine

EngineName = Literal["serial", "continuous"]
DEFAULT_ENGINE: EngineName = "continuous"


def open_local(name: EngineName, model: Any, tokenizer: Any, *, max_in_flight: int) -> Engine:
    """Start an engine for a loaded model.

    Args:
        name: The engine.
        model: A model in evaluation mode, used by nobody else until ``close``.
        tokenizer: Its tokenizer, style tokens added.
        max_in_flight: Maximum of running and waiting requests; further ones are refused.
    """
    if name == "serial":
        from pipeline.engines.serial import SerialEngine

        return SerialEngine(model, tokenizer, max_in_flight=max_in_flight)
    from pipeline.engines.continuous import ContinuousEngine

    return ContinuousEngine(model, tokenizer, max_in_flight=max_in_flight)
