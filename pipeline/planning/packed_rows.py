"""How a window is cut into rows without padding, and how many layers are computed again, to keep to a bound."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.config import GIB
from pipeline.data.batches import CPU_ROW_MULTIPLE, packed_batches, padded_length, row_lengths
from pipeline.memory import missing_libraries_bytes, resident_bytes
from pipeline.planning.devices import CUDA_CONTEXT_BYTES
from pipeline.planning.memory_estimate import (
    ALLOCATOR_SLACK,
    FLOAT32_BYTES,
    HEAP_FRAGMENTATION,
    LOSS_ROWS_AT_ONCE,
    SHAPE_CACHE_BYTES,
    SHAPE_CACHE_LIMIT_BYTES,
    Needs,
)

GRAPH_BYTES = int(0.15 * GIB)
"""What the driver keeps for one recorded pass, outside torch's allocator."""

CPU_WEIGHT_COPIES = 4
"""Fitted to one run of smollm2-135m on two threads with AMX bfloat16, whose peak exceeded the other components by about
four times its dequantised weights; what holds them was not examined."""


@dataclass(frozen=True, slots=True)
class PackedRows:
    """Sizes of the padding-free path.

    Attributes:
        rows_per_window: Rows, each a micro-batch, behind one optimizer step.
        row_lengths: The lengths that rows have, in tokens; on a GPU each gets a recorded pass of its own.
        row_tokens: The length of each row of the run, what fills it included.
        checkpointed_layers: Layers that are computed again in the backward pass.
        components: Estimated bytes of each component at the peak, which is in the backward pass.
    """

    rows_per_window: int
    row_lengths: Sequence[int]
    row_tokens: Sequence[int]
    checkpointed_layers: int
    components: Mapping[str, int]


def plan_rows(needs: Needs, data: Any, available_bytes: int) -> PackedRows:
    """The fewest rows, and of those the fewest layers computed again, that fit.

    Args:
        needs: Model and preset; its ``memory_limit_gib`` bounds the memory that is taken.
        data: Columns ``length`` and ``style``, as ``encoded_dataset`` returns them.
        available_bytes: What the run may take of the device.

    Returns:
        The sizes; single examples with every layer computed again where not even those fit.
    """
    training, layers = needs.preset.training, needs.shape.layers
    limit_bytes = min(available_bytes, int(training.memory_limit_gib * GIB))
    styles, lengths = list(data["style"]), list(data["length"])
    for rows in range(1, training.window_examples + 1):
        batches = packed_batches(styles, lengths, training, rows)
        totals = [sum(lengths[index] for index in batch) for batch in batches]
        if needs.kind == "cpu":
            allowed = sorted({padded_length(total, CPU_ROW_MULTIPLE) for total in totals})
        else:
            allowed = row_lengths(batches, lengths)
        for checkpointed in range(layers + 1):
            components = packed_components(needs, allowed, checkpointed, max(lengths))
            fits = sum(components.values()) <= limit_bytes
            if fits or (rows == training.window_examples and checkpointed == layers):
                row_tokens = [min(length for length in allowed if length >= total) for total in totals]
                return PackedRows(rows, allowed, row_tokens, checkpointed, components)
    raise AssertionError("a window holds at least one example")


def packed_components(needs: Needs, allowed: Sequence[int], checkpointed: int, longest_tokens: int) -> dict[str, int]:
    """Bytes of each component at the peak, which is in the backward pass.

    Args:
        needs: Model and preset.
        allowed: Lengths of rows, in tokens.
        checkpointed: Layers that are computed again.
        longest_tokens: Tokens of the longest example.
    """
    shape, tokens, number = needs.shape, max(allowed), needs.compute_bytes
    copies = needs.lora_parameters * number
    layer = layer_bytes(needs, tokens, longest_tokens)
    again = layer if checkpointed else 0
    kept = (shape.layers - checkpointed) * layer + checkpointed * tokens * shape.hidden_size * number
    # Of the MLP: its activation, that times up, its gradient, and gate's; and the largest matrix dequantised.
    flowing = tokens * (4 * shape.intermediate_size + 3 * shape.hidden_size) * number
    unpacked = max(rows * columns for rows, columns in needs.projections.values()) * number
    logits = (2 * FLOAT32_BYTES + number) * LOSS_ROWS_AT_ONCE * shape.vocabulary_size
    parts = {
        "4-bit weights": needs.quantized_bytes,
        "other base weights": needs.other_weights_bytes,
        "adapter": needs.adapter_bytes + copies,
        "gradients": needs.gradient_bytes,
        "optimizer": needs.optimizer_bytes,
        "activations": kept + max(again + flowing + unpacked, logits + tokens * shape.hidden_size * number),
    }
    if needs.kind == "cpu":
        cached = min(SHAPE_CACHE_BYTES * len(allowed), SHAPE_CACHE_LIMIT_BYTES) if needs.autocast else 0
        return {
            **parts,
            "dequantised weights": (1 + CPU_WEIGHT_COPIES) * needs.projection_parameters * number,
            "compiled products": cached,
            "heap fragmentation": int(HEAP_FRAGMENTATION * parts["activations"]),
            "process": resident_bytes() + missing_libraries_bytes(),
        }
    slack = int(ALLOCATOR_SLACK * sum(parts.values()))
    return {**parts, "allocator": slack, "CUDA context": CUDA_CONTEXT_BYTES + len(allowed) * GRAPH_BYTES}


def layer_bytes(needs: Needs, tokens: int, longest_tokens: int) -> int:
    """What one layer keeps for the backward pass.

    Both norms' inputs and outputs, rotated queries, attention's output; rotated keys, and values; gate and up; LoRA's
    inner values; the norms' scales, and attention's log-sums on a GPU, its probabilities on a CPU.
    """
    shape = needs.shape
    key_value = shape.key_value_heads * shape.hidden_size // shape.attention_heads
    numbers = 6 * shape.hidden_size + 2 * key_value + 2 * shape.intermediate_size + 7 * needs.preset.adapter.rank
    attention = shape.attention_heads * (longest_tokens * needs.compute_bytes if needs.kind == "cpu" else FLOAT32_BYTES)
    return tokens * (numbers * needs.compute_bytes + 2 * FLOAT32_BYTES + attention)
