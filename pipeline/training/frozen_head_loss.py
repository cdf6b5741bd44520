"""What training leaves out where less is trained: the same gradient with less memory and arithmetic."""

from __future__ import annotations

from typing import Any

import torch
from peft.tuners.lora import LoraLayer
from torch import nn
from torch.nn import functional

from pipeline.data.batches import IGNORED_LABEL
from pipeline.planning.memory_estimate import LOSS_ROWS_AT_ONCE

CPU_ROWS_AT_ONCE = 8
"""Rows as wide as the vocabulary that a core's cache holds in float32, so that the passes over them stay in it."""


class _FrozenHeadLoss(torch.autograd.Function):
    """Summed cross entropy of ``hidden @ head.T``; makes the gradient of ``hidden`` in the same pass.

    A frozen head needs no gradient, so a block of logits can go as soon as its softmax has been multiplied back.
    """

    @staticmethod
    def forward(
        ctx: Any, hidden: torch.Tensor, head: torch.Tensor, labels: torch.Tensor, weights: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Shapes: ``hidden`` (rows, width) and ``head`` (vocabulary, width), of one dtype; the others (rows)."""
        gradient, losses = torch.empty_like(hidden), torch.empty(len(labels), device=hidden.device)
        blocks = zip(
            *(torch.split(part, LOSS_ROWS_AT_ONCE) for part in (hidden, labels, losses, gradient)), strict=True
        )
        for inputs, targets, lost, flowing in blocks:
            torch.mm(_minus_targets(functional.linear(inputs, head), targets, lost), head, out=flowing)
        if weights is None:
            total = losses.sum()
        else:
            total = losses.dot(weights)
            gradient.mul_(weights.unsqueeze(1))
        ctx.save_for_backward(gradient)
        return total

    @staticmethod
    def backward(ctx: Any, *flowing: torch.Tensor) -> tuple[torch.Tensor, None, None, None]:
        """The stored gradient, scaled."""
        (gradient,) = ctx.saved_tensors
        return gradient * flowing[0].to(gradient.dtype), None, None, None


def _minus_targets(scores: torch.Tensor, targets: torch.Tensor, losses: torch.Tensor) -> torch.Tensor:
    """Write the cross entropy of each row into ``losses`` and the softmax less one at the target over ``scores``."""
    rows = len(scores) if scores.is_cuda else CPU_ROWS_AT_ONCE
    parts = (torch.split(part, rows) for part in (scores, targets.unsqueeze(1), losses))
    for part, chosen, lost in zip(*parts, strict=True):
        exact = part.float()
        probabilities = exact.softmax(dim=1)
        # The largest probability cannot vanish, so its logarithm gives the normaliser.
        normaliser = exact.amax(dim=1) - probabilities.amax(dim=1).log()
        torch.sub(normaliser, exact.gather(1, chosen).squeeze(1), out=lost)
        part.copy_(probabilities.scatter_add_(1, chosen, torch.full_like(chosen, -1, dtype=probabilities.dtype)))
    return scores


def weighted_answer_loss(
    hidden: torch.Tensor, head: torch.Tensor, following: torch.Tensor, scale: torch.Tensor
) -> torch.Tensor:
    """Cross entropy of the tokens that follow, summed and scaled; on a GPU without a shape that depends on the data.

    Args:
        hidden: Normalised hidden states, shape (tokens, width).
        head: Weight of the frozen head, shape (vocabulary, width).
        following: The token that follows each, ``IGNORED_LABEL`` where there is no loss; shape (tokens).
        scale: One number.
    """
    answered = following != IGNORED_LABEL
    if not hidden.is_cuda:  # recorded passes need one shape; others leave out what has no loss
        hidden, following, answered = hidden[answered], following[answered], answered[answered]
    weights = answered * scale
    loss: torch.Tensor = _FrozenHeadLoss.apply(hidden, head, following.clamp(min=0), weights)  # type: ignore[no-untyped-call]
    return loss


def use_answer_loss(model: Any) -> torch.Tensor:
    """Let a causal language model with a frozen head give this loss, divided by ``num_items_in_batch``.

    In its place the head passes the hidden states on, and the loss function multiplies them with its weight; so the
    model is called as before, by trainers and wrappers alike, but its ``logits`` are none.

    Returns:
        The head's weight, shape (vocabulary, width).
    """
    base = model.get_base_model()
    head: torch.Tensor = base.get_output_embeddings().weight
    base.set_output_embeddings(nn.Identity())

    def loss(
        logits: torch.Tensor, labels: torch.Tensor, vocab_size: int = 0, *, num_items_in_batch: Any, **kwargs: Any
    ) -> torch.Tensor:
        hidden, following = logits[:, :-1], labels[:, 1:]
        answered = following != IGNORED_LABEL
        with torch.autocast(hidden.device.type, enabled=False):
            answers = hidden[answered].to(head.dtype)
            total: torch.Tensor = _FrozenHeadLoss.apply(answers, head, following[answered])  # type: ignore[no-untyped-call]
            shared: torch.Tensor = total / num_items_in_batch
        return shared

    base.loss_function = loss
    return head


def share_inputs(model: Any) -> None:
    """Let projections of one input keep that input together, in the base's arithmetic.

    PEFT casts LoRA's input to float32 for each of them, and autocast casts it back, which makes a copy each. Only under
    autocast do base and adapter then fit together.
    """
    for module in model.modules():
        if isinstance(module, LoraLayer):
            module.cast_input_dtype_enabled = False
