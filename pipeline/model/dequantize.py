"""The form of a model that answers fastest."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from pipeline.compat import cpu_compute_dtype, multiplies_packed_on_cpu


def for_inference(model: Any) -> Any:
    """The form of a 4-bit model, with an adapter or without, that generates fastest and computes the same.

    Where 4-bit kernels are fast the model stays as it is. A CPU without them unpacks every weight for every token, so
    there the NF4 values are unpacked once. In bfloat16 an adapter stays unmerged, since merging would round it away; in
    float32 it is merged.
    """
    if next(model.parameters()).device.type != "cpu" or multiplies_packed_on_cpu():
        return model
    dtype: torch.dtype = getattr(torch, cpu_compute_dtype())
    return unpack(model, dtype, merge=dtype == torch.float32)


def unpack(model: Any, dtype: torch.dtype, *, merge: bool) -> Any:
    """Put plain linear layers on the CPU in place of 4-bit ones.

    Args:
        model: The model, changed in place.
        dtype: Type of the unpacked weights.
        merge: Whether an adapter's matrices are added to them, in float32, in place of being kept beside them.

    Returns:
        The model.
    """
    from bitsandbytes.nn import Linear4bit
    from peft.tuners.lora.bnb import Linear4bit as LoraLinear4bit

    # Adapted layers first, since each holds the 4-bit layer that it adapts.
    kinds = ((LoraLinear4bit, _merged_weight),) if merge else ()
    for kind, unpacked in (*kinds, (Linear4bit, _weight)):
        for name, module in list(model.named_modules()):
            if isinstance(module, kind):
                parent, _, child = name.rpartition(".")
                setattr(model.get_submodule(parent), child, _linear(unpacked(module).to("cpu", dtype)))
    return model


def _merged_weight(module: Any) -> torch.Tensor:
    merged: torch.Tensor = _weight(module.get_base_layer()) + module.get_delta_weight("default").float()
    return merged


def _weight(module: Any) -> torch.Tensor:
    from bitsandbytes.functional import dequantize_4bit
    from bitsandbytes.nn import Linear4bit

    if not isinstance(module, Linear4bit):  # unpacked before, for inference
        plain: torch.Tensor = module.weight.detach().float()
        return plain
    # Some CPUs answer from weights that were packed anew at the first answer; asked for its state, the layer undoes it.
    module.state_dict()
    weight: torch.Tensor = dequantize_4bit(module.weight.data, module.weight.quant_state).float()
    return weight


def _linear(weight: torch.Tensor) -> nn.Linear:
    linear = nn.Linear(weight.shape[1], weight.shape[0], bias=False, device="meta")
    linear.weight = nn.Parameter(weight, requires_grad=False)
    return linear
