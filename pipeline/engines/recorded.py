"""Answers that a model gave earlier, given again at once: a server is judged without a model being loaded."""

from __future__ import annotations

from collections.abc import Mapping

from pipeline.config import Style
from pipeline.engines.admission import Admission
from pipeline.engines.interface import AnswerRequest, EngineStats, Ticket
from pipeline.generation.generate import Generation


class RecordedEngine:
    """Answers each question in each style as recorded; any other fails, so that nothing is made up."""

    name = "recorded"
    weights = "none, answers are recorded"

    def __init__(self, answers: Mapping[tuple[str, Style], Generation], *, max_in_flight: int = 16) -> None:
        """Answer from ``answers``, by question and style."""
        self._answers, self._admission = answers, Admission(max_in_flight)

    def submit(self, request: AnswerRequest) -> Ticket:
        """End the answer before returning it."""
        ticket = self._admission.admit(request)
        answer = self._answers.get((request.prompt, request.style))
        if answer is None:
            ticket.fail(LookupError(f"no answer was recorded to {request.prompt!r}"))
        else:
            ticket.progress()
            ticket.finish(answer)
        return ticket

    def cancel(self, ticket: Ticket) -> None:
        """Without effect: every answer has ended."""
        ticket.cancel()

    def stats(self) -> EngineStats:
        """Counters."""
        return self._admission.stats(running=lambda ticket: True, alive=True)

    def close(self, drain_s: float = 0.0) -> None:
        """Refuse new requests."""
        self._admission.close(drain_s)
