from __future__ import annotations

import threading

import pytest

from pipeline.config import Style
from pipeline.engines import EngineBusyError, SerialEngine
from pipeline.generate import Generation


def answer(prompt: str, style: Style, max_time_s: float) -> Generation:
    return Generation(f"{style}: {prompt}", (1, 2), "eos", 0.5, style)


def test_each_request_gets_its_own_answer() -> None:
    engine = SerialEngine(answer)
    futures = [engine.submit(str(number), Style.TERSE, 5) for number in range(5)]
    assert [future.result(5).text for future in futures] == [f"terse: {number}" for number in range(5)]
    engine.close()
    assert engine.stats().finished == 5
    assert engine.stats().in_flight == 0


def test_admission_is_bounded_and_recovers() -> None:
    gate = threading.Event()

    def blocked(prompt: str, style: Style, max_time_s: float) -> Generation:
        assert gate.wait(10)
        return answer(prompt, style, max_time_s)

    engine = SerialEngine(blocked, max_in_flight=2)
    waiting = [engine.submit("a", Style.TERSE, 5), engine.submit("b", Style.TERSE, 5)]
    with pytest.raises(EngineBusyError):
        engine.submit("c", Style.TERSE, 5)
    gate.set()
    assert [future.result(5).text for future in waiting] == ["terse: a", "terse: b"]
    engine.close()


def test_waiting_counts_against_the_time_limit() -> None:
    engine = SerialEngine(answer)
    with pytest.raises(TimeoutError):
        engine.submit("late", Style.TERSE, -1).result(5)
    engine.close()


def test_a_failure_reaches_its_own_request_only() -> None:
    def failing(prompt: str, style: Style, max_time_s: float) -> Generation:
        if prompt == "bad":
            raise RuntimeError("broken")
        return answer(prompt, style, max_time_s)

    engine = SerialEngine(failing)
    bad, good = engine.submit("bad", Style.TERSE, 5), engine.submit("good", Style.TERSE, 5)
    with pytest.raises(RuntimeError, match="broken"):
        bad.result(5)
    assert good.result(5).text == "terse: good"
    engine.close()
