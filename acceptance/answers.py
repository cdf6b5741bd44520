"""Measures of the style criteria, for answers of a loaded model and of a server alike."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from harness.effects import mean_difference_interval, probability_of_superiority
from harness.metrics import ends_as_a_sentence, longest_repeated_span, sequence_repetition
from harness.recorder import Recorder
from harness.statistics import Proportion, quantile
from pipeline.config import GENERATION_PRESETS, Style
from pipeline.data.style import TERSE_LIMIT_TOKENS, VERBOSE_FLOOR_TOKENS

if TYPE_CHECKING:
    from acceptance.protocols import Reply

MIDPOINT_TOKENS = (TERSE_LIMIT_TOKENS + VERBOSE_FLOOR_TOKENS) / 2
LOOPING_SEQ_REP_4 = 0.44
"""Mean seq-rep-4 of a language model decoded greedily (Welleck et al. 2020); such an answer is a loop."""
LONG_REPEAT_TOKENS = 32
"""The length of a TERSE answer at the preset's cap; a span this long that occurs twice is a long repeat."""
ROUNDED_OUT_SHARE = 0.01
"""Share of sampled tokens that may lie outside the nucleus when it is computed again: rounding moves its edge.
``make engine-agreement`` checks the engines against it."""

Lengths = Mapping[Style, Sequence[int]]
"""Token counts of the answers to the same questions in the same order, by style."""


def consistency(decodings: Sequence[Lengths]) -> dict[str, Proportion]:
    """For each question, whether every decoding has the right order and lies on the right sides."""
    pairs: dict[int, list[tuple[int, int]]] = {}
    for lengths in decodings:
        for index, pair in enumerate(zip(lengths[Style.TERSE], lengths[Style.VERBOSE], strict=True)):
            pairs.setdefault(index, []).append(pair)
    sides = [all(terse < MIDPOINT_TOKENS < verbose for terse, verbose in of) for of in pairs.values()]
    return {
        "ordered_question_share": Proportion.of(
            [all(terse < verbose for terse, verbose in of) for of in pairs.values()]
        ),
        "own_side_question_share": Proportion.of(sides),
    }


def token_effect(lengths: Lengths) -> dict[str, float]:
    """How much longer VERBOSE is than TERSE, question by question."""
    low, high = mean_difference_interval(lengths[Style.VERBOSE], lengths[Style.TERSE])
    return {
        "token_effect_low_tokens": low,
        "token_effect_high_tokens": high,
        "probability_of_superiority": probability_of_superiority(lengths[Style.VERBOSE], lengths[Style.TERSE]),
    }


def repetition(answers: Sequence[Sequence[int]]) -> dict[str, Any]:
    """How much the answers, each a sequence of token ids, repeat themselves."""
    repeated = [sequence_repetition(ids, 4) for ids in answers]
    spans = [longest_repeated_span(ids) for ids in answers]
    return {
        "answer_count": len(answers),
        "seq_rep_4_mean": sum(repeated) / len(repeated),
        "seq_rep_4_worst": max(repeated),
        "looping_answer_share": Proportion.of([value >= LOOPING_SEQ_REP_4 for value in repeated]),
        "long_repeat_answer_share": Proportion.of([span >= LONG_REPEAT_TOKENS for span in spans]),
        "longest_repeated_span_tokens": max(spans),
    }


def whole_share(texts: Sequence[str]) -> Proportion:
    """Share of answers, possibly cut by a cap, that end as a sentence does."""
    return Proportion.of([ends_as_a_sentence(text) for text in texts])


def latency_measures(latencies_s: Mapping[Style, Sequence[float]]) -> dict[str, float]:
    """Quantiles and maximum of the seconds that single answers took, by style."""
    measures: dict[str, float] = {}
    for style, values in latencies_s.items():
        measures |= {f"{style}_latency_p{q}_s": quantile(values, q / 100) for q in (50, 95, 99)}
        measures[f"{style}_latency_max_s"] = max(values)
    return measures


def record_latencies(measured: Recorder, latencies_s: Mapping[Style, Sequence[float]], warm_up_count: int) -> None:
    """Record and attach the latencies of single answers."""
    for style, values in latencies_s.items():
        measured.attach("latency of one answer", kind="latency", values=values, unit="s", label=style.value)
    measured.record(**latency_measures(latencies_s))
    measured.record(warm_up_count=warm_up_count, response_count=sum(len(values) for values in latencies_s.values()))


def response_ids(tokenizer: Any, body: Mapping[str, Any]) -> list[int]:
    """Token ids of a response's text; none where it has no text."""
    text = body.get("response")
    ids: list[int] = tokenizer(text if isinstance(text, str) else "", add_special_tokens=False)["input_ids"]
    return ids


def is_wrong_count(claimed: object, counted: int) -> bool:
    """Whether a claimed token count is off by more than two tokens and a tenth; a text has several spellings."""
    return type(claimed) is not int or abs(claimed - counted) > max(2, counted / 10)


def is_valid_answer(reply: Reply, style: Style) -> bool:
    """Whether a response is 200 with the documented fields, in the style asked for and with plausible figures.

    Where a protocol knows no styles and measures no latency, its fields hold what was asked for and measured here.
    """
    body, preset = reply.body, GENERATION_PRESETS[style]
    tokens, latency = body.get("tokens"), body.get("latency")
    least_tokens = preset.min_new_tokens if reply.terms.has_minimum else 0
    return (
        reply.status == 200
        and body.keys() == {"response", "style", "tokens", "latency"}
        and isinstance(body["response"], str)
        and body["style"] == style.value
        and type(tokens) is int
        and least_tokens <= tokens <= preset.max_new_tokens
        and isinstance(latency, float)
        and math.isfinite(latency)
        and 0 < latency <= reply.wall_s
    )
