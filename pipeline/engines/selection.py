"""Opening an engine by name."""

from __future__ import annotations

from typing import Any, Literal

from pipeline.compat import batches_continuously, require_continuous_batching
from pipeline.engines.interface import Engine

EngineName = Literal["serial", "continuous"]


def default_engine() -> EngineName:
    """Which engine serves where none is named: the faster one, where the installed transformers has it."""
    return "continuous" if batches_continuously() else "serial"


def open_local(name: EngineName, model: Any, tokenizer: Any, *, max_in_flight: int) -> Engine:
    """An engine over a loaded model.

    Args:
        name: Which.
        model: A model in evaluation mode; it belongs to the engine until ``close``.
        tokenizer: Its tokenizer, style tokens added.
        max_in_flight: Requests running and waiting together, beyond which new ones are refused.

    Raises:
        PipelineError: The installed transformers cannot batch continuously.
    """
    if name == "serial":
        from pipeline.engines.serial import SerialEngine

        return SerialEngine(model, tokenizer, max_in_flight=max_in_flight)
    require_continuous_batching()
    from pipeline.engines.continuous import ContinuousEngine

    return ContinuousEngine(model, tokenizer, max_in_flight=max_in_flight)
