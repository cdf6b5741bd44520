"""Tables of every criterion: bounds, thresholds by target, decisive counts and sample sizes."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from acceptance import (
    answers,
    asking,
    crowd,
    test_coherence,
    test_deployment,
    test_endpoint,
    test_snapshots,
    test_style,
)
from acceptance import conftest as acceptance
from acceptance.client import TIMEOUT_S
from acceptance.criteria import DOCUMENTED
from acceptance.early import EARLY
from acceptance.protocols import OWN_MALFORMED, OpenAIProtocol
from docs.blocks.markdown import code, table
from harness.criteria import Bound, BoundState, Need
from harness.statistics import Proportion
from harness.subject import Subject
from pipeline.config import TARGETS, UNCONSTRAINED, Style
from pipeline.data.formats import read_questions
from pipeline.files import HELD_OUT_QUESTIONS
from tests.unit.all_criteria import CRITERIA

SAMPLE_SIZES = (24, 36, 48, 120, 240)


def criteria_table() -> str:
    """Return every criterion with its bounds, and what must be at hand before each applies."""
    rows = [
        (each.id, each.sentence, "<br>".join(map(_bound_cell, each.bounds)), _needs(each.needs)) for each in CRITERIA
    ]
    return table(("criterion", "promise", "bounds", "asked of"), rows)


def thresholds_table() -> str:
    """Return the thresholds that a target replaces."""
    memory = DOCUMENTED["training.gpu_memory"]
    rows = []
    for target in TARGETS.values():
        replaced = {f"{memory.id}/peak_memory_gib": target.peak_memory_limit_gib}
        (bound,) = Subject(target.name, True, replaced).bounds(memory)
        rows.append((target.name, code(bound.describe()), f"{target.training_limit_s / 60:g} min"))
    return table(("target", memory.id, "training.duration, 1600 examples"), rows)


def decisions_table() -> str:
    """Return, for each bound on a share and some sample sizes, which counts hold and which are violations."""
    found = {(b.comparison, b.threshold, b.confidence) for c in CRITERIA for b in c.bounds if b.confidence is not None}
    bounds = [
        Bound("share", comparison, threshold, confidence=confidence)
        for comparison, threshold, confidence in sorted(found, key=str)
    ]
    rows = [(code(bound.limit), *(_decisive_counts(bound, trials) for trials in SAMPLE_SIZES)) for bound in bounds]
    return table(("share", *(f"of {trials}" for trials in SAMPLE_SIZES)), rows)


def samples_table() -> str:
    """Return how much each measurement asks, and the constants behind the words of this page."""
    crowd_count = len(crowd.QUESTIONS) * len(Style)
    sizes = (
        ("style.token_separation", "held-out questions, unconstrained", len(read_questions(HELD_OUT_QUESTIONS))),
        ("style.token_separation", "cap of an unconstrained answer, tokens", UNCONSTRAINED.max_new_tokens),
        ("style.token_separation", "answers asked first, by the plan of early rejection", EARLY.look_count),
        ("style.token_separation", "questions under the presets", asking.PRESET_QUESTIONS),
        ("style.token_separation", "sampling seeds under the presets", len(asking.SAMPLING_SEEDS)),
        ("style.consistency", "line between the styles, tokens", f"{answers.MIDPOINT_TOKENS:g}"),
        ("style.consistency", "questions with the tokens' rows swapped", acceptance.COUNTERFACTUAL_QUESTIONS),
        ("style.consistency", "questions without the adapter", acceptance.ADAPTER_OFF_QUESTIONS),
        ("style.generation_speed", "questions in each style", test_style.TIMED_QUESTIONS),
        ("style.no_repetition", "seq-rep-4 from which an answer loops", answers.LOOPING_SEQ_REP_4),
        ("style.no_repetition", "length of a long repeat, tokens", answers.LONG_REPEAT_TOKENS),
        ("style.coherence", "reference answers in each style", test_coherence.REFERENCES_PER_STYLE),
        ("deployment.generate_endpoint", "requests at once", len(test_deployment.AT_ONCE)),
        ("deployment.under_load", "clients", crowd.CLIENT_COUNT),
        ("deployment.under_load", "questions, half in each style", crowd_count),
        ("deployment.served_answers", "answers read again", crowd_count),
        ("deployment.error_handling", "malformed requests", len(OWN_MALFORMED)),
        ("deployment.error_handling", "with `--protocol openai`", len(OpenAIProtocol("name").malformed)),
        ("all of a server at `--endpoint`", "held-out questions in each style", test_endpoint.QUESTION_COUNT),
        ("all of a server at `--endpoint`", "limit of one response, seconds", TIMEOUT_S),
    )
    return table(("criterion", "what", "how many"), [(name, what, str(count)) for name, what, count in sizes])


def tolerances_table() -> str:
    """Return how far a run may be from a snapshot."""
    rows = (
        (
            "loss of every training step",
            f"as many steps; at most {test_snapshots.LOSS_MAX_DELTA:g} nats per token in any step and at most"
            f" {test_snapshots.LOSS_MEAN_DELTA:g} on average, either sign",
        ),
        (
            f"greedy answers to the first {test_snapshots.QUESTION_COUNT} held-out questions in each style",
            "same tokens and finish reason; the five likeliest tokens of every step move by at most"
            f" {test_snapshots.LOG_PROBABILITY_TOLERANCE:g} nats",
        ),
    )
    return table(("recorded", "compared by"), rows)


def _bound_cell(bound: Bound) -> str:
    return code(bound.describe()) + (f" ({_needs(bound.needs)})" if bound.needs else "")


def _needs(needs: tuple[Need, ...]) -> str:
    return " and ".join(sorted(map(str, needs), reverse=True)) or "everything"


def _decisive_counts(bound: Bound, trials: int) -> str:
    states = {count: bound.state(Proportion(count, trials)) for count in range(trials + 1)}
    holding = [count for count, state in states.items() if state is BoundState.HOLDS]
    violating = [count for count, state in states.items() if state is BoundState.VIOLATED]
    return f"holds {_range(holding, trials)}, violated {_range(violating, trials)}"


def _range(counts: list[int], trials: int) -> str:
    if not counts:
        return "never"
    return f"from {counts[0]}" if counts[-1] == trials else f"to {counts[-1]}"


BLOCKS: Mapping[str, Callable[[], str]] = {
    "criteria": criteria_table,
    "thresholds": thresholds_table,
    "decisions": decisions_table,
    "samples": samples_table,
    "tolerances": tolerances_table,
}
