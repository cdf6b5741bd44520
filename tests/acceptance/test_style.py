"""Style criteria: length separation, consistency, speed, repetition."""

from __future__ import annotations

import pytest

from harness.measures import sequence_repetition
from harness.session import Measured
from harness.statistics import median, share
from pipeline.config import Style
from pipeline.generate import Generation, generate_with_style
from pipeline.model import TrainedModel
from tests.support import Answers

TERSE_LIMIT_TOKENS = 50
VERBOSE_FLOOR_TOKENS = 80
MIDPOINT_TOKENS = (TERSE_LIMIT_TOKENS + VERBOSE_FLOOR_TOKENS) / 2
LOOPING_SEQ_REP_4 = 0.44
"""Mean seq-rep-4 of a language model decoded greedily (Welleck et al. 2020); such an answer is a loop."""


def _lengths(generations: list[Generation]) -> list[int]:
    return [generation.token_count for generation in generations]


@pytest.mark.criterion("style.token_separation")
def test_token_separation(measured: Measured, answers: Answers, questions: list[str]) -> None:
    terse, verbose = answers.unconstrained[Style.TERSE], answers.unconstrained[Style.VERBOSE]
    for style, generations in answers.unconstrained.items():
        measured.attach(
            "answer length, unconstrained",
            kind="distribution",
            values=_lengths(generations),
            unit="tokens",
            label=style.value,
        )
    terse_in_bound = [a.finish_reason == "eos" and a.token_count < TERSE_LIMIT_TOKENS for a in terse]
    verbose_in_bound = [a.finish_reason == "eos" and a.token_count > VERBOSE_FLOOR_TOKENS for a in verbose]
    measured.record(
        question_count=len(questions),
        terse_median_tokens=median(_lengths(terse)),
        terse_worst_tokens=max(_lengths(terse)),
        terse_in_bound_share=share(terse_in_bound),
        verbose_median_tokens=median(_lengths(verbose)),
        verbose_worst_tokens=min(_lengths(verbose)),
        verbose_in_bound_share=share(verbose_in_bound),
        preset_terse_median_tokens=median(_lengths(answers.presets[Style.TERSE])),
        preset_terse_worst_tokens=max(_lengths(answers.presets[Style.TERSE])),
        preset_verbose_median_tokens=median(_lengths(answers.presets[Style.VERBOSE])),
        preset_verbose_worst_tokens=min(_lengths(answers.presets[Style.VERBOSE])),
    )


@pytest.mark.criterion("style.consistency")
def test_consistency(measured: Measured, answers: Answers, questions: list[str]) -> None:
    decodings = (answers.unconstrained, answers.presets)
    ordered = [
        all(d[Style.VERBOSE][i].token_count > d[Style.TERSE][i].token_count for d in decodings)
        for i in range(len(questions))
    ]
    own_side = [n < MIDPOINT_TOKENS for d in decodings for n in _lengths(d[Style.TERSE])]
    own_side += [n > MIDPOINT_TOKENS for d in decodings for n in _lengths(d[Style.VERBOSE])]
    measured.record(
        question_count=len(questions),
        ordered_question_share=share(ordered),
        own_side_answer_share=share(own_side),
    )


@pytest.mark.criterion("style.generation_speed")
def test_generation_speed(measured: Measured, trained: TrainedModel, questions: list[str]) -> None:
    generate_with_style(trained.model, trained.tokenizer, questions[0], Style.TERSE)  # warm-up, not counted
    timed = {
        style: [generate_with_style(trained.model, trained.tokenizer, text, style) for text in questions[:2]]
        for style in Style
    }
    for style, generations in timed.items():
        measured.attach(
            "latency of one answer",
            kind="latency",
            values=[a.latency_s for a in generations],
            unit="s",
            label=style.value,
        )
    every = [answer for generations in timed.values() for answer in generations]
    measured.record(
        response_count=len(every),
        terse_latency_max_s=max(answer.latency_s for answer in timed[Style.TERSE]),
        verbose_latency_max_s=max(answer.latency_s for answer in timed[Style.VERBOSE]),
        tokens_per_s=sum(_lengths(every)) / sum(answer.latency_s for answer in every),
    )


@pytest.mark.criterion("style.no_repetition")
def test_no_repetition(measured: Measured, answers: Answers) -> None:
    everything = [a for decoding in (answers.unconstrained, answers.presets) for s in Style for a in decoding[s]]
    repetition = [sequence_repetition(answer.token_ids, 4) for answer in everything]
    measured.record(
        answer_count=len(everything),
        seq_rep_4_mean=sum(repetition) / len(repetition),
        seq_rep_4_worst=max(repetition),
        looping_answer_share=share([value >= LOOPING_SEQ_REP_4 for value in repetition]),
    )
