"""The plan of early rejection as the suite follows it: a broken model is asked little, a healthy one everything."""

from __future__ import annotations

import json
import random
import statistics
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from acceptance import asking
from acceptance.criteria import DOCUMENTED
from acceptance.early import EARLY
from harness.judge_again import judge_again
from harness.recorder import Recorder
from harness.seal import recheck
from harness.sequential import ASKED, FAILED, LOOKED, PLANNED
from harness.subject import Subject
from harness.verdict import CriterionResult, Outcome, judge
from pipeline.config import Style
from tests.verdict_files import resealed

if TYPE_CHECKING:
    from pipeline.engines.many import Asked
    from pipeline.generation.generate import Generation

SEPARATION = DOCUMENTED["style.token_separation"]
SUBJECT = Subject("small", learned=True)
QUESTIONS = [f"Question {number}?" for number in range(120)]
GOOD_TOKENS = {Style.TERSE: 24, Style.VERBOSE: 140}
LOADED: Any = SimpleNamespace(model=SimpleNamespace(device=SimpleNamespace(type="cpu")), tokenizer=None)


class Model:
    """Stands in for ``generate_many``: answers on the wrong side with a probability, and counts what it is asked."""

    def __init__(self, broken_share: float, draws: random.Random | None = None) -> None:
        self.asked: list[Asked] = []
        self._broken_share, self._random = broken_share, draws or random.Random(0)

    def __call__(
        self,
        _model: Any,
        _tokenizer: Any,
        asked: Sequence[Asked],
        *,
        at_once: int,
        first: int = 0,
        go_on: Callable[[list[Generation]], bool] = bool,
    ) -> list[Generation]:
        answers = [self._answer(one) for one in asked[:first]]
        return [*answers, *map(self._answer, asked[first:])] if not first or go_on(answers) else answers

    def _answer(self, one: Asked) -> Generation:
        from pipeline.generation.generate import Generation

        self.asked.append(one)
        other = {Style.TERSE: Style.VERBOSE, Style.VERBOSE: Style.TERSE}
        assert one.style is not None
        style = other[one.style] if self._random.random() < self._broken_share else one.style
        return Generation("An answer.", tuple(range(GOOD_TOKENS[style])), "eos", 0.5, one.style)


def judged(model: Model, monkeypatch: pytest.MonkeyPatch, **options: bool) -> tuple[CriterionResult, Recorder]:
    """The model's ``style.token_separation``, from asking to the outcome."""
    from acceptance.test_style import test_token_separation

    monkeypatch.setattr(asking, "generate_many", model)
    measured = Recorder()
    test_token_separation(measured, asking.ask_by_plan(LOADED, QUESTIONS, **options), QUESTIONS)
    early = DOCUMENTED.early_of(SEPARATION.id, SUBJECT.bounds(SEPARATION))
    return judge(SEPARATION, SUBJECT, measured.measurements, (), early), measured


def test_a_half_broken_model_is_rejected_after_ten_answers_in_the_median(monkeypatch: pytest.MonkeyPatch) -> None:
    draws, models, looked, asked = random.Random(22), 400, [], []
    for _ in range(models):
        model = Model(0.5, draws)
        result, measured = judged(model, monkeypatch)
        assert result.outcome is Outcome.FAIL
        assert (len(model.asked) < 240) == result.reason.startswith("rejected early by plan: ")
        looked.append(int(str(measured.measurements[LOOKED])) if len(model.asked) < 240 else 240)
        asked.append(min(len(model.asked), 240))
    assert EARLY.median_answer_count(0.5, 240) <= 10
    assert 8 <= statistics.median(looked) <= 11
    assert set(asked) == {EARLY.look_count, 240}
    by_ten = float(EARLY.stopping_probabilities(0.5)[:10].sum())
    assert sum(count <= 10 for count in looked) / models == pytest.approx(by_ten, abs=0.1)  # 4 standard errors
    assert statistics.mean(asked) == pytest.approx(EARLY.expected_answer_count(0.5, 240), abs=12)  # 4 standard errors


def test_a_healthy_model_is_asked_the_full_sample_and_judged_by_it(monkeypatch: pytest.MonkeyPatch) -> None:
    draws = random.Random(22)
    for _ in range(100):
        model = Model(0.01, draws)
        result, measured = judged(model, monkeypatch)
        assert len(model.asked) == len({(a.prompt, a.style, a.seed) for a in model.asked}) == 240 + 72
        plain = {name: value for name, value in result.measurements.items() if name not in (LOOKED, FAILED)}
        assert (result.outcome, result.reason) == (judge(SEPARATION, SUBJECT, plain).outcome, "")
        assert measured.measurements[ASKED] == measured.measurements[PLANNED] == 240


def test_a_model_of_which_one_style_alone_is_broken_is_rejected_early(monkeypatch: pytest.MonkeyPatch) -> None:
    for broken in Style:
        model = Model(0.0)
        whole = model._answer

        def answer(one: Asked, whole: Any = whole, model: Model = model, broken: Style = broken) -> Generation:
            model._broken_share = float(one.style is broken)
            answered: Generation = whole(one)
            return answered

        monkeypatch.setattr(model, "_answer", answer)
        result, _ = judged(model, monkeypatch)
        assert result.reason.startswith("rejected early by plan: ")
        assert len(model.asked) == EARLY.look_count


def test_the_full_sample_can_be_asked_and_the_rejection_stands(monkeypatch: pytest.MonkeyPatch) -> None:
    model = Model(0.5)
    result, measured = judged(model, monkeypatch, full_sample=True)
    assert len(model.asked) == 240 + 72
    assert result.outcome is Outcome.FAIL
    assert result.reason.startswith("rejected early by plan: ")
    assert result.reason.endswith("240 of 240 answers asked")
    assert set(SEPARATION.required_measures) <= measured.measurements.keys()


def test_the_first_answers_are_the_plans_whatever_the_model(monkeypatch: pytest.MonkeyPatch) -> None:
    broken, healthy = Model(1.0), Model(0.0)
    judged(broken, monkeypatch)
    judged(healthy, monkeypatch)
    assert healthy.asked[: len(broken.asked)] == broken.asked


CONFTEST = """
import pytest
from acceptance.conftest import answers, first_answers
from acceptance.criteria import DOCUMENTED
from tests.unit.test_early import LOADED, QUESTIONS

def pytest_addoption(parser):
    parser.addoption("--full-sample", action="store_true")

def pytest_acceptance_criteria():
    return DOCUMENTED

@pytest.fixture(scope="session")
def trained(identify):
    identify("small", {"adapter_sha256": "a" * 64})
    return LOADED

@pytest.fixture(scope="session")
def questions():
    return QUESTIONS
"""
TESTS = """
import pytest
from acceptance import test_style
from acceptance.test_coherence import test_coherence
from acceptance.test_style import test_no_repetition, test_token_separation

pytestmark = pytest.mark.subject(name="small", learned=True)

@pytest.fixture
def untrained():
    raise AssertionError("the base was loaded although nothing is judged with it")
"""


@pytest.fixture
def rejected(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The results of a run of the suite's own tests on a broken model."""
    monkeypatch.setattr(asking, "generate_many", Model(0.5, random.Random(1)))
    pytester.makeconftest(CONFTEST)
    pytester.makepyfile(test_suite=TESTS)
    result = pytester.runpytest_inprocess("-p", "no:cacheprovider", "test_suite.py")
    assert result.ret == 10
    result.stdout.fnmatch_lines(["*style.token_separation, early rejection by a plan: 24 of 240 answers asked;*"])
    return pytester.path / "acceptance-results"


def test_a_run_that_stopped_early_is_rejected_and_nothing_else_is_green(rejected: Path) -> None:
    document = json.loads((rejected / "acceptance.json").read_text(encoding="utf-8"))
    (subject,) = document["subjects"]
    outcomes = {entry["id"]: (entry["outcome"], entry["reason"]) for entry in subject["criteria"]}
    assert subject["decision"] == document["decision"] == "REJECTED"
    outcome, reason = outcomes.pop("style.token_separation")
    assert outcome == "FAIL"
    assert reason.startswith("rejected early by plan: ")
    assert reason.endswith("24 of 240 answers asked")
    assert {outcome for outcome, _ in outcomes.values()} == {"NOT_RUN"}
    for id_ in ("style.no_repetition", "style.coherence"):
        assert outcomes[id_][1].startswith("only 24 answers were asked: the plan rejected the model by them"), id_
    (plan,) = (entry["early_rejection"] for entry in subject["criteria"] if "early_rejection" in entry)
    assert plan == EARLY.describe(SEPARATION.bounds, {PLANNED: 240})
    for report in ("report.md", "report.html"):
        assert "24 of 240 answers asked" in (rejected / report).read_text(encoding="utf-8")


def test_the_verdict_of_an_early_rejection_is_checked_like_any(rejected: Path) -> None:
    verdict = json.loads((rejected / "verdict.json").read_text(encoding="utf-8"))
    assert recheck(verdict, DOCUMENTED) == []
    entry = next(entry for entry in verdict["criteria"] if entry["id"] == SEPARATION.id)
    entry["outcome"], verdict["decision"] = "PASS", "INCOMPLETE"
    (complaint,) = recheck(resealed(verdict), DOCUMENTED)
    assert "PASS does not follow from its measurements: rejected early by plan" in complaint


def test_an_early_rejection_is_judged_again_from_its_answers(rejected: Path) -> None:
    again = judge_again(rejected)
    (before,) = json.loads((rejected / "acceptance.json").read_text(encoding="utf-8"))["subjects"]
    (after,) = again.document["subjects"]
    assert again.document["judged_again_from"]["from_answers"] == ["small: style.token_separation"]
    assert again.notes == []
    for name in ("outcome", "reason", "measurements", "early_rejection"):
        assert [entry.get(name) for entry in after["criteria"]] == [entry.get(name) for entry in before["criteria"]]
