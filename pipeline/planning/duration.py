"""Seconds of training, roughly, from operations and bytes and from rates that were measured."""

from __future__ import annotations

from collections.abc import Sequence

from pipeline.planning.devices import Device
from pipeline.planning.memory_estimate import MicroBatch, Needs

CPU_FLOPS_PER_THREAD = 32e9
"""Fitted to the recorded embedded run, two threads with AVX-512 bfloat16; other CPUs differ by a small factor."""
PACKED_CPU_FLOPS_PER_THREAD = 150e9
"""Of packed rows: fitted to a run of smollm2-135m on two threads with AMX bfloat16."""
LAYER_PASS_S = 5.85e-3
"""Seconds that Python and kernel launches take for one pass through one layer: fitted to the median of four golden runs
on H200s, 1.69 examples/s (1.53 to 1.98), where arithmetic and memory traffic are a tenth of the time."""
GPU_EFFICIENCY = 0.5
"""Assumed share of a data sheet's arithmetic rate that such short sequences reach; not measured."""
PACKED_EFFICIENCY = 0.45
"""Share of a data sheet's arithmetic rate that packed rows reach beside their memory traffic: fitted to the lean run of
Mistral's shape on an H200 (``results/mistral-7b-v0.3-synthetic/gpu/lean``). Launching takes no time, since each
pass is a recorded graph."""
PACKED_LAYER_S = 1.3e-3
"""Seconds that a layer's kernels take at least in a recorded step, however small they are: fitted to the lean run of
smollm2-135m on the slowest of three machines with an H200 (``results/smollm2-135m/gpu/lean``), 65 examples/s; the
others reached 86 and 115."""
STEP_S = 0.01
"""Seconds between two packed steps: clipping, the optimizer's step and the figures."""

RECORDING_S = 2.0
"""Seconds in which the passes are recorded, before the second step; of the same runs."""
SAVE_BYTES_PER_S = 0.5e9
"""At which checkpoints, adapter and moments, are written and digested; of the same runs."""


def padded_duration_s(needs: Needs, device: Device, batches: Sequence[MicroBatch]) -> float | None:
    """Seconds of padded training; None where the device's speed is not known.

    Frozen weights have no gradients of their own, so a pass back costs as much as one forward, and checkpointing one
    more; each product unpacks the 4-bit weights again.
    """
    shape, gpu = needs.shape, device.gpu
    passes = 3 if needs.preset.training.gradient_checkpointing else 2
    head_passes = 2 if needs.preset.adapter.trains_style_rows_only else 3
    decoder = sum(batch.tokens for batch in batches) * passes * needs.projection_parameters
    rows = sum(batch.logit_rows for batch in batches)
    operations = 2 * (decoder + rows * head_passes * shape.vocabulary_size * shape.hidden_size)
    if device.kind == "cpu":
        return operations / (CPU_FLOPS_PER_THREAD * device.threads)
    if gpu is None:
        return None
    batch_s = LAYER_PASS_S * passes * shape.layers + _unpacking_bytes(needs) * passes / (gpu.bandwidth_gb_per_s * 1e9)
    return operations / (GPU_EFFICIENCY * gpu.bf16_tflops * 1e12) + len(batches) * batch_s


def packed_duration_s(
    needs: Needs, device: Device, row_tokens: Sequence[int], checkpointed_layers: int, steps: int
) -> float | None:
    """Seconds of training with packed rows; None where the device's speed is not known.

    Args:
        needs: Model and preset.
        device: Where.
        row_tokens: The length of each row of the run, what fills it included.
        checkpointed_layers: Layers that are computed again in the backward pass.
        steps: Optimizer steps of the run.
    """
    shape, gpu = needs.shape, device.gpu
    passes = 2 + checkpointed_layers / shape.layers
    token_operations = passes * needs.projection_parameters + 2 * shape.vocabulary_size * shape.hidden_size
    operations = 2 * sum(row_tokens) * token_operations
    if device.kind == "cpu":
        return operations / (PACKED_CPU_FLOPS_PER_THREAD * device.threads)
    if gpu is None:
        return None
    arithmetic_s = operations / (PACKED_EFFICIENCY * gpu.bf16_tflops * 1e12)
    unpacking_s = len(row_tokens) * passes * _unpacking_bytes(needs) / (gpu.bandwidth_gb_per_s * 1e9)
    kernels_s = len(row_tokens) * shape.layers * PACKED_LAYER_S
    saves_s = (
        steps // needs.preset.training.save_steps * (needs.adapter_bytes + needs.optimizer_bytes) / SAVE_BYTES_PER_S
    )
    return RECORDING_S + max(arithmetic_s + unpacking_s, kernels_s) + steps * STEP_S + saves_s


def _unpacking_bytes(needs: Needs) -> int:
    """Memory traffic of a pass's 4-bit weights: read, written in the arithmetic's numbers, and read again."""
    return needs.quantized_bytes + 2 * needs.compute_bytes * needs.projection_parameters
