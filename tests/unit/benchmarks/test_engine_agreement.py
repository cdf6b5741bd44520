"""Whether an engine's answers are the model's: what counts as a disagreement, and how it is found."""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from benchmarks.engine_agreement import (
    CONTINUOUS,
    EXCESS_LIMIT_ERRORS,
    GAP_LIMIT_NATS,
    describe,
    disagreements,
    to_markdown,
)
from pipeline.config import GENERATION_PRESETS, GenerationConfig, Style
from pipeline.generation.generate import generate_with_style
from pipeline.model.loading import TrainedModel
from tests.unit.pipeline.generation.test_scoring import FixedModel

ROOT = Path(__file__).resolve().parents[3]
AGREED = json.loads((ROOT / "results" / "smollm2-135m" / "gpu" / "agreement.json").read_text(encoding="utf-8"))["ways"]


def gap(way: dict[str, Any]) -> None:
    way["largest_gap_nats"] = GAP_LIMIT_NATS + 0.1


def no_gap(way: dict[str, Any]) -> None:
    way["largest_gap_nats"] = math.nan


def surprised(way: dict[str, Any]) -> None:
    way["sampled"]["verbose"]["excess_nats"] = 1.0


def outside(way: dict[str, Any]) -> None:
    way["sampled"]["terse"]["outside"] = way["sampled"]["terse"]["tokens"]


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (gap, "another token was 0.60 nats likelier"),
        (no_gap, "another token was nan nats likelier"),
        (surprised, "verbose tokens are off by +1.000"),
        (outside, "terse tokens outside the nucleus"),
    ],
)
def test_each_kind_of_disagreement_is_named(damage: Callable[[dict[str, Any]], None], reason: str) -> None:
    ways = copy.deepcopy(AGREED)
    damage(ways[CONTINUOUS[1]])
    (found,) = disagreements(ways)
    assert found.startswith(f"{CONTINUOUS[1]}: ")
    assert reason in found


def test_the_table_counts_answers_that_are_the_same() -> None:
    ways = copy.deepcopy(AGREED)
    count = len(ways[CONTINUOUS[0]]["token_ids"])
    ways[CONTINUOUS[0]]["token_ids"] = [[1]] * count
    rows = to_markdown(ways).splitlines()
    assert f"| {count} of {count} " in rows[2]
    assert f"| 0 of {count} " in rows[4]


@pytest.mark.parametrize(("tokens", "by_chance"), [(10, True), (200, False)])
def test_rare_tokens_are_missing_by_chance_in_few_answers_alone(
    tiny_tokenizer: Any, tokens: int, by_chance: bool
) -> None:
    model = FixedModel((1000, 2000), (0.9, 0.1), 0.1, len(tiny_tokenizer))
    requests = [("Why?", Style.TERSE), ("Why?", Style.VERBOSE)]
    likeliest = [((1000,) * tokens, False)] * 2
    loaded: Any = SimpleNamespace(model=model, tokenizer=tiny_tokenizer)
    drawn = describe(loaded, requests, likeliest, likeliest)["sampled"]["terse"]
    assert drawn["excess_nats"] < 0
    assert (abs(drawn["excess_nats"]) <= EXCESS_LIMIT_ERRORS * drawn["standard_error_nats"]) == by_chance


@pytest.mark.slow
def test_another_models_answers_are_found_out(tiny_trained: TrainedModel) -> None:
    requests = [("Why?", Style.TERSE), ("What is a queue?", Style.VERBOSE)]
    greedy = [answered(tiny_trained, request, GenerationConfig(max_new_tokens=12)) for request in requests]
    sampled = [answered(tiny_trained, request, GENERATION_PRESETS[request[1]]) for request in requests]
    own = describe(tiny_trained, requests, greedy, sampled)
    assert own["largest_gap_nats"] <= GAP_LIMIT_NATS
    other = [(tuple(token + 1 for token in ids), ended) for ids, ended in greedy]
    assert describe(tiny_trained, requests, other, sampled)["largest_gap_nats"] > 0


def answered(trained: TrainedModel, request: tuple[str, Style], limits: GenerationConfig) -> tuple[Any, bool]:
    generation = generate_with_style(trained.model, trained.tokenizer, *request, config=limits)
    return generation.token_ids, generation.finish_reason == "eos"
