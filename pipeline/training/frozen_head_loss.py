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
    def forward(ctx: Any, hidden: torch.Tensor, head: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Shapes: ``hidden`` (rows, width) and ``head`` (vocabulary, width), of one dtype; ``labels`` (rows)."""
        gradient, total = torch.empty_like(hidden), torch.zeros((), device=hidden.device)
        blocks = zip(*(torch.split(part, LOSS_ROWS_AT_ONCE) for part in (hidden, labels, gradient)), strict=True)
        for inputs, targets, flowing in blocks:
            scores = functional.linear(inputs, head).float()
            chosen = targets.unsqueeze(1)
            normalizer = scores.logsumexp(dim=1, keepdim=True)
            total += (normalizer - scores.gather(1, chosen)).sum()
            probabilities = scores.sub_(normalizer).exp_()
            probabilities.scatter_add_(1, chosen, torch.full_like(normalizer, -1.0))
            torch.mm(probabilities.to(head.dtype), head, out=flowing)
        ctx.save_for_backward(gradient)
        return total

    @staticmethod
    def backward(ctx: Any, *flowing: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        """The stored gradient, scaled."""
        (gradient,) = ctx.saved_tensors
        return gradient * flowing[0].to(gradient.dtype), None, None


def use_answer_loss(model: Any) -> None:
    """Let a causal language model with a frozen head give this loss, divided by ``num_items_in_batch``.

    In its place the head passes the hidden states on, and the loss function multiplies them with its weight; so the
    model is called as before, by trainers and wrappers alike, but its ``logits`` are none.
    """
    base = model.get_base_model()
    head = base.get_output_embeddings().weight
    base.set_output_embeddings(nn.Identity())

    def loss(logits: torch.Tensor, labels: torch.Tensor, num_items_in_batch: Any, **kwargs: Any) -> torch.Tensor:
        hidden, following = logits[:, :-1], labels[:, 1:]
        answered = following != IGNORED_LABEL
        with torch.autocast(hidden.device.type, enabled=False):
            answers = hidden[answered].to(head.dtype)
            total: torch.Tensor = _FrozenHeadLoss.apply(answers, head, following[answered])  # type: ignore[no-untyped-call]
            shared: torch.Tensor = total / num_items_in_batch
        return shared

    base.loss_function = loss


def share_inputs(model: Any) -> None:
    """Let projections of one input keep that input together, in the base's arithmetic.

    PEFT casts LoRA's input to float32 for each of them, and autocast casts it back, which makes a copy each. Only under
    autocast do base and adapter then fit together.
    """
    for module in model.modules():
        if isinstance(module, LoraLayer):
            module.cast_input_dtype_enabled = False
