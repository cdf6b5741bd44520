from __future__ import annotations

import torch
from torch.nn import functional

from pipeline.training.cpu_attention import attend

LENGTHS = [5, 1, 9]
HEADS, KEY_HEADS, SIZE = 6, 2, 8


def reference(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    """torch's own, example by example, with every key repeated."""
    repeated = [part.repeat_interleave(HEADS // part.shape[1], dim=1) for part in (query, key, value)]
    examples = zip(*(torch.split(part.transpose(0, 1), LENGTHS, dim=1) for part in repeated), strict=True)
    attended = [functional.scaled_dot_product_attention(q, k, v, is_causal=True) for q, k, v in examples]
    return torch.cat(attended, dim=1).transpose(0, 1)


def test_values_and_gradients_are_those_of_torchs_attention() -> None:
    torch.manual_seed(0)
    parts = [torch.randn(sum(LENGTHS), heads, SIZE, requires_grad=True) for heads in (HEADS, KEY_HEADS, KEY_HEADS)]
    starts, flow = torch.tensor([0, 5, 6, 15, 15]), torch.randn(sum(LENGTHS), HEADS, SIZE)
    query, key, value = parts
    expected, attended = reference(query, key, value), attend(query, key, value, starts)
    assert torch.allclose(attended, expected, atol=1e-5)
    for gradient, wanted in zip(
        torch.autograd.grad(attended, parts, flow), torch.autograd.grad(expected, parts, flow), strict=True
    ):
        assert wanted.abs().max() > 0
        assert torch.allclose(gradient, wanted, atol=1e-5)
