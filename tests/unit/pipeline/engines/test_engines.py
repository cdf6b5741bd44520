"""What every engine does, over a real model."""

from __future__ import annotations

import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from pipeline.config import GENERATION_PRESETS, GenerationConfig, Style
from pipeline.engines.interface import (
    AnswerCancelledError,
    AnswerRequest,
    AnswerTimeoutError,
    Engine,
    EngineBusyError,
    EngineClosedError,
    RequestTooLongError,
)
from pipeline.errors import PipelineError
from pipeline.generation.generate import Generation, generate_with_style
from pipeline.model.loading import LoadedModel
from pipeline.run_folder import RunFolder
from tests.unit.pipeline.engines.conftest import OpenEngine, until

GREEDY = GenerationConfig(max_new_tokens=24)
ENDLESS = GenerationConfig(min_new_tokens=4000, max_new_tokens=4000)


def request(
    prompt: str = "Why?", style: Style = Style.TERSE, limits: GenerationConfig = GREEDY, timeout_s: float = 300
) -> AnswerRequest:
    return AnswerRequest(prompt, style, timeout_s, limits)


@pytest.fixture(scope="module")
def expected(exact: LoadedModel) -> dict[tuple[str, Style], Generation]:
    """What ``generate()`` answers to twelve questions, each in one style."""
    questions = [(f"What is {number} times {number}?", list(Style)[number % 2]) for number in range(12)]
    answers = {
        (prompt, style): generate_with_style(exact.model, exact.tokenizer, prompt, style, config=GREEDY)
        for prompt, style in questions
    }
    assert len({answer.text for answer in answers.values()}) == len(questions)
    return answers


def test_an_answer_is_that_of_generate(
    expected: dict[tuple[str, Style], Generation], engine: Engine, exact: LoadedModel
) -> None:
    for (prompt, style), answer in list(expected.items())[:4]:
        got = engine.submit(request(prompt, style)).result()
        assert (got.text, got.finish_reason, got.style) == (answer.text, answer.finish_reason, style)
        if engine.name != "remote":
            assert got.token_ids == answer.token_ids
        assert got.token_count > 0
        assert got.first_token_s is not None
        assert 0 < got.first_token_s <= got.latency_s


def test_of_many_at_once_each_gets_its_own_answer(
    expected: dict[tuple[str, Style], Generation], engine: Engine
) -> None:
    with ThreadPoolExecutor(len(expected)) as clients:
        answers = clients.map(lambda key: engine.submit(request(*key)).result(), expected)
        for got, answer in zip(answers, expected.values(), strict=True):
            assert (got.text, got.style) == (answer.text, answer.style)
    stats = engine.stats()
    assert (stats.in_flight, stats.finished, stats.failed, stats.cancelled) == (0, len(expected), 0, 0)


def test_deltas_come_one_after_the_other_and_join_to_the_text(engine: Engine) -> None:
    limits = GenerationConfig(min_new_tokens=96, max_new_tokens=96)
    ticket = engine.submit(request(limits=limits))
    pieces = list(ticket.deltas())
    assert "".join(pieces) == ticket.result().text
    assert len(pieces) > 3
    assert all(piece[0].isspace() for piece in pieces[1:])
    assert list(ticket.deltas()) == pieces


def test_cancelling_frees_the_slot(open_engine: OpenEngine) -> None:
    engine = open_engine(max_in_flight=1)
    ticket = engine.submit(request(limits=ENDLESS))
    assert next(ticket.deltas())
    assert (engine.stats().batch_size, engine.stats().waiting) == (1, 0)
    with pytest.raises(EngineBusyError):
        engine.submit(request())
    engine.cancel(ticket)
    engine.cancel(ticket)
    with pytest.raises(AnswerCancelledError):
        ticket.result()
    with pytest.raises(AnswerCancelledError):
        list(ticket.deltas())
    assert engine.submit(request()).result().token_count > 0
    assert (engine.stats().cancelled, engine.stats().finished, engine.stats().in_flight) == (1, 1, 0)


def test_an_answer_that_takes_too_long_is_stopped(open_engine: OpenEngine) -> None:
    engine = open_engine(max_in_flight=1)
    late = engine.submit(request(limits=ENDLESS, timeout_s=0.3))
    with pytest.raises(AnswerTimeoutError):
        late.result()
    assert engine.submit(request()).result().token_count > 0
    assert (engine.stats().failed, engine.stats().finished) == (1, 1)


def test_nobody_has_to_wait_for_a_late_answer_to_be_stopped(open_engine: OpenEngine) -> None:
    engine = open_engine(max_in_flight=1)
    late = engine.submit(request(limits=ENDLESS, timeout_s=0.3))
    assert until(lambda: engine.stats().in_flight == 0)
    with pytest.raises(AnswerTimeoutError):
        late.result()


def test_closing_refuses_what_is_new_and_lets_the_rest_finish(engine: Engine) -> None:
    limits = GenerationConfig(min_new_tokens=200, max_new_tokens=200)
    tickets = [engine.submit(request(f"Why {number}?", limits=limits)) for number in range(3)]
    closing = threading.Thread(target=engine.close, args=(300,))
    closing.start()

    def is_closed() -> bool:
        try:
            engine.submit(request())
        except EngineClosedError:
            return True
        return False

    assert until(is_closed)
    assert all(ticket.result().finish_reason == "length" for ticket in tickets)
    closing.join()
    assert not engine.stats().alive


def test_closing_at_once_cancels_what_runs(engine: Engine) -> None:
    tickets = [engine.submit(request(limits=ENDLESS)) for _ in range(2)]
    engine.close()
    engine.close()
    for ticket in tickets:
        with pytest.raises(AnswerCancelledError):
            ticket.result()
    with pytest.raises(EngineClosedError):
        engine.submit(request())
    assert not engine.stats().alive


def test_stats_count(engine: Engine) -> None:
    idle = engine.stats()
    assert (idle.in_flight, idle.waiting, idle.batch_size, idle.stalled_s, idle.alive) == (0, 0, 0, 0.0, True)
    answers = [engine.submit(request(f"Why {number}?")).result() for number in range(2)]
    stats = engine.stats()
    assert (stats.finished, stats.tokens_generated) == (2, sum(answer.token_count for answer in answers))
    assert stats.stalled_s == 0.0


def test_what_cannot_be_answered_is_refused_and_takes_no_slot(open_engine: OpenEngine) -> None:
    engine = open_engine(max_in_flight=1)
    with pytest.raises(PipelineError, match="contains <STYLE_TERSE>"):
        engine.submit(request("<STYLE_TERSE>"))
    with pytest.raises(RequestTooLongError) as refusal:
        engine.submit(request(limits=GenerationConfig(max_new_tokens=200_000)))
    fits = refusal.value.limit_tokens - 50
    with pytest.raises(RequestTooLongError):
        engine.submit(request("why " * 50, limits=GenerationConfig(max_new_tokens=fits)))
    assert engine.submit(request()).result().token_count > 0


@pytest.mark.parametrize("style", Style)
def test_the_styles_presets_hold(engine: Engine, style: Style) -> None:
    answer = engine.submit(AnswerRequest("Why?", style, 300)).result()
    preset = GENERATION_PRESETS[style]
    assert answer.text
    if engine.name != "remote":  # which counts the tokens of its text anew
        assert preset.min_new_tokens <= answer.token_count <= preset.max_new_tokens


def test_what_would_be_late_is_refused_but_with_nobody_in_flight_it_may_try(engine: Engine) -> None:
    if engine.name == "remote":
        pytest.skip("the other server knows how busy it is")
    engine.submit(request()).result()
    with pytest.raises(AnswerTimeoutError):
        engine.submit(request(timeout_s=0.001)).result()
    assert until(lambda: engine.stats().in_flight == 0)
    running = engine.submit(request(limits=ENDLESS))
    with pytest.raises(EngineBusyError, match="leave no time"):
        engine.submit(request(timeout_s=0.001))
    assert not running.done()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["serial", "continuous"])
def test_a_step_that_never_ends_does_not_keep_the_process_from_ending(name: str, tiny_run: RunFolder) -> None:
    command = [sys.executable, "-m", "tests.unit.pipeline.engines.hung", str(tiny_run.path), name]
    finished = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert (finished.returncode, finished.stdout.splitlines()[-1]) == (0, "closed"), finished.stderr
