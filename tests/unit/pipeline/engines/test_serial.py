"""The serial engine over a model of ten lines."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from pipeline.config import Style
from pipeline.engines.interface import AnswerRequest, AnswerTimeoutError, EngineBusyError, EngineFailedError
from pipeline.engines.serial import SerialEngine


class GatedModel:
    """Answers three tokens, each once the gate is open; a prompt of more tokens than `breaks_at` fails."""

    device = torch.device("cpu")
    config = SimpleNamespace(max_position_embeddings=4096)

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.error: BaseException | None = None
        self.token_s = 0.0

    def generate(self, input_ids: torch.Tensor, stopping_criteria: Any, **keywords: Any) -> torch.Tensor:
        assert self.gate.wait(10)
        if self.error is not None:
            error, self.error = self.error, None
            raise error
        for token in (12986, 28705, 29572):
            threading.Event().wait(self.token_s)
            input_ids = torch.cat([input_ids, torch.tensor([[token]])], dim=1)
            if stopping_criteria(input_ids, None).all():
                break
        return input_ids


@pytest.fixture
def model() -> GatedModel:
    return GatedModel()


@pytest.fixture
def engine(model: GatedModel, tiny_tokenizer: Any) -> Iterator[SerialEngine]:
    engine = SerialEngine(model, tiny_tokenizer, max_in_flight=2)
    yield engine
    model.gate.set()
    engine.close()


def request(prompt: str = "Why?", timeout_s: float = 10) -> AnswerRequest:
    return AnswerRequest(prompt, Style.TERSE, timeout_s)


def test_admission_is_bounded_and_recovers(model: GatedModel, engine: SerialEngine) -> None:
    waiting = [engine.submit(request()), engine.submit(request())]
    with pytest.raises(EngineBusyError):
        engine.submit(request())
    model.gate.set()
    assert [ticket.result().token_count for ticket in waiting] == [3, 3]
    assert engine.submit(request()).result().token_count == 3
    assert engine.stats().finished == 3


def test_waiting_counts_against_the_time_limit(model: GatedModel, engine: SerialEngine) -> None:
    engine.submit(request())
    late = engine.submit(request(timeout_s=0.05))
    with pytest.raises(AnswerTimeoutError):
        late.result()
    assert engine.stats().in_flight == 1


def test_a_failure_reaches_its_own_request_only(model: GatedModel, engine: SerialEngine) -> None:
    model.error = torch.OutOfMemoryError("out of memory")
    bad, good = engine.submit(request()), engine.submit(request())
    model.gate.set()
    with pytest.raises(EngineFailedError) as failure:
        bad.result()
    assert isinstance(failure.value.__cause__, torch.OutOfMemoryError)
    assert good.result().token_count == 3
    assert engine.stats().alive


def test_the_death_of_the_worker_reaches_everybody(model: GatedModel, engine: SerialEngine) -> None:
    model.error = SystemExit("killed")
    running, waiting = engine.submit(request()), engine.submit(request())
    model.gate.set()
    for ticket in (running, waiting):
        with pytest.raises(EngineFailedError):
            ticket.result()
    assert not engine.stats().alive
    with pytest.raises(EngineFailedError):
        engine.submit(request())


def test_what_cannot_be_answered_in_time_is_refused_at_once(model: GatedModel, engine: SerialEngine) -> None:
    model.token_s = 0.1  # two of the three tokens follow another
    model.gate.set()
    engine.submit(request()).result()
    model.gate.clear()
    engine.submit(request())  # with nobody ahead it may try
    with pytest.raises(EngineBusyError):
        engine.submit(request(timeout_s=0.5))
    engine.submit(request())
    assert engine.stats().in_flight == 2
