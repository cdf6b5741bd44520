"""The measures of the style criteria follow from kept answers alone, as they are read back."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from acceptance import measures
from acceptance.criteria import DOCUMENTED
from acceptance.evidence import Answers, Counterfactuals
from harness.recorder import Recorder
from harness.sequential import PLANNED
from harness.statistics import Proportion
from pipeline.config import Style

if TYPE_CHECKING:
    from pipeline.generation.generate import Generation

QUESTIONS = [f"Question {number}?" for number in range(24)]
TOKENS = {Style.TERSE: 20, Style.VERBOSE: 100}


def answer(tokens: int, style: Style | None, finish_reason: Any = "eos") -> Generation:
    from pipeline.generation.generate import Generation

    return Generation("An answer.", tuple(range(tokens)), finish_reason, 0.5, style)


def both(count: int, lengths: dict[Style, int]) -> dict[Style, list[Generation]]:
    return {style: [answer(lengths[style] + step, style) for step in range(count)] for style in Style}


@pytest.fixture
def answers() -> Answers:
    return Answers(both(24, TOKENS), {seed: both(12, TOKENS) for seed in (7, 11)})


@pytest.fixture
def counterfactuals() -> Counterfactuals:
    swapped = dict(zip(Style, reversed(both(24, TOKENS).values()), strict=True))
    turned = {style: [answer(a.token_count, style) for a in arm] for style, arm in swapped.items()}
    return Counterfactuals([answer(60, None)] * 24, both(12, {Style.TERSE: 50, Style.VERBOSE: 50}), turned)


def judged_again(criterion_id: str, measured: Recorder) -> dict[str, object]:
    """What the documented set computes from the answers after they were written and read."""
    again = Recorder()
    again.record(**DOCUMENTED.from_answers[criterion_id](json.loads(json.dumps(measured.answers))))
    return again.measurements


def test_separation_is_computed_again(answers: Answers) -> None:
    from acceptance.test_style import test_token_separation

    answers.unconstrained[Style.TERSE][3] = answer(10, Style.TERSE, "length")
    measured = Recorder()
    test_token_separation(measured, answers, QUESTIONS)
    assert measured.measurements["terse_in_bound_share"] == Proportion(23, 24)
    assert [case for case, good in measured.cases["terse_in_bound_share"].items() if not good] == [QUESTIONS[3]]
    assert measured.measurements["sampling_seed_count"] == 2
    # How many were planned, answers that were not asked cannot say.
    assert {**judged_again("style.token_separation", measured), PLANNED: 48} == measured.measurements


def test_consistency_is_computed_again(answers: Answers, counterfactuals: Counterfactuals) -> None:
    from acceptance.test_style import test_consistency

    measured = Recorder()
    test_consistency(measured, answers, counterfactuals, QUESTIONS)
    assert measured.measurements["ordered_question_share"] == Proportion(24, 24)
    assert measured.measurements["swapped_order_share"] == Proportion(24, 24)
    assert measured.measurements["no_token_median_tokens"] == 60
    assert math.isclose(float(str(measured.measurements["adapter_effect_low_tokens"])), 80)
    assert judged_again("style.consistency", measured) == measured.measurements
    [table] = measured.tables
    rows: Any = table["rows"]
    assert [row[0] for row in rows][:3] == ["TERSE", "VERBOSE", "no token"]


def test_repetition_is_computed_again(answers: Answers) -> None:
    from acceptance.test_style import test_no_repetition

    measured = Recorder()
    test_no_repetition(measured, answers, QUESTIONS)
    assert measured.measurements["answer_count"] == 24 * 2 + 12 * 2 * 2
    assert judged_again("style.no_repetition", measured) == measured.measurements


def test_speed_is_computed_again(monkeypatch: pytest.MonkeyPatch) -> None:
    from acceptance import test_style

    def answered(_model: Any, _tokenizer: Any, asked: Any) -> list[Generation]:
        assert (asked[0], len(asked)) == (asked[1], 1 + 12), "the first only warms up"
        return [answer(TOKENS[one.style], one.style) for one in asked]

    monkeypatch.setattr(test_style, "generate_each", answered)
    measured, loaded = Recorder(), SimpleNamespace(model=None, tokenizer=None)
    test_style.test_generation_speed(measured, loaded, QUESTIONS)  # type: ignore[arg-type]
    assert measured.measurements["tokens_per_s"] == (20 + 100) / (0.5 + 0.5)
    again = judged_again("style.generation_speed", measured)
    assert again["verbose_latency_max_s"] == 0.5
    assert again.items() <= measured.measurements.items()


def test_answers_that_are_missing_are_not_measured(answers: Answers) -> None:
    from acceptance.test_style import test_token_separation

    measured = Recorder()
    test_token_separation(measured, answers, QUESTIONS)
    fewer = [kept for kept in measured.answers if kept["style"] != Style.TERSE]
    with pytest.raises(ValueError, match="unconstrained, terse: expected one answer to each question, got 0"):
        measures.token_separation(fewer)


def test_the_criteria_load_without_scipy() -> None:
    code = "import sys, acceptance.criteria; sys.exit(bool({'scipy', 'numpy', 'torch'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
