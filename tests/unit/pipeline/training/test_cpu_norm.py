"""Normalisation on a CPU against torch's, in double precision."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from pipeline.training.cpu_norm import normalized


def values_and_gradients(dtype: torch.dtype) -> tuple[Tensor, ...]:
    generator = torch.Generator().manual_seed(0)
    hidden, weight, flowing = (torch.randn(*shape, generator=generator) for shape in ((7, 96), (96,), (7, 96)))
    hidden[3] = 0.0  # only epsilon keeps this token finite
    exact = hidden.to(dtype).double().requires_grad_()
    expected = functional.rms_norm(exact, (96,), weight.to(dtype).double(), 1e-5)
    (expected_gradient,) = torch.autograd.grad(expected, exact, flowing.to(dtype).double())
    rounded = hidden.to(dtype).requires_grad_()
    found = normalized(rounded, weight.to(dtype), 1e-5)
    (gradient,) = torch.autograd.grad(found, rounded, flowing.to(dtype))
    assert found.dtype == gradient.dtype == dtype
    return expected.detach(), found.detach().double(), expected_gradient, gradient.double()


@pytest.mark.parametrize(("dtype", "limit"), [(torch.float32, 1e-6), (torch.bfloat16, 6e-3)], ids=str)
def test_values_and_gradients_are_torchs(dtype: torch.dtype, limit: float) -> None:
    expected, found, expected_gradient, gradient = values_and_gradients(dtype)
    assert (found - expected).norm() < limit * expected.norm()
    for token in range(len(gradient)):
        assert (gradient[token] - expected_gradient[token]).norm() < limit * expected_gradient[token].norm()
