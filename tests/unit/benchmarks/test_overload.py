from __future__ import annotations

from typing import Any

import pytest

from benchmarks.load import closed_loop, open_loop
from benchmarks.overload import Outcome, is_mixed_up, summarise, to_markdown
from pipeline.config import Style

SONNET, OCEAN = ("What is a sonnet?", Style.TERSE), ("What causes the tides?", Style.TERSE)
REFERENCES = {SONNET: "The sonnet is a poem of fourteen lines.", OCEAN: "The moon pulls at the water of the sea."}


def reply(status: int = 200, text: str = REFERENCES[SONNET], latency_s: float = 1.0, own: bool = True) -> Outcome:
    return Outcome(SONNET, status, text if status == 200 else "", latency_s, own)


@pytest.mark.parametrize(
    ("text", "mixed_up"),
    [
        (REFERENCES[SONNET], False),
        ("The sonnet has fourteen lines.", False),
        (REFERENCES[OCEAN], True),
        ("The moon pulls at the sea.", True),
    ],
)
def test_an_answer_to_another_question_is_told_by_its_words(text: str, mixed_up: bool) -> None:
    assert is_mixed_up(SONNET, text, REFERENCES) is mixed_up


def test_what_happened_is_counted() -> None:
    replies = [reply(), reply(latency_s=3.0), reply(503, latency_s=0.2), reply(text=REFERENCES[OCEAN], own=False)]
    found = summarise(replies, REFERENCES)
    assert found["statuses"] == {"200": 3, "503": 1}
    assert (found["requests"], found["mixed_up"], found["other_ids"]) == (4, 1, 1)
    assert (found["answer_p50_s"], found["refusal_max_s"]) == (1.0, 0.2)


def test_the_closed_loop_sends_each_request_once_until_it_is_over() -> None:
    numbers = closed_loop(lambda number: number, clients=8, is_over=lambda number: number >= 10)
    assert sorted(numbers) == list(range(10))


def test_the_open_loop_does_not_wait_for_answers_and_loses_none() -> None:
    import threading

    let_go, under_way = threading.Event(), threading.Semaphore(0)

    def ask(asked: Any) -> Outcome:
        under_way.release()
        assert let_go.wait(60)
        return reply()

    def release() -> None:
        for _ in range(5):
            assert under_way.acquire(timeout=60)
        let_go.set()

    helper = threading.Thread(target=release)
    helper.start()
    replies = open_loop(ask, [SONNET, OCEAN], per_s=100.0, duration_s=0.5)
    helper.join()
    assert len(replies) >= 5


def test_an_engine_that_answered_nothing_has_a_column_all_the_same() -> None:
    figures = {
        "capacity_per_s": 0.5,
        "overload_per_s": 1.0,
        **summarise([reply(503)], REFERENCES),
        "health_p99_s": 0.01,
        "resident_mib": [1024.4, 1025.0],
        "growth": 0.001,
    }
    text = to_markdown({"engines": {"serial": figures}})
    assert "| answers p50, p99" in text
    assert "| none" in text
    assert "1 x 503" in text
