"""Near-duplicate texts: MinHash estimates of the Jaccard similarity, without comparing every pair."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from datasketch import MinHash, MinHashLSH

from pipeline.files import ASSETS

NEAR_DUPLICATE_JACCARD = 0.7
"""Two texts at least this similar are near duplicates (Lee et al. 2022 and The Stack use 0.7 to 0.85)."""
_PERMUTATIONS = 128
_SCHEME = "affine64"  # 32-bit hashes give a few false duplicates among a hundred thousand one-word questions
_SHINGLE_WORDS = 3


def words_of(text: str) -> list[str]:
    """The words and numbers of a text in lower case, without punctuation."""
    return re.findall(r"[^\W_]+", text.lower())


@cache
def _asking_words() -> frozenset[str]:
    """Words that phrase a question but are not its subject; they are ignored when questions are compared."""
    return frozenset((ASSETS / "asking_words.txt").read_text(encoding="utf-8").split())


def question_features(text: str) -> set[bytes]:
    """A question's content words; all its words if there are none."""
    words = words_of(text)
    return {word.encode() for word in words if word not in _asking_words()} or {word.encode() for word in words}


def answer_features(text: str) -> set[bytes]:
    """An answer's three-word sequences; a shorter answer is one sequence."""
    words = words_of(text)
    count = max(1, len(words) - _SHINGLE_WORDS + 1)
    return {" ".join(words[start : start + _SHINGLE_WORDS]).encode() for start in range(count)}


@dataclass(frozen=True, slots=True)
class NearDuplicate:
    """The places of two similar texts; ``similarity`` is the estimated Jaccard index, 0 to 1."""

    first: str
    second: str
    similarity: float


@dataclass(slots=True)
class SimilarityIndex:
    """Finds the earlier near duplicate of a text; takes about 7 kB per text.

    A near duplicate is not added to the index, so that a thousand variations of one text are a thousand findings and
    not half a million pairs.
    """

    _lsh: Any = field(default_factory=lambda: MinHashLSH(threshold=NEAR_DUPLICATE_JACCARD, num_perm=_PERMUTATIONS))
    _hashes: dict[str, Any] = field(default_factory=dict)

    def similar(self, features: Sequence[set[bytes]], origins: Sequence[str], *, add: bool) -> Iterator[NearDuplicate]:
        """Compare texts with those added before, and with each other if they are added.

        Args:
            features: The features to compare, one set per text.
            origins: The place of each text; distinct.
            add: Whether to add the texts to the index.

        Yields:
            Each near duplicate with its most similar earlier text.
        """
        hashes = MinHash.bulk(features, num_perm=_PERMUTATIONS, scheme=_SCHEME)
        for minhash, origin in zip(hashes, origins, strict=True):
            candidates = [(float(minhash.jaccard(self._hashes[other])), other) for other in self._lsh.query(minhash)]
            similarity, other = max(candidates, default=(0.0, ""))
            if similarity >= NEAR_DUPLICATE_JACCARD:
                yield NearDuplicate(other, origin, round(similarity, 3))
            elif add:
                self._lsh.insert(origin, minhash)
                self._hashes[origin] = minhash
