"""Whether prompts say what their answers can follow from, or are one sentence with another name in it each time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

LOOKED_AT = 2000
"""Prompts that are kept, the first ones, so that memory does not grow with the data."""
COMMON_SHARE = 0.1
"""A word of more prompts than this share, or than the two of a pair, belongs to the sentence, not to its subject."""
LARGEST_BARE_SHARE = 0.5
BARE_REMEDY = "answers to a bare name cannot be learnt from it, and loop: ask for what they say, or add other prompts"
PUNCTUATION = ".,;:?!()\"'"


def bare_share(prompts: Iterable[str]) -> float:
    """Share of prompts with at most one word that few others have; 0 without prompts."""
    words = [{word.strip(PUNCTUATION).lower() for word in prompt.split()} for prompt in prompts]
    counts = Counter(word for of_one in words for word in of_one)
    common = max(2, COMMON_SHARE * len(words))
    bare = sum(sum(counts[word] <= common for word in of_one) <= 1 for of_one in words)
    return bare / len(words) if words else 0.0
