from __future__ import annotations

import pytest

from pipeline.config import Style
from pipeline.engines.interface import AnswerRequest, EngineFailedError
from pipeline.engines.recorded import RecordedEngine
from pipeline.generation.generate import Generation


def test_it_answers_as_recorded_and_makes_nothing_up() -> None:
    answer = Generation("Because.", (1, 2), "eos", 0.0, Style.TERSE)
    engine = RecordedEngine({("Why?", Style.TERSE): answer})
    given = engine.submit(AnswerRequest("Why?", Style.TERSE, timeout_s=5)).result()
    assert (given.text, given.token_count) == ("Because.", 2)
    assert given.latency_s > 0
    with pytest.raises(EngineFailedError):
        engine.submit(AnswerRequest("Why?", Style.VERBOSE, timeout_s=5)).result()
