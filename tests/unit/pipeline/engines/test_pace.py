from __future__ import annotations

import pytest

from pipeline.config import Style
from pipeline.engines.pace import Pace


def test_nothing_bad_is_expected_of_what_was_not_seen() -> None:
    pace = Pace()
    assert pace.tokens(Style.TERSE, 32) == 0
    assert pace.token_s(1) == 0


def test_few_answers_exceed_what_is_foreseen() -> None:
    pace = Pace()
    lengths = [100, 120] * 20
    for tokens in lengths:
        pace.note_answer(Style.VERBOSE, tokens)
    assert max(lengths) < pace.tokens(Style.VERBOSE, 256) < 2 * max(lengths)
    assert pace.tokens(Style.VERBOSE, 90) == 90
    assert pace.tokens(Style.TERSE, 32) == 0


def test_one_answer_does_not_yet_tell_how_others_are() -> None:
    pace = Pace()
    pace.note_answer(Style.VERBOSE, 80)
    assert pace.tokens(Style.VERBOSE, 256) == 120


def test_an_unseen_number_of_answers_takes_as_long_as_fewer() -> None:
    pace = Pace()
    for batch_size, seconds in ((2, 0.1), (8, 0.3)):
        pace.note_token(seconds, batch_size)
    assert [pace.token_s(size) for size in (1, 2, 5, 8, 16)] == [0.1, 0.1, 0.1, 0.3, 0.3]


def test_a_machine_that_gets_slower_shows_within_some_tokens() -> None:
    pace = Pace()
    pace.note_token(0.1, 1)
    for _ in range(20):
        pace.note_token(0.2, 1)
    assert pace.token_s(1) == pytest.approx(0.2, rel=0.05)
