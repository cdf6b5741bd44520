"""Frozen 4-bit projections with LoRA, as few kernels as they need: the padding-free path's forward and backward passes.

PEFT's layer casts its input and both factors, copies the base's output and adds LoRA's to the copy. Here the factors
have copies in the base's arithmetic (``LoraGroup.copies``; the trained tensors stay float32), projections of one input
share one product with their stacked A, and LoRA's output is added inside the product that makes it. Each 4-bit matrix
is dequantised once per pass on a GPU, and once per run on a CPU. Dropout is not supported.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from bitsandbytes.functional import dequantize_4bit
from torch import Tensor
from torch.nn import functional

from pipeline.model.adapter import ADAPTER


class LoraGroup:
    """Projections of one input: frozen 4-bit weights, trained factors, and working copies of the factors.

    Attributes:
        trained: A and B of each projection, float32, A of shape (rank, inputs) and B (outputs, rank).
        scale: LoRA's ``alpha / rank``.
        stacked_a: Working copies of all A, shape (projections x rank, inputs).
        factors_b: Working copies of each B.
    """

    def __init__(self, layers: Sequence[Any]) -> None:
        """Take PEFT's ``Linear4bit`` layers as they are; they stay usable."""
        self._weights = [layer.get_base_layer().weight for layer in layers]
        factors = [(layer.lora_A[ADAPTER].weight, layer.lora_B[ADAPTER].weight) for layer in layers]
        self.trained: list[Tensor] = [factor for pair in factors for factor in pair]
        (self.scale,) = {layer.scaling[ADAPTER] for layer in layers}
        dtype = self._weights[0].quant_state.dtype
        self.stacked_a = torch.cat([a.detach() for a, _ in factors]).to(dtype)
        self.factors_b = [b.detach().to(dtype, copy=True) for _, b in factors]
        self.rank = factors[0][0].shape[0]
        # A CPU takes as long to dequantise a matrix as to multiply with it, and has room for the values.
        on_cpu = self._weights[0].device.type == "cpu"
        self._kept = [self._dequantised(index) for index in range(len(layers))] if on_cpu else None

    def copies(self) -> list[Tensor]:
        """The working copies, in the order of ``trained``."""
        parts = torch.split(self.stacked_a, self.rank)
        return [copy for pair in zip(parts, self.factors_b, strict=True) for copy in pair]

    def weight(self, index: int) -> Tensor:
        """One projection's weight, dequantised, shape (outputs, inputs)."""
        return self._dequantised(index) if self._kept is None else self._kept[index]

    def _dequantised(self, index: int) -> Tensor:
        packed = self._weights[index]
        weight: Tensor = dequantize_4bit(packed.data, packed.quant_state)
        return weight

    def forward(self, inputs: Tensor) -> tuple[Tensor, list[Tensor]]:
        """LoRA's inner values (tokens, projections x rank), and the outputs, of ``inputs`` (tokens, width)."""
        inner = functional.linear(inputs, self.stacked_a)
        outputs = []
        for index, (part, b) in enumerate(zip(torch.split(inner, self.rank, 1), self.factors_b, strict=True)):
            output = functional.linear(inputs, self.weight(index))
            outputs.append(output.addmm_(part, b.t(), alpha=self.scale))
        return inner, outputs

    def backward(self, inputs: Tensor, inner: Tensor, flowing: Sequence[Tensor]) -> tuple[Tensor, list[Tensor]]:
        """Gradients of ``inputs`` and, in the order of ``trained``, of the factors."""
        parts, gradient = [], torch.empty(0)
        gradients_b = []
        for index, (part, b) in enumerate(zip(torch.split(inner, self.rank, 1), self.factors_b, strict=True)):
            flow, weight = flowing[index], self.weight(index)
            gradient = torch.mm(flow, weight) if index == 0 else gradient.addmm_(flow, weight)
            gradients_b.append(torch.mm(flow.t(), part).mul_(self.scale))
            parts.append(torch.mm(flow, b))
        flowing_inner = torch.cat(parts, dim=1).mul_(self.scale)
        gradient.addmm_(flowing_inner, self.stacked_a)
        gradients_a = torch.split(torch.mm(flowing_inner.t(), inputs), self.rank)
        return gradient, [factor for pair in zip(gradients_a, gradients_b, strict=True) for factor in pair]


class _Projections(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, inputs: Tensor, group: LoraGroup, *trained: Tensor) -> tuple[Tensor, ...]:
        inner, outputs = group.forward(inputs)
        ctx.group = group
        ctx.save_for_backward(inputs, inner)
        return tuple(outputs)

    @staticmethod
    def backward(ctx: Any, *flowing: Tensor) -> tuple[Tensor | None, ...]:
        inputs, inner = ctx.saved_tensors
        gradient, factors = ctx.group.backward(inputs, inner, [flow.contiguous() for flow in flowing])
        return gradient, None, *factors


class _GatedMlp(torch.autograd.Function):
    """``down(silu(gate(x)) * up(x))``; keeps gate and up, and makes their product again in the backward pass."""

    @staticmethod
    def forward(ctx: Any, inputs: Tensor, gate_up: LoraGroup, down: LoraGroup, *trained: Tensor) -> Tensor:
        inner, (gate, up) = gate_up.forward(inputs)
        inner_down, (output,) = down.forward(functional.silu(gate).mul_(up))
        ctx.groups = gate_up, down
        ctx.save_for_backward(inputs, inner, gate, up, inner_down)
        return output

    @staticmethod
    def backward(ctx: Any, *flowing: Tensor) -> tuple[Tensor | None, ...]:
        inputs, inner, gate, up, inner_down = ctx.saved_tensors
        gate_up, down = ctx.groups
        activated = functional.silu(gate)
        flow, factors_down = down.backward(activated * up, inner_down, [flowing[0].contiguous()])
        flow_up = activated.mul_(flow)
        flow_gate = torch.ops.aten.silu_backward(flow.mul_(up), gate)
        gradient, factors = gate_up.backward(inputs, inner, [flow_gate, flow_up])
        return gradient, None, None, *factors, *factors_down


def project(inputs: Tensor, group: LoraGroup) -> tuple[Tensor, ...]:
    """The outputs of each projection of a group; ``inputs`` has the shape (tokens, width)."""
    outputs: tuple[Tensor, ...] = _Projections.apply(inputs, group, *group.trained)  # type: ignore[no-untyped-call]
    return outputs


def gated_mlp(inputs: Tensor, gate_up: LoraGroup, down: LoraGroup) -> Tensor:
    """The MLP of Mistral's and Llama's layers; ``inputs`` has the shape (tokens, width)."""
    output: Tensor = _GatedMlp.apply(inputs, gate_up, down, *gate_up.trained, *down.trained)  # type: ignore[no-untyped-call]
    return output
