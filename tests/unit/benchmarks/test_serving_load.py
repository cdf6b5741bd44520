from __future__ import annotations

import threading
from typing import Any

import pytest

from benchmarks.load import Answered, measure_load, summarise_answers
from benchmarks.serving_load import draw, summarise, to_markdown
from pipeline.config import Style


def cell(engine: str, clients: int, number: int, rate: float, terse_p95_s: float) -> dict[str, Any]:
    latency = {"latency_p95_s": terse_p95_s, "first_token_p50_s": 0.5}
    return {
        "engine": engine,
        "clients": clients,
        "round": number,
        "answers_per_minute": rate,
        "tokens_per_s": rate,
        "terse": latency,
        "verbose": latency,
    }


CELLS = [
    cell("serial", 8, 0, 20.0, 16.0),
    cell("continuous", 8, 0, 100.0, 2.0),
    cell("serial", 8, 1, 10.0, 16.0),
    cell("continuous", 8, 1, 30.0, 4.0),
    cell("serial", 1, 0, 20.0, 2.0),
    cell("continuous", 1, 0, 19.0, 2.0),
]


def test_clients_ask_at_the_same_time_and_in_both_styles() -> None:
    together = threading.Barrier(4, timeout=60)
    asked: list[tuple[str, Style]] = []

    def ask(prompt: str, style: Style, patience_s: float) -> tuple[int, float | None]:
        asked.append((prompt, style))
        together.wait()
        return 7, 0.1

    answers = measure_load(ask, ["a", "b", "c"], clients=4, warmup_s=0, measured_s=1, clock_s=lambda: len(asked) // 4)
    assert {(answer.tokens, answer.first_token_s) for answer in answers} == {(7, 0.1)}
    assert len(answers) == 4
    assert set(asked) == {("a", Style.TERSE), ("a", Style.VERBOSE), ("b", Style.TERSE), ("b", Style.VERBOSE)}


def test_clients_may_ask_in_one_style_alone() -> None:
    asked: list[tuple[str, Style]] = []

    def ask(prompt: str, style: Style, patience_s: float) -> tuple[int, float | None]:
        asked.append((prompt, style))
        return 7, None

    limits = {"clients": 1, "warmup_s": 0, "measured_s": 2}
    measure_load(ask, ["a", "b"], styles=[Style.TERSE], clock_s=lambda: len(asked), **limits)
    assert asked == [("a", Style.TERSE), ("b", Style.TERSE)]


def test_only_the_measured_seconds_count() -> None:
    asked: list[str] = []

    def ask(prompt: str, style: Style, patience_s: float) -> tuple[int, float | None]:
        asked.append(prompt)
        return 1, None

    answers = measure_load(ask, ["a"], clients=1, warmup_s=2, measured_s=3, clock_s=lambda: len(asked))
    assert [answer.finished_s for answer in answers] == [2, 3, 4, 5]
    assert len(asked) == 5


def test_nobody_waits_beyond_the_measured_seconds_and_what_is_given_up_does_not_count() -> None:
    patience: list[float] = []

    def ask(prompt: str, style: Style, patience_s: float) -> tuple[int, float | None] | None:
        patience.append(patience_s)
        return None if patience_s < 2 else (1, None)

    answers = measure_load(ask, ["a"], clients=1, warmup_s=1, measured_s=2, clock_s=lambda: len(patience))
    assert patience == [3, 2, 1]
    assert len(answers) == 2


def test_rates_and_latencies_are_those_of_the_answers() -> None:
    answers = [Answered(Style.TERSE, 10, 1.0, first_s, 3.0) for first_s in (0.2, 0.4)]
    answers = [*answers, Answered(Style.VERBOSE, 50, 5.0, None, 9.0)]
    summary = summarise_answers(answers, 10)
    assert (summary["answers_per_minute"], summary["tokens_per_s"]) == (18, 7)
    assert (summary["terse"]["latency_p95_s"], summary["verbose"]["first_token_p50_s"]) == (1.0, None)
    assert summary["terse"]["first_token_p50_s"] == pytest.approx(0.3)
    assert summary["terse"]["first_token_p95_s"] == pytest.approx(0.39)


def test_each_round_is_compared_with_its_own_serial_cell() -> None:
    rows = {(row["engine"], row["clients"]): row for row in summarise(CELLS)}
    row = rows["continuous", 8]
    assert row["answers_per_minute"] == 65
    assert row["answers_per_minute_ratio"] == pytest.approx((5 + 3) / 2)
    assert row["terse_p95_s_ratio"] == pytest.approx((2 / 16 + 4 / 16) / 2)


def test_the_table_and_the_figure_show_every_row() -> None:
    document = {"rows": summarise(CELLS)}
    table = to_markdown(document)
    assert "| continuous | 8         | 65.0 (4.00 x) |" in table
    assert "| serial     | 1         | 20.0" in table
    assert "clients at once" in draw(document)
