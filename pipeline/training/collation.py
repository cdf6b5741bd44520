"""Micro-batches as tensors: padded, or as a packed row."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

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
