"""Opening an engine by name."""

from __future__ import annotations

from typing import Any, Literal

from pipeline.compat import batches_continuously, require_continuous_batching
from pipeline.engines.interface import Engine

EngineName = Literal["serial", "continuous"]


def default_engine() -> EngineName:
    """The engine to use if none is named: ``continuous`` if the installed transformers supports it."""
    return "continuous" if batches_continuously() else "serial"


def open_local(name: EngineName, model: Any, tokenizer: Any, *, max_in_flight: int) -> Engine:
    """Start an engine for a loaded model.

    Args:
        name: The engine.
        model: A model in evaluation mode, used by nobody else until ``close``.
        tokenizer: Its tokenizer, style tokens added.
        max_in_flight: Maximum of running and waiting requests; further ones are refused.

    Raises:
        PipelineError: The installed transformers does not support continuous batching.
    """
    if name == "serial":
        from pipeline.engines.serial import SerialEngine

        return SerialEngine(model, tokenizer, max_in_flight=max_in_flight)
    require_continuous_batching()
    from pipeline.engines.continuous import ContinuousEngine

    return ContinuousEngine(model, tokenizer, max_in_flight=max_in_flight)
