"""Causal attention of a packed row on a CPU, one example after the other, with the products of the matrix units.

torch's fused kernel for CPUs takes a quarter of a step for its backward pass alone; plain products of the few hundred
tokens of an example are faster in both directions.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor


class _Attention(torch.autograd.Function):
    """Keeps the probabilities of every example for the backward pass."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, lengths: Sequence[int]) -> Tensor:
        """Shapes: ``query`` (tokens, heads, size), ``key`` and ``value`` (tokens, fewer heads, size)."""
        scale, attended, kept = query.shape[-1] ** -0.5, torch.empty_like(query), []
        for (queries, keys, values), output in zip(
            _examples(lengths, query, key, value), torch.split(attended, list(lengths)), strict=True
        ):
            unseen = _unseen(keys.shape[1], queries.shape[1] // keys.shape[1], query.dtype)
            scores = torch.baddbmm(unseen, queries, keys.mT, alpha=scale)
            probabilities = scores.softmax(dim=-1)
            output.copy_(_ungrouped(probabilities @ values, len(output)))
            kept.append(probabilities)
        ctx.lengths, ctx.scale = lengths, scale
        ctx.save_for_backward(query, key, value, *kept)
        return attended

    @staticmethod
    def backward(ctx: Any, *flowing: Tensor) -> tuple[Tensor | None, ...]:
        query, key, value, *kept = ctx.saved_tensors
        gradients = [torch.empty_like(part) for part in (query, key, value)]
        outputs = zip(*(torch.split(gradient, list(ctx.lengths)) for gradient in gradients), strict=True)
        examples = _examples(ctx.lengths, query, key, value)
        flows = (_grouped(flow, key.shape[1]) for flow in torch.split(flowing[0], list(ctx.lengths)))
        for (queries, keys, values), flow, probabilities, (to_query, to_key, to_value) in zip(
            examples, flows, kept, outputs, strict=True
        ):
            to_value.copy_((probabilities.mT @ flow).transpose(0, 1))
            to_scores = torch.ops.aten._softmax_backward_data(flow @ values.mT, probabilities, -1, probabilities.dtype)
            to_query.copy_(_ungrouped(to_scores @ keys, len(to_query)).mul_(ctx.scale))
            to_key.copy_((to_scores.mT @ queries).transpose(0, 1).mul_(ctx.scale))
        return *gradients, None


@lru_cache(maxsize=16)  # every layer asks for those of the row's examples
def _unseen(length: int, groups: int, dtype: torch.dtype) -> Tensor:
    return torch.full((length, length), -torch.inf, dtype=dtype).triu(1).repeat(groups, 1)


def _examples(lengths: Sequence[int], query: Tensor, key: Tensor, value: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """Queries, keys and values of each example, shape (heads of keys, tokens, size).

    The queries that share a key stand below each other, so that no key is repeated.
    """
    for queries, keys, values in zip(*(torch.split(part, list(lengths)) for part in (query, key, value)), strict=True):
        yield _grouped(queries, key.shape[1]), keys.transpose(0, 1), values.transpose(0, 1)


def _grouped(vectors: Tensor, heads: int) -> Tensor:
    return torch.unflatten(vectors, 1, (heads, -1)).permute(1, 2, 0, 3).flatten(1, 2)


def _ungrouped(vectors: Tensor, tokens: int) -> Tensor:
    return torch.unflatten(vectors, 1, (-1, tokens)).permute(2, 0, 1, 3).flatten(1, 2)


def attend(query: Tensor, key: Tensor, value: Tensor, starts: Tensor) -> Tensor:
    """Causal attention within each example of a row.

    Args:
        query: Shape (tokens, heads, size).
        key: Shape (tokens, fewer heads, size).
        value: As ``key``.
        starts: Where each example begins, and where the row ends.

    Returns:
        What ``query`` attends to, of its shape.
    """
    lengths = [length for length in starts.diff().tolist() if length]
    attended: Tensor = _Attention.apply(query, key, value, lengths)  # type: ignore[no-untyped-call]
    return attended
