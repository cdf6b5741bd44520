"""Measures of the style criteria as functions of kept answers: the test calls them, and ``verbosity judge`` again."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from acceptance.answers import (
    consistency,
    latency_measures,
    repetition,
    token_effect,
    whole_share,
)
from acceptance.early import EARLY, IN_BOUND, in_bound, look
from harness.answers import Answer
from harness.criteria_set import MeasuresOfAnswers
from harness.effects import mean_difference_interval
from harness.sequential import ASKED
from harness.statistics import Proportion, median
from pipeline.config import UNCONSTRAINED, GenerationConfig, Style

if TYPE_CHECKING:
    from pipeline.generation.generate import Generation

UNCONSTRAINED_USE, PRESET_USE, TIMED_USE = "unconstrained", "preset", "timed"
NO_TOKEN_USE, ADAPTER_OFF_USE, SWAPPED_USE = "no token", "adapter off", "rows swapped"
"""What was asked for: greedily, under the documented preset, one answer at a time, and with one thing changed."""


def kept(
    use: str,
    questions: Sequence[str],
    generations: Iterable[Generation],
    settings: GenerationConfig,
    seed: int | None = None,
) -> list[dict[str, Any]]:
    """Answers as they are kept.

    Args:
        use: What was asked for.
        questions: Of which the first were asked.
        generations: Their answers, in the same order.
        settings: Of the decoding.
        seed: Of the sampling.
    """
    return [
        {
            "use": use,
            "question": question,
            "style": answer.style,
            "settings": dataclasses.asdict(settings) | {"seed": seed},
            "text": answer.text,
            "token_ids": list(answer.token_ids),
            "token_count": answer.token_count,
            "finish_reason": answer.finish_reason,
            "latency_s": answer.latency_s,
        }
        for question, answer in zip(questions, generations, strict=False)
    ]


def kept_greedy(answered: Iterable[tuple[str, Generation]]) -> list[dict[str, Any]]:
    """Greedy answers with their questions, as they are kept."""
    return [row for text, answer in answered for row in kept(UNCONSTRAINED_USE, [text], [answer], UNCONSTRAINED)]


def of(answers: Sequence[Answer], use: str, style: Style | None = None) -> dict[str, Answer]:
    """The answers of one use and style, by question.

    Raises:
        ValueError: There are none, or a question was answered twice.
    """
    chosen = [answer for answer in answers if (answer["use"], answer["style"]) == (use, style)]
    by_question = {answer["question"]: answer for answer in chosen}
    if not chosen or len(by_question) < len(chosen):
        raise ValueError(f"{use}, {style or 'no style'}: expected one answer to each question, got {len(chosen)}")
    return by_question


def lengths(answers: Mapping[str, Answer]) -> dict[str, int]:
    """Token counts by question."""
    return {question: len(answer["token_ids"]) for question, answer in answers.items()}


def _by_style(answers: Sequence[Answer], use: str) -> dict[Style, list[int]]:
    """Token counts of a use, by style, in the order of the questions."""
    return {style: list(lengths(of(answers, use, style)).values()) for style in Style}


def _presets(answers: Sequence[Answer]) -> list[list[Answer]]:
    """The sampled answers, a list for each seed."""
    sampled: dict[int, list[Answer]] = {}
    for answer in answers:
        if answer["use"] == PRESET_USE:
            sampled.setdefault(answer["settings"]["seed"], []).append(answer)
    return list(sampled.values())


def token_separation(answers: Sequence[Answer]) -> dict[str, object]:
    """How far apart the styles' lengths are, greedy and under the presets; by an early rejection, what led to it."""
    greedy = [answer for answer in answers if answer["use"] == UNCONSTRAINED_USE]
    seen = {**look(greedy), ASKED: len(greedy)}
    if EARLY.rejects(seen) and len(greedy) == len(answers):
        return dict(seen)
    terse, verbose = (of(answers, UNCONSTRAINED_USE, style) for style in Style)
    terse_tokens, verbose_tokens = lengths(terse), lengths(verbose)
    presets = _presets(answers)
    sampled = [_by_style(decoding, PRESET_USE) for decoding in presets]
    texts = [a["text"] for decoding in presets for a in of(decoding, PRESET_USE, Style.TERSE).values()]
    return {
        **seen,
        "question_count": len(terse),
        "terse_median_tokens": median(list(terse_tokens.values())),
        "terse_worst_tokens": max(terse_tokens.values()),
        IN_BOUND[Style.TERSE]: {question: in_bound(answer) for question, answer in terse.items()},
        "verbose_median_tokens": median(list(verbose_tokens.values())),
        "verbose_worst_tokens": min(verbose_tokens.values()),
        IN_BOUND[Style.VERBOSE]: {question: in_bound(answer) for question, answer in verbose.items()},
        "sampling_seed_count": len(presets),
        "preset_terse_median_tokens": max(median(by_style[Style.TERSE]) for by_style in sampled),
        "preset_terse_whole_share": whole_share(texts),
        "preset_verbose_median_tokens": min(median(by_style[Style.VERBOSE]) for by_style in sampled),
    }


def style_consistency(answers: Sequence[Answer]) -> dict[str, object]:
    """Whether every question has the right order, and that the tokens and the adapter are the cause."""
    greedy, adapter_off = _by_style(answers, UNCONSTRAINED_USE), _by_style(answers, ADAPTER_OFF_USE)
    swapped = _by_style(answers, SWAPPED_USE)
    effects, base_effects = (
        [verbose - terse for terse, verbose in zip(arm[Style.TERSE], arm[Style.VERBOSE], strict=True)]
        for arm in (greedy, adapter_off)
    )
    turned = [terse > verbose for terse, verbose in zip(swapped[Style.TERSE], swapped[Style.VERBOSE], strict=True)]
    decodings = [greedy, *(_by_style(decoding, PRESET_USE) for decoding in _presets(answers))]
    return {
        "question_count": len(greedy[Style.TERSE]),
        **consistency(decodings),
        **token_effect(greedy),
        "adapter_effect_low_tokens": mean_difference_interval(effects[: len(base_effects)], base_effects)[0],
        "swapped_order_share": Proportion.of(turned),
        "no_token_median_tokens": median(list(lengths(of(answers, NO_TOKEN_USE)).values())),
    }


def latencies(answers: Sequence[Answer]) -> dict[Style, list[float]]:
    """Seconds that each timed answer took, by style."""
    return {style: [a["latency_s"] for a in of(answers, TIMED_USE, style).values()] for style in Style}


def generation_speed(answers: Sequence[Answer]) -> dict[str, object]:
    """How long single answers took."""
    seconds = sum(sum(values) for values in latencies(answers).values())
    tokens = sum(sum(counts) for counts in _by_style(answers, TIMED_USE).values())
    return {**latency_measures(latencies(answers)), "tokens_per_s": tokens / seconds}


def no_repetition(answers: Sequence[Answer]) -> dict[str, object]:
    """How much the answers repeat themselves."""
    return repetition([answer["token_ids"] for answer in answers])


FROM_ANSWERS: Mapping[str, MeasuresOfAnswers] = {
    "style.token_separation": token_separation,
    "style.consistency": style_consistency,
    "style.generation_speed": generation_speed,
    "style.no_repetition": no_repetition,
}
"""Which function measures a criterion's kept answers."""
