"""Root mean square normalisation on a CPU with a frozen weight, in fewer passes over memory than torch makes.

torch has one kernel for it on a GPU, and a dozen operators on a CPU, gradients for the weight included.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


class _Norm(torch.autograd.Function):
    """Keeps its input and one number for each token."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, epsilon: float) -> Tensor:
        exact = hidden.float()
        length = torch.linalg.vector_norm(exact, dim=-1, keepdim=True)
        inverse = length.square_().div_(hidden.shape[-1]).add_(epsilon).rsqrt_()
        ctx.save_for_backward(hidden, weight, inverse)
        rounded: Tensor = (exact * inverse).to(hidden.dtype)
        return rounded.mul_(weight)

    @staticmethod
    def backward(ctx: Any, *flowing: Tensor) -> tuple[Tensor, None, None]:
        hidden, weight, inverse = ctx.saved_tensors
        exact, gradient = hidden.float(), (flowing[0] * weight).float()
        along = torch.linalg.vecdot(gradient, exact).unsqueeze(-1).mul_(inverse**3).div_(-hidden.shape[-1])
        return gradient.mul_(inverse).addcmul_(exact, along).to(hidden.dtype), None, None


def normalized(hidden: Tensor, weight: Tensor, epsilon: float) -> Tensor:
    """``hidden / sqrt(mean(hidden^2) + epsilon) * weight``, computed in float32 and rounded as Mistral's layers do.

    Args:
        hidden: Shape (tokens, width).
        weight: Shape (width); frozen.
        epsilon: Keeps zeros apart from each other.
    """
    result: Tensor = _Norm.apply(hidden, weight, epsilon)  # type: ignore[no-untyped-call]
    return result
