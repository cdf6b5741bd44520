"""What training leaves out where less is trained: the same gradient with less memory and arithmetic."""

from __future__ import annotations

from typing import Any

import torch
from peft.tuners.lora import LoraLayer
from torch import nn
from torch.nn import functional

from pipeline.data.batches import IGNORED_LABEL
from pipeline.planning.memory_estimate import LOSS_ROWS_AT_ONCE


class _FrozenHeadLoss(torch.autograd.Function):
    """Summed cross entropy of ``hidden @ head.T``; makes the gradient of ``hidden`` in the same pass.

    A frozen head needs no gradient, so a block of logits can go as soon as its softmax has been multiplied back.
    """

    @staticmethod
    def forward(
        ctx: Any, hidden: torch.Tensor, head: torch.Tensor, labels: torch.Tensor, weights: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Shapes: ``hidden`` (rows, width) and ``head`` (vocabulary, width), of one dtype; the others (rows)."""
        gradient, total = torch.empty_like(hidden), torch.zeros((), device=hidden.device)
        each = torch.ones(1, device=hidden.device).expand(len(labels)) if weights is None else weights
        blocks = zip(*(torch.split(part, LOSS_ROWS_AT_ONCE) for part in (hidden, labels, each, gradient)), strict=True)
        for inputs, targets, weight, flowing in blocks:
            scores = functional.linear(inputs, head).float()
            chosen = targets.unsqueeze(1)
            normalizer = scores.logsumexp(dim=1, keepdim=True)
            losses = normalizer - scores.gather(1, chosen)
            total += losses.sum() if weights is None else losses.squeeze(1).dot(weight)
            probabilities = scores.sub_(normalizer).exp_()
            probabilities.scatter_add_(1, chosen, torch.full_like(normalizer, -1.0))
            if weights is not None:
                probabilities.mul_(weight.unsqueeze(1))
            torch.mm(probabilities.to(head.dtype), head, out=flowing)
        ctx.save_for_backward(gradient)
        return total

    @staticmethod
    def backward(ctx: Any, *flowing: torch.Tensor) -> tuple[torch.Tensor, None, None, None]:
        """The stored gradient, scaled."""
        (gradient,) = ctx.saved_tensors
        return gradient * flowing[0].to(gradient.dtype), None, None, None


def weighted_answer_loss(
    hidden: torch.Tensor, head: torch.Tensor, following: torch.Tensor, scale: torch.Tensor
) -> torch.Tensor:
    """Cross entropy of the tokens that follow, summed and scaled, without a shape that depends on the data.

    Args:
        hidden: Normalised hidden states, shape (tokens, width).
        head: Weight of the frozen head, shape (vocabulary, width).
        following: The token that follows each, ``IGNORED_LABEL`` where there is no loss; shape (tokens).
        scale: One number.
    """
    weights = (following != IGNORED_LABEL) * scale
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
