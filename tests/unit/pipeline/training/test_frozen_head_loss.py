from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional

from pipeline.data.batches import IGNORED_LABEL
from pipeline.training.frozen_head_loss import use_answer_loss

WIDTH, VOCABULARY, POSITIONS = 16, 50, 150


class Base:
    """As much of a causal language model as the loss touches."""

    def __init__(self) -> None:
        self.weight = torch.randn(VOCABULARY, WIDTH)
        self.head: nn.Module = nn.Linear(WIDTH, VOCABULARY, bias=False).requires_grad_(False)
        self.head.weight = nn.Parameter(self.weight, requires_grad=False)
        self.loss_function: Any = None

    def get_output_embeddings(self) -> nn.Module:
        return self.head

    def set_output_embeddings(self, head: nn.Module) -> None:
        self.head = head


def expected(hidden: torch.Tensor, weight: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    logits = functional.linear(hidden, weight)[:, :-1].flatten(0, 1)
    return functional.cross_entropy(logits, labels[:, 1:].flatten(), ignore_index=IGNORED_LABEL, reduction="sum")


@pytest.mark.parametrize("answered", [1, 100, POSITIONS - 1])
def test_loss_and_gradient_are_those_of_cross_entropy(answered: int) -> None:
    torch.manual_seed(0)
    base, hidden = Base(), torch.randn(3, POSITIONS, WIDTH, requires_grad=True)
    labels = torch.randint(VOCABULARY, (3, POSITIONS))
    labels[:, : POSITIONS - answered] = IGNORED_LABEL
    labels[0, -20:] = IGNORED_LABEL
    (wanted,) = torch.autograd.grad(expected(hidden, base.weight, labels) / 7, hidden)

    use_answer_loss(SimpleNamespace(get_base_model=lambda: base))
    assert torch.equal(base.head(hidden), hidden)
    loss = base.loss_function(logits=hidden, labels=labels, num_items_in_batch=7, vocab_size=VOCABULARY)
    assert loss.item() == pytest.approx(expected(hidden, base.weight, labels).item() / 7, rel=1e-5)
    (gradient,) = torch.autograd.grad(3 * loss, hidden)
    assert torch.allclose(gradient, 3 * wanted, atol=1e-5)
    assert wanted.abs().max() > 0


def test_no_logits_are_kept() -> None:
    base, hidden = Base(), torch.randn(3, POSITIONS, WIDTH, requires_grad=True)
    use_answer_loss(SimpleNamespace(get_base_model=lambda: base))
    saved: list[torch.Tensor] = []

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        saved.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        base.loss_function(logits=hidden, labels=torch.ones(3, POSITIONS, dtype=torch.long), num_items_in_batch=1)
    assert saved
    assert all(VOCABULARY not in tensor.shape for tensor in saved)
