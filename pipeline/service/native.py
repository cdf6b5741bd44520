"""``POST /generate``: the documented contract, also as a stream."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from flask import Response

from pipeline.service.answering import Answering
from pipeline.service.bodies import read_body
from pipeline.service.problems import Problem
from pipeline.service.routes import ANSWER_PROBLEMS, Route, current_asker, reply
from pipeline.service.schemas import GenerateReply, GenerateRequest
from pipeline.service.streaming import EVENT_STREAM, event, stream

if TYPE_CHECKING:
    from pipeline.generation.generate import Generation
    from pipeline.service.answering import Answer


def generate(answering: Answering) -> Response:
    """Answer a prompt in a style."""
    body = read_body(GenerateRequest)
    asker = current_asker()
    answer = answering.start(asker, body.prompt, body.style)
    if body.stream:
        return stream(answer, asker.record, _Events(answer, asker.record.request_id))
    try:
        return reply(_reply(answer, answer.result()))
    finally:
        answer.close()


def _reply(answer: Answer, generation: Generation) -> GenerateReply:
    return GenerateReply(
        response=generation.text, style=answer.style, tokens=generation.token_count, latency=generation.latency_s
    )


class _Events:
    """The stream of ``/generate``: ``piece`` events, then one ``done`` or ``error``."""

    def __init__(self, answer: Answer, request_id: str) -> None:
        self._answer, self._request_id = answer, request_id

    def delta(self, text: str) -> Iterable[str]:
        yield event({"text": text}, "piece")

    def done(self, generation: Generation) -> Iterable[str]:
        yield event(_reply(self._answer, generation).model_dump(mode="json"), "done")

    def failed(self, problem: Problem) -> Iterable[str]:
        yield event(problem.document(self._request_id), "error")


ROUTES = (
    Route(
        "POST",
        "/generate",
        generate,
        "Answer a prompt tersely or at length",
        reply=GenerateReply,
        body=GenerateRequest,
        media=(EVENT_STREAM,),
        problems=ANSWER_PROBLEMS,
    ),
)
