"""Projections of one input as one product, prepared once for inference.

The rows of the projections stand below each other. On a CPU the adapter is merged into the dequantised weights, since
its small products would cost a fifth of a step. On a GPU it stays beside them: LoRA's A stands below the rows, so that
one product gives the base's outputs and LoRA's inner values, and a second adds all B, laid out along a diagonal; there
the base's values stay packed where memory is short.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
from bitsandbytes import matmul_4bit
from bitsandbytes.functional import QuantState, dequantize_blockwise
from bitsandbytes.nn import Linear4bit
from peft.tuners.lora import LoraLayer
from peft.utils.other import ModulesToSaveWrapper
from torch import Tensor
from torch.nn import functional

from pipeline.config import GIB
from pipeline.model.dequantize import plain_weight

ADAPTER = "default"
"""PEFT's name of the only adapter."""
WeightForm = Literal["merged", "dequantised", "nf4"]
RESERVE_BYTES = 2 * GIB
"""Left free on a GPU for activations when the form is chosen."""


def affordable_form(model: Any) -> WeightForm:
    """The fastest form for which the device has the memory: merged on a CPU, dequantised on a GPU if that fits."""
    if model.device.type != "cuda":
        return "merged"
    packed = [module for module in model.modules() if isinstance(module, Linear4bit)]
    needed_bytes = sum(2 * module.in_features * module.out_features for module in packed) + RESERVE_BYTES
    return "nf4" if packed and needed_bytes > torch.cuda.mem_get_info()[0] else "dequantised"


class FusedProjections:
    """Linear layers of one input, each with or without LoRA."""

    def __init__(self, layers: Sequence[Any], dtype: torch.dtype, form: WeightForm = "dequantised") -> None:
        """Prepare the layers; they stay usable.

        Args:
            layers: PEFT's LoRA layers, bitsandbytes' or plain linear ones, without bias.
            dtype: Type of the inputs and of the prepared weights.
            form: Whether the base's values are dequantised, with the adapter merged into them or beside them, or stay
                packed, which needs 4-bit layers.
        """
        self._base: _Dense | _Packed
        self._down: Tensor | None = None
        self._up: Tensor | None = None
        if form == "merged":
            self._base = _Dense(torch.cat([_merged(layer, dtype) for layer in layers]))
            return
        bases = [_base(layer) for layer in layers]
        adapted = [layer for layer in layers if isinstance(layer, LoraLayer)]
        self._outputs = sum(base.out_features for base in bases)
        down = [layer.lora_A[ADAPTER].weight.to(dtype) for layer in adapted]
        self._up = _diagonal(layers, bases, dtype) if adapted else None
        if form == "nf4":
            self._base = _Packed(bases, dtype)
            self._down = torch.cat(down) if down else None
        else:
            self._base = _Dense(torch.cat([*(plain_weight(base).to(dtype) for base in bases), *down]))

    def __call__(self, inputs: Tensor) -> Tensor:
        """The outputs side by side, shape (tokens, outputs of all), of ``inputs``, shape (tokens, inputs)."""
        outputs: Tensor = self._base(inputs)
        if self._up is None:
            return outputs
        if self._down is not None:
            return outputs.addmm_(functional.linear(inputs, self._down), self._up)
        base, inner = outputs.tensor_split((self._outputs,), dim=-1)
        return base.addmm_(inner, self._up)


def _merged(layer: Any, dtype: torch.dtype) -> Tensor:
    """The weight with the adapter's product added, rounded once more than the base's own values."""
    weight = plain_weight(_base(layer)).to(dtype)
    if isinstance(layer, LoraLayer):
        up, down = layer.lora_B[ADAPTER].weight.float(), layer.lora_A[ADAPTER].weight.float()
        weight = (weight.float() + up @ down * layer.scaling[ADAPTER]).to(dtype)
    return weight


def _base(layer: Any) -> Any:
    if isinstance(layer, ModulesToSaveWrapper):
        return layer.modules_to_save[ADAPTER]
    return layer.get_base_layer() if isinstance(layer, LoraLayer) else layer


def _diagonal(layers: Sequence[Any], bases: Sequence[Any], dtype: torch.dtype) -> Tensor:
    """All scaled B, transposed, shape (ranks of all, outputs of all); zero where a layer does not use a rank."""
    blocks = [
        (layer.lora_B[ADAPTER].weight.float() * layer.scaling[ADAPTER]).to(dtype)
        if isinstance(layer, LoraLayer)
        else base.weight.new_empty((base.out_features, 0), dtype=dtype)
        for layer, base in zip(layers, bases, strict=True)
    ]
    diagonal: Tensor = torch.block_diag(*blocks)  # type: ignore[no-untyped-call]
    return diagonal.t().contiguous()


class _Dense:
    """Plain weights; on a CPU laid out for oneDNN, which otherwise does so again for every product."""

    def __init__(self, weight: Tensor) -> None:
        self._is_laid_out = weight.device.type == "cpu" and torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
        self._weight = torch.ops.mkldnn._reorder_linear_weight(weight) if self._is_laid_out else weight

    def __call__(self, inputs: Tensor) -> Tensor:
        if self._is_laid_out:
            outputs: Tensor = torch.ops.mkldnn._linear_pointwise(inputs, self._weight, None, "none", [], "")
            return outputs
        return functional.linear(inputs, self._weight)


class _Packed:
    """4-bit weights of several layers in one; the layers' own become views of it, so that none is held twice."""

    def __init__(self, bases: Sequence[Any], dtype: torch.dtype) -> None:
        for base in bases:
            base.state_dict()  # undoes the layout in which a CPU keeps packed weights after a pass
        states = [base.weight.quant_state for base in bases]
        scales = [
            dequantize_blockwise(state.absmax, state.state2) + state.offset if state.nested else state.absmax
            for state in states
        ]
        self._weight = torch.cat([base.weight.data for base in bases])
        parts = torch.split(self._weight, [base.weight.data.shape[0] for base in bases])
        for base, part in zip(bases, parts, strict=True):
            base.weight.data = part
        self._state = QuantState(
            absmax=torch.cat([scale.float() for scale in scales]),
            shape=torch.Size((sum(state.shape[0] for state in states), states[0].shape[1])),
            code=states[0].code,
            blocksize=states[0].blocksize,
            quant_type=states[0].quant_type,
            dtype=dtype,
        )

    def __call__(self, inputs: Tensor) -> Tensor:
        outputs: Tensor = matmul_4bit(inputs, self._weight.t(), self._state)
        return outputs
