"""Unpacking 4-bit weights, for inference on CPUs without 4-bit kernels and for export."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from pipeline.compat import cpu_compute_dtype, multiplies_packed_on_cpu


def for_inference(model: Any) -> Any:
    """Convert a 4-bit model, with or without an adapter, to the form that generates fastest with the same results.

    With fast 4-bit kernels the model stays unchanged. A CPU without them would unpack every weight for every token, so
    the NF4 values are unpacked once. In bfloat16 an adapter stays unmerged, since merging rounds once more; in
    float32 it is merged.
    """
    if next(model.parameters()).device.type != "cpu" or multiplies_packed_on_cpu():
        return model
    dtype: torch.dtype = getattr(torch, cpu_compute_dtype())
    return unpack(model, dtype, merge=dtype == torch.float32)


def unpack(model: Any, dtype: torch.dtype, *, merge: bool) -> Any:
    """Replace 4-bit linear layers with plain ones on the CPU.

    Args:
        model: The model, changed in place.
        dtype: Type of the unpacked weights.
        merge: Whether an adapter is merged into them, in float32, instead of being kept separate.

    Returns:
        The model.
    """
    from bitsandbytes.nn import Linear4bit
    from peft.tuners.lora.bnb import Linear4bit as LoraLinear4bit

    # Adapted layers first, since each contains its 4-bit base layer.
    kinds = ((LoraLinear4bit, _merged_weight),) if merge else ()
    for kind, unpacked in (*kinds, (Linear4bit, plain_weight)):
        for name, module in list(model.named_modules()):
            if isinstance(module, kind):
                parent, _, child = name.rpartition(".")
                bias = None if module.bias is None else module.bias.detach().to("cpu", dtype)
                setattr(model.get_submodule(parent), child, _linear(unpacked(module).to("cpu", dtype), bias))
    return model


def _merged_weight(module: Any) -> torch.Tensor:
    merged: torch.Tensor = plain_weight(module.get_base_layer()) + module.get_delta_weight("default").float()
    return merged


def plain_weight(module: Any) -> torch.Tensor:
    """The values of a linear layer in float32, shape (outputs, inputs); 4-bit ones are dequantised."""
    from bitsandbytes.functional import dequantize_4bit
    from bitsandbytes.nn import Linear4bit

    if not isinstance(module, Linear4bit):  # already unpacked for inference
        plain: torch.Tensor = module.weight.detach().float()
        return plain
    # On some CPUs the first forward pass repacks the weights; reading the layer's state dict undoes it.
    module.state_dict()
    weight: torch.Tensor = dequantize_4bit(module.weight.data, module.weight.quant_state).float()
    return weight


def _linear(weight: torch.Tensor, bias: torch.Tensor | None) -> nn.Linear:
    linear = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None, device="meta")
    linear.weight = nn.Parameter(weight, requires_grad=False)
    if bias is not None:
        linear.bias = nn.Parameter(bias, requires_grad=False)
    return linear
