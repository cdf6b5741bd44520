"""The micro-batches of training: which examples are taken together, in which order, and how they are padded."""

from __future__ import annotations

import dataclasses
import math
import random
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

from pipeline.config import Style, TrainingConfig

IGNORED_LABEL = -100
"""The label that cross entropy leaves out (PyTorch's ``ignore_index``)."""
ROW_MULTIPLE = 64
"""What the length of a packed row is a multiple of on a GPU, in tokens; project: whole blocks of matrix kernels."""
CPU_ROW_MULTIPLE = 32
"""On a CPU; project: whole blocks of its matrix units, and few lengths, so that compiled products are found again."""


def training_batches(styles: Sequence[str], lengths: Sequence[int], training: TrainingConfig) -> list[list[int]]:
    """Indices of the examples of each micro-batch, ``accumulation_steps`` of them behind every optimizer step.

    The examples are shuffled again for each pass over them. With ``stratify_windows`` each window, the examples behind
    one optimizer step, holds both styles in the file's proportion and is sorted by length. So no step sees one style
    alone, and examples of like length share a micro-batch. Its cuts lie where the largest micro-batch has the fewest
    tokens, padding included; what a step sums over does not depend on them. The run's last window may be smaller: it
    has as many micro-batches as the others, or one for each of its examples if those are fewer.

    Args:
        styles: The style of each example.
        lengths: Its token count.
        training: Sizes, passes and seed. The first pass does not depend on how many follow.
    """
    generator, indices, order = random.Random(training.seed), list(range(len(styles))), []
    for _ in range(training.epochs):
        generator.shuffle(indices)
        order += _spread(indices, styles) if training.stratify_windows else indices
    batches = []
    for start in range(0, len(order), training.window_examples):
        window = order[start : start + training.window_examples]
        count = min(len(window), training.accumulation_steps)
        if training.stratify_windows:
            window.sort(key=lambda index: lengths[index])
            padded = [padded_length(lengths[index], training.pad_to_multiple) for index in window]
            batches += _cut_evenly(window, padded, count)
        else:
            cuts = [len(window) * part // count for part in range(count + 1)]
            batches += [window[first:end] for first, end in pairwise(cuts)]
    return batches


def _spread(order: Sequence[int], styles: Sequence[str]) -> list[int]:
    """The examples in their order, but with each style spread evenly."""
    strata = [[index for index in order if styles[index] == style] for style in Style]
    even = sorted((rank / len(stratum), index) for stratum in strata for rank, index in enumerate(stratum))
    return [index for _, index in even]


def _cut_evenly(window: list[int], lengths: list[int], count: int) -> list[list[int]]:
    """Cut a window into ``count`` micro-batches by the smallest budget of padded tokens that allows so few."""
    sizes = range(1, len(window) + 1)
    budgets = sorted({size * longest for size in sizes for longest in lengths})
    budget = budgets[bisect_left(budgets, True, key=lambda tokens: _cut(window, lengths, count, tokens) is not None)]
    batches = _cut(window, lengths, count, budget)
    assert batches is not None
    return batches


def _cut(window: list[int], lengths: list[int], count: int, budget_tokens: int) -> list[list[int]] | None:
    """``count`` micro-batches, each as large as the budget and the number still to come allow; None if that fails."""
    batches, start = [], 0
    for following in range(count - 1, -1, -1):
        end, longest = start, 0
        while end < len(window) - following:
            longest = max(longest, lengths[end])
            if (end + 1 - start) * longest > budget_tokens:
                break
            end += 1
        if end == start:
            return None
        batches.append(window[start:end])
        start = end
    return batches if start == len(window) else None


def padded_length(tokens: int, multiple: int) -> int:
    """``tokens`` rounded up to the next multiple."""
    return math.ceil(tokens / multiple) * multiple


def collate(batch: Sequence[Mapping[str, Any]], pad_id: int, multiple: int = 1) -> dict[str, list[list[int]]]:
    """Pad encoded examples on the right; masks and labels go by position, because the pad token may be EOS.

    Args:
        batch: Encoded examples.
        pad_id: Stands where there is nothing.
        multiple: What the padded length is a multiple of, in tokens.

    Returns:
        ``input_ids``, ``attention_mask`` and ``labels``, each of shape (batch, padded length).
    """
    width = padded_length(max(len(example["input_ids"]) for example in batch), multiple)
    columns: dict[str, list[list[int]]] = {"input_ids": [], "attention_mask": [], "labels": []}
    for example in batch:
        ids, prompt_length = list(example["input_ids"]), example["prompt_length"]
        padding = width - len(ids)
        columns["input_ids"].append(ids + [pad_id] * padding)
        columns["attention_mask"].append([1] * len(ids) + [0] * padding)
        columns["labels"].append([IGNORED_LABEL] * prompt_length + ids[prompt_length:] + [IGNORED_LABEL] * padding)
    return columns


def pack(batch: Sequence[Mapping[str, Any]], pad_id: int, row_lengths: Sequence[int], places: int) -> dict[str, Any]:
    """Put encoded examples one after the other in one row.

    Args:
        batch: Encoded examples.
        pad_id: Fills the end of the row.
        row_lengths: Tokens that a row may have; the shortest that holds the examples is taken.
        places: Examples that a row has room for; a row's shape does not depend on how many there are.

    Returns:
        ``input_ids``, ``position_ids`` and ``labels`` of shape (1, row length); ``starts``, where each example begins
        and the row ends, ``places`` + 2 of them; and ``tokens``, how many the examples have.
    """
    ids: list[int] = []
    positions: list[int] = []
    labels: list[int] = []
    starts = [0]
    for example in batch:
        tokens, prompt_length = list(example["input_ids"]), example["prompt_length"]
        ids += tokens
        positions += range(len(tokens))
        labels += [IGNORED_LABEL] * prompt_length + tokens[prompt_length:]
        starts.append(len(ids))
    count = len(ids)
    filling = min(length for length in row_lengths if length >= count) - count
    # What fills the row is an example of its own, and the places left are empty ones behind it.
    starts += [count + filling] * (places + 2 - len(starts))
    return {
        "input_ids": [ids + [pad_id] * filling],
        "position_ids": [[*positions, *range(filling)]],
        "labels": [labels + [IGNORED_LABEL] * filling],
        "starts": starts,
        "tokens": count,
    }


def packed_batches(
    styles: Sequence[str], lengths: Sequence[int], training: TrainingConfig, parts: int
) -> list[list[int]]:
    """As ``training_batches``, but each window cut into ``parts`` rows of about as many tokens."""
    whole = dataclasses.replace(training, micro_batch_size=training.window_examples, accumulation_steps=1)
    return [row for window in training_batches(styles, lengths, whole) for row in _rows(window, lengths, parts)]


def _rows(window: Sequence[int], lengths: Sequence[int], parts: int) -> list[list[int]]:
    """Cut a window into ``parts`` rows, none of them empty, the longest as short as that allows."""
    count = min(parts, len(window))
    longest, total = max(lengths[index] for index in window), sum(lengths[index] for index in window)
    budget = bisect_left(
        range(longest, total), True, key=lambda tokens: len(_filled(window, lengths, 1, tokens)) <= count
    )
    return _filled(window, lengths, count, longest + budget)


def _filled(window: Sequence[int], lengths: Sequence[int], at_least: int, budget_tokens: int) -> list[list[int]]:
    """Rows filled one after the other up to the budget, examples kept back so that there are ``at_least`` so many."""
    rows: list[list[int]] = []
    tokens = 0
    for place, index in enumerate(window):
        left = len(window) - place
        if not rows or tokens + lengths[index] > budget_tokens or left <= at_least - len(rows):
            rows.append([])
            tokens = 0
        rows[-1].append(index)
        tokens += lengths[index]
    return rows


def row_lengths(batches: Sequence[Sequence[int]], lengths: Sequence[int]) -> list[int]:
    """At most two lengths for all rows, multiples of ``ROW_MULTIPLE``, with as little filling as two allow."""
    tokens = [padded_length(sum(lengths[index] for index in batch), ROW_MULTIPLE) for batch in batches]
    longest = max(tokens)
    shorter = min(set(tokens), key=lambda short: sum(short if count <= short else longest for count in tokens))
    return sorted({shorter, longest})
