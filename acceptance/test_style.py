"""Style criteria: length separation, consistency and its cause, speed, repetition."""

from __future__ import annotations

import pytest

from acceptance.answers import (
    TERSE_LIMIT_TOKENS,
    VERBOSE_FLOOR_TOKENS,
    Lengths,
    consistency,
    record_latencies,
    repetition,
    token_effect,
    whole_share,
)
from acceptance.evidence import Answers, Counterfactuals
from harness.effects import mean_difference_interval
from harness.machine import MachineWatch
from harness.recorder import Recorder
from harness.statistics import Proportion, median
from pipeline.config import Style
from pipeline.generation.generate import Generation, generate_with_style
from pipeline.model.loading import TrainedModel

TIMED_QUESTIONS = 6
SHOWN_ANSWERS = 6


def _lengths(generations: list[Generation]) -> list[int]:
    return [generation.token_count for generation in generations]


def _by_style(answers: dict[Style, list[Generation]]) -> Lengths:
    return {style: _lengths(generations) for style, generations in answers.items()}


@pytest.mark.criterion("style.token_separation")
def test_token_separation(measured: Recorder, answers: Answers, questions: list[str]) -> None:
    terse, verbose = answers.unconstrained[Style.TERSE], answers.unconstrained[Style.VERBOSE]
    for style, generations in answers.unconstrained.items():
        measured.attach(
            "answer length, unconstrained",
            kind="distribution",
            values=_lengths(generations),
            unit="tokens",
            label=style.value,
        )
    rows = [(questions[i], terse[i].text, verbose[i].text) for i in range(SHOWN_ANSWERS)]
    measured.show("Answers side by side, greedy", ("question", "TERSE", "VERBOSE"), rows)
    measured.record(
        question_count=len(questions),
        terse_median_tokens=median(_lengths(terse)),
        terse_worst_tokens=max(_lengths(terse)),
        terse_in_bound_share=Proportion.of(
            [a.finish_reason == "eos" and a.token_count < TERSE_LIMIT_TOKENS for a in terse]
        ),
        verbose_median_tokens=median(_lengths(verbose)),
        verbose_worst_tokens=min(_lengths(verbose)),
        verbose_in_bound_share=Proportion.of(
            [a.finish_reason == "eos" and a.token_count > VERBOSE_FLOOR_TOKENS for a in verbose]
        ),
    )
    presets = answers.presets.values()
    measured.record(
        sampling_seed_count=len(presets),
        preset_terse_median_tokens=max(median(_lengths(sampled[Style.TERSE])) for sampled in presets),
        preset_terse_whole_share=whole_share([a.text for sampled in presets for a in sampled[Style.TERSE]]),
        preset_verbose_median_tokens=min(median(_lengths(sampled[Style.VERBOSE])) for sampled in presets),
    )


@pytest.mark.criterion("style.consistency")
def test_consistency(
    measured: Recorder, answers: Answers, counterfactuals: Counterfactuals, questions: list[str]
) -> None:
    greedy, adapter_off = _by_style(answers.unconstrained), _by_style(counterfactuals.adapter_off)
    swapped = _by_style(counterfactuals.swapped)
    effects = [verbose - terse for terse, verbose in zip(greedy[Style.TERSE], greedy[Style.VERBOSE], strict=True)]
    base_effects = [
        verbose - terse for terse, verbose in zip(adapter_off[Style.TERSE], adapter_off[Style.VERBOSE], strict=True)
    ]
    turned = [terse > verbose for terse, verbose in zip(swapped[Style.TERSE], swapped[Style.VERBOSE], strict=True)]
    measured.record(question_count=len(questions), **consistency([_by_style(d) for d in answers.decodings]))
    measured.record(
        **token_effect(greedy),
        adapter_effect_low_tokens=mean_difference_interval(effects[: len(base_effects)], base_effects)[0],
        swapped_order_share=Proportion.of(turned),
        no_token_median_tokens=median(_lengths(counterfactuals.no_token)),
    )
    arms = {style.name: greedy[style] for style in Style} | {"no token": _lengths(counterfactuals.no_token)}
    arms |= {f"{style.name}, adapter off": adapter_off[style] for style in Style}
    arms |= {f"{style.name}, rows swapped": swapped[style] for style in Style}
    rows = [(name, len(arm), median(arm), min(arm), max(arm)) for name, arm in arms.items()]
    measured.show("Answer length in tokens, greedy", ("changed", "questions", "median", "shortest", "longest"), rows)


@pytest.mark.criterion("style.generation_speed")
def test_generation_speed(measured: Recorder, trained: TrainedModel, questions: list[str]) -> None:
    generate_with_style(trained.model, trained.tokenizer, questions[0], Style.TERSE)  # warm-up, not counted
    with MachineWatch() as watch:
        timed = {
            style: [
                generate_with_style(trained.model, trained.tokenizer, text, style)
                for text in questions[:TIMED_QUESTIONS]
            ]
            for style in Style
        }
    record_latencies(measured, {style: [a.latency_s for a in timed[style]] for style in Style}, warm_up_count=1)
    every = [answer for generations in timed.values() for answer in generations]
    measured.record(tokens_per_s=sum(_lengths(every)) / sum(answer.latency_s for answer in every))
    measured.taken_during(watch.use, *(f"{style}_latency_max_s" for style in Style))


@pytest.mark.criterion("style.no_repetition")
def test_no_repetition(measured: Recorder, answers: Answers) -> None:
    measured.record(**repetition([answer.token_ids for answer in answers.every]))
