"""Style criteria: length separation, consistency and its cause, speed, repetition."""

from __future__ import annotations

from itertools import islice
from typing import Any

import pytest

from acceptance import measures
from acceptance.answers import record_latencies
from acceptance.early import in_bound
from acceptance.evidence import Answers, Counterfactuals
from harness.answers import Answer
from harness.machine import MachineWatch
from harness.recorder import Recorder
from harness.sequential import PLANNED
from harness.statistics import median
from pipeline.config import GENERATION_PRESETS, UNCONSTRAINED, Style
from pipeline.engines.many import Asked, generate_each
from pipeline.generation.generate import Generation
from pipeline.model.loading import TrainedModel

TIMED_QUESTIONS = 6
SHOWN_ANSWERS = 6


def _kept(use: str, questions: list[str], arms: dict[Style, list[Generation]]) -> list[dict[str, Any]]:
    return [row for arm in arms.values() for row in measures.kept(use, questions, arm, UNCONSTRAINED)]


def _kept_decodings(answers: Answers, questions: list[str]) -> list[dict[str, Any]]:
    return _kept(measures.UNCONSTRAINED_USE, questions, answers.unconstrained) + [
        row
        for seed, sampled in answers.presets.items()
        for style, arm in sampled.items()
        for row in measures.kept(measures.PRESET_USE, questions, arm, GENERATION_PRESETS[style], seed)
    ]


@pytest.mark.criterion("style.token_separation")
def test_token_separation(measured: Recorder, first_answers: Answers, questions: list[str]) -> None:
    measured.record(**{PLANNED: len(Style) * len(questions)})
    if first_answers.rejected_by:
        measured.keep(measures.kept_greedy(first_answers.rejected_by))
        measured.record(**measures.token_separation(measured.answers))
        measured.show(
            "Answers by which the plan rejected",
            ("question", "style", "tokens", "in bound", "answer"),
            [(a["question"], a["style"], a["token_count"], str(in_bound(a)), a["text"]) for a in measured.answers],
        )
        return
    measured.keep(_kept_decodings(first_answers, questions))
    terse, verbose = (measures.of(measured.answers, measures.UNCONSTRAINED_USE, style) for style in Style)
    for style, given in zip(Style, (terse, verbose), strict=True):
        measured.attach(
            "answer length, unconstrained",
            kind="distribution",
            values=measures.lengths(given),
            unit="tokens",
            label=style.value,
        )
    rows = [(text, terse[text]["text"], verbose[text]["text"]) for text in questions[:SHOWN_ANSWERS]]
    measured.show("Answers side by side, greedy", ("question", "TERSE", "VERBOSE"), rows)
    measured.record(**measures.token_separation(measured.answers))


@pytest.mark.criterion("style.consistency")
def test_consistency(
    measured: Recorder, answers: Answers, counterfactuals: Counterfactuals, questions: list[str]
) -> None:
    no_token = measures.kept(measures.NO_TOKEN_USE, questions, counterfactuals.no_token, UNCONSTRAINED)
    measured.keep(_kept_decodings(answers, questions) + no_token)
    measured.keep(_kept(measures.ADAPTER_OFF_USE, questions, counterfactuals.adapter_off))
    measured.keep(_kept(measures.SWAPPED_USE, questions, counterfactuals.swapped))
    measured.record(**measures.style_consistency(measured.answers))
    rows = [
        _arm(measured.answers, use, style)
        for use in (measures.UNCONSTRAINED_USE, measures.NO_TOKEN_USE, measures.ADAPTER_OFF_USE, measures.SWAPPED_USE)
        for style in (Style if use != measures.NO_TOKEN_USE else (None,))
    ]
    measured.show("Answer length in tokens, greedy", ("changed", "questions", "median", "shortest", "longest"), rows)


def _arm(answers: list[Answer], use: str, style: Style | None) -> tuple[str | int | float, ...]:
    tokens = list(measures.lengths(measures.of(answers, use, style)).values())
    changed = [style.name] if style else []
    changed += [use] if use != measures.UNCONSTRAINED_USE else []
    return ", ".join(changed), len(tokens), median(tokens), min(tokens), max(tokens)


@pytest.mark.criterion("style.generation_speed")
def test_generation_speed(measured: Recorder, trained: TrainedModel, questions: list[str]) -> None:
    few = questions[:TIMED_QUESTIONS]
    asked = [Asked(text, style, GENERATION_PRESETS[style]) for style in Style for text in few]
    with MachineWatch() as watch:
        _warm_up, *answers = generate_each(trained.model, trained.tokenizer, [asked[0], *asked])
    timed = iter(answers)
    for style in Style:
        measured.keep(measures.kept(measures.TIMED_USE, few, islice(timed, len(few)), GENERATION_PRESETS[style]))
    record_latencies(measured, measures.latencies(measured.answers), warm_up_count=1)
    measured.record(tokens_per_s=measures.generation_speed(measured.answers)["tokens_per_s"])
    measured.taken_during(watch.use, *(f"{style}_latency_max_s" for style in Style))


@pytest.mark.criterion("style.no_repetition")
def test_no_repetition(measured: Recorder, answers: Answers, questions: list[str]) -> None:
    measured.keep(_kept_decodings(answers, questions))
    measured.record(**measures.no_repetition(measured.answers))
