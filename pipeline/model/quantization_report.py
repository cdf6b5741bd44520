"""How a loaded model's weights are actually quantised."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import nn


@dataclass(frozen=True, slots=True)
class QuantizationCensus:
    """How the decoder's linear layers are quantised; the head is not counted."""

    is_loaded_in_4bit: bool
    linear_count: int
    nf4_double_quant_count: int
    bits_per_parameter: float


def quantization_census(model: Any) -> QuantizationCensus:
    """Count the decoder's linear layers, and those in NF4 with nested (double) quantisation."""
    import bitsandbytes as bnb

    head = model.get_output_embeddings()
    linears = [module for module in model.modules() if isinstance(module, nn.Linear) and module is not head]
    quantized = [module for module in linears if isinstance(module, bnb.nn.Linear4bit)]
    states = [state for module in quantized if (state := module.weight.quant_state) is not None]
    parameters = sum(state.shape.numel() for state in states) + sum(
        module.weight.numel() for module in linears if module not in quantized
    )
    size_bytes = sum(module.weight.nbytes for module in linears) + sum(_absmax_bytes(state) for state in states)
    return QuantizationCensus(
        is_loaded_in_4bit=bool(getattr(model, "is_loaded_in_4bit", False)),
        linear_count=len(linears),
        nf4_double_quant_count=sum(state.quant_type == "nf4" and state.nested for state in states),
        bits_per_parameter=8 * size_bytes / parameters,
    )


def _absmax_bytes(state: Any) -> int:
    nested = state.state2.absmax.nbytes if state.nested else 0
    return int(state.absmax.nbytes + nested)
