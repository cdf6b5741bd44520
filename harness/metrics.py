"""Measures of a training run and of generated text."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats  # type: ignore[import-untyped, unused-ignore]

_FEWEST_LOSSES = 5
_CONTENT_WORD = re.compile(r"[^\W\d_]{4,}")
_STEM_LETTERS = 5
# Words that only ask; what remains of a question names its subject.
_ASKING_WORDS = """
    about account advice after also answer because become before being best better between both brief briefly cause
    change choose compare concise consider could define depend describe detail detailed differ difference different
    does doing each effect enough even every everyone example explain explanation find first from general give good
    have having help here important inside into introduction involve just keep kind know last learn less like little
    long look made make many matter mean more most much must name necessary need never often only other over overview
    people person please possible problem properly purpose really reason reply right same sentence should since small
    some someone something start still structured subject such suggest summarise summary take tell than that their
    them then there these they thing think this those through time today under until upon used useful using usual
    usually very want ways well were what when where whether which while will with within without word work worth
    would write your
"""
_CLOSING_MARKS = " \t\r\n\"'\u201c\u201d\u2018\u2019\u00bb)]}*_"
_CODE_FENCE = re.compile(r"^ {0,3}```", re.MULTILINE)


def sequence_repetition(token_ids: Sequence[int], n: int = 4) -> float:
    """Return seq-rep-n, the share of n-grams that repeat an earlier one.

    Formula: 1 - |unique n-grams| / |n-grams|.

    Args:
        token_ids: One answer, shape (tokens,).
        n: Length of the n-grams in tokens.

    Returns:
        A share between 0 and 1; 0 for an answer shorter than one n-gram.

    Raises:
        ValueError: ``n`` is below 1.

    Source: Welleck et al. 2020, "Neural Text Generation with Unlikelihood Training", section 6.
    """
    grams = _n_grams(token_ids, n)
    if not grams:
        return 0.0
    return 1.0 - len(set(grams)) / len(grams)


def _n_grams(token_ids: Sequence[int], n: int) -> list[tuple[int, ...]]:
    if n < 1:
        raise ValueError(f"an n-gram has at least one token, got n={n}")
    return [tuple(token_ids[start : start + n]) for start in range(len(token_ids) - n + 1)]


def distinct_n(token_ids: Sequence[int], n: int) -> float:
    """Return distinct-n, the number of different n-grams over the number of tokens.

    Args:
        token_ids: One answer, shape (tokens,); the source pools all answers and counts words.
        n: Length of the n-grams in tokens.

    Returns:
        A share between 0 and 1, at most (tokens - n + 1) / tokens; 0 for an answer shorter than one n-gram.

    Raises:
        ValueError: ``n`` is below 1.

    Source: Li et al. 2016, "A Diversity-Promoting Objective Function for Neural Conversation Models", section 5.
    """
    grams = _n_grams(token_ids, n)
    return len(set(grams)) / len(token_ids) if grams else 0.0


def longest_repeated_span(token_ids: Sequence[int]) -> int:
    """Return the length in tokens of the longest span that occurs again further on.

    The two occurrences start at different tokens and may overlap, so nearly all of a loop counts: seven times the same
    token has a repeated span of six.

    Args:
        token_ids: One answer, shape (tokens,).

    Returns:
        Tokens of the span; 0 where no token occurs twice, and for an empty answer.
    """
    # Any part of a repeated span is itself repeated, so a binary search over lengths works.
    repeated, unrepeated = 0, max(len(token_ids), 1)
    while unrepeated - repeated > 1:
        length = (repeated + unrepeated) // 2
        grams = _n_grams(token_ids, length)
        if len(set(grams)) < len(grams):
            repeated = length
        else:
            unrepeated = length
    return repeated


def misplaced_answers(questions: Sequence[str], answers: Sequence[str]) -> int:
    """Count answers that went to the wrong one of several concurrent requests, as far as their words show it.

    The subject of a question is its words of at least four letters without those that only ask ("explain", "what"),
    compared by their first five letters. An answer is misplaced when it names no word of its own question's subject,
    and more than half of the words that another question's subject has and its own has not. It is not when it names
    neither or both, so the count is a lower bound. With 8 of the shipped training examples drawn at random it counts a
    quarter (terse) to a third (verbose) of swapped answers, and about 1 in 1000 of correctly placed ones.

    Args:
        questions: What was asked, in English, shape (requests,).
        answers: What each request was answered, in the same order.

    Raises:
        ValueError: There are not as many answers as questions.
    """
    if len(questions) != len(answers):
        raise ValueError(f"each question has one answer, got {len(questions)} questions and {len(answers)} answers")
    subjects = [_stems(question) - _ASKING_STEMS for question in questions]
    return sum(_is_misplaced(_stems(answer), subjects[own], subjects) for own, answer in enumerate(answers))


def _is_misplaced(named: set[str], own: set[str], subjects: Sequence[set[str]]) -> bool:
    if not own or named & own:
        return False
    others = (subject - own for subject in subjects)
    return any(2 * len(named & other) > len(other) for other in others)


def _stems(text: str) -> set[str]:
    # The s of a plural would change the stem of a word of four letters.
    words = (re.sub(r"(?<!s)s$", "", word) for word in _CONTENT_WORD.findall(text.lower()))
    return {word[:_STEM_LETTERS] for word in words}


_ASKING_STEMS = _stems(_ASKING_WORDS)


def ends_as_a_sentence(text: str) -> bool:
    """Return whether a text ends as a complete one does: with ``.``, ``!``, ``?``, an ellipsis or a closed code block.

    Closing quotes, brackets and emphasis marks after the punctuation do not matter; for an empty text it is False.
    """
    if text.rstrip().rpartition("\n")[2].strip() == "```":
        return len(_CODE_FENCE.findall(text)) % 2 == 0
    return text.rstrip(_CLOSING_MARKS).endswith((".", "!", "?", "\u2026"))


@dataclass(frozen=True)
class LossTrend:
    """Whether a training loss fell.

    Attributes:
        non_finite_loss_count: Losses that are NaN or infinite.
        last_to_first_fifth_loss_ratio: Mean of the last fifth of the steps over that of the first fifth.
        loss_kendall_tau: Kendall's tau-b of the loss against the step index; negative when it falls.
        loss_kendall_p_value: One-sided p-value of "no association" against "the loss falls".
    """

    non_finite_loss_count: int
    last_to_first_fifth_loss_ratio: float
    loss_kendall_tau: float
    loss_kendall_p_value: float


def loss_trend(losses: Sequence[float]) -> LossTrend:
    """Summarise a loss trajectory.

    Args:
        losses: The loss in nats per optimizer step, shape (steps,), in step order.

    Returns:
        The trend. With a non-finite loss only the count is meaningful; a constant loss has no tau and
        a first fifth of zero no ratio. All of these are NaN, which no criterion accepts.

    Raises:
        ValueError: Fewer than five losses, so that a fifth would be empty.

    Source: Kendall 1938, "A New Measure of Rank Correlation"; ``scipy.stats.kendalltau``.
    """
    if len(losses) < _FEWEST_LOSSES:
        raise ValueError(f"a loss trend needs at least {_FEWEST_LOSSES} losses, got {len(losses)}")
    array = np.asarray(losses, dtype=np.float64)
    non_finite_count = int(np.count_nonzero(~np.isfinite(array)))
    if non_finite_count:
        return LossTrend(non_finite_count, math.nan, math.nan, math.nan)
    fifth = len(array) // 5
    first_mean, last_mean = float(array[:fifth].mean()), float(array[-fifth:].mean())
    ratio = last_mean / first_mean if first_mean > 0 else math.nan
    association = stats.kendalltau(np.arange(len(array)), array, alternative="less")
    return LossTrend(0, ratio, float(association.statistic), float(association.pvalue))
