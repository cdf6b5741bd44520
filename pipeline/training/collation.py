"""Micro-batches as tensors: padded, or as a packed row, also in shares."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import accumulate, pairwise
from typing import Any

import torch
from torch import Tensor

from pipeline.data.batches import IGNORED_LABEL, collate, pack


def padded_tensors(batch: Sequence[Mapping[str, Any]], pad_id: int, multiple: int = 1) -> dict[str, Any]:
    """The arguments of a model's call for padded examples.

    Args:
        batch: Encoded examples.
        pad_id: Fills the ends.
        multiple: What the padded length is a multiple of, in tokens.

    Returns:
        ``collate``'s columns as tensors, with labels and ``logits_to_keep`` from the first answer token on: a prompt's
        logits carry no loss and are as wide as the vocabulary; the last of them predicts the answer's start.
    """
    tensors = {name: torch.tensor(rows) for name, rows in collate(batch, pad_id, multiple).items()}
    before = int((tensors["labels"] != IGNORED_LABEL).any(dim=0).nonzero()[0]) - 1
    labels = tensors["labels"][:, before:]
    return {**tensors, "labels": labels, "logits_to_keep": labels.shape[1]}


def packed_tensors(
    batch: Sequence[Mapping[str, Any]], pad_id: int, row_lengths: Sequence[int], places: int
) -> dict[str, Any]:
    """``pack``'s row as tensors, ``starts`` as the 32-bit integers that attention reads; ``tokens`` stays a number."""
    packed = pack(batch, pad_id, row_lengths, places)
    starts, tokens = torch.tensor(packed.pop("starts"), dtype=torch.int32), packed.pop("tokens")
    return {**{name: torch.tensor(rows) for name, rows in packed.items()}, "starts": starts, "tokens": tokens}


def split_row(row: Mapping[str, Tensor], parts: int) -> list[dict[str, Tensor]]:
    """A row's examples in rows of about as many tokens each, without what fills the row.

    Args:
        row: As ``packed_tensors`` makes it.
        parts: Number of rows; fewer where there are fewer examples.
    """
    examples = [
        (start, end)
        for start, end in pairwise(row["starts"].tolist())
        if (row["labels"][0, start:end] != IGNORED_LABEL).any()
    ]
    shares: list[list[tuple[int, int]]] = [[] for _ in range(min(parts, len(examples)))]
    for example in sorted(examples, key=_tokens, reverse=True):
        min(shares, key=lambda share: sum(map(_tokens, share))).append(example)
    return [
        {
            **{
                name: torch.cat([row[name][:, start:end] for start, end in share], dim=1)
                for name in ("input_ids", "position_ids", "labels")
            },
            "starts": torch.tensor([0, *accumulate(map(_tokens, share))], dtype=torch.int32),
        }
        for share in shares
    ]


def _tokens(example: tuple[int, int]) -> int:
    start, end = example
    return end - start
