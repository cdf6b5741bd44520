"""From a validated request to an engine's answer, with refusals, deadlines and disconnects alike on every route."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pipeline.config import GENERATION_PRESETS, GenerationConfig, Style
from pipeline.data.style import detect_style
from pipeline.data.text import TextError
from pipeline.engines.interface import (
    AnswerCancelledError,
    AnswerLostError,
    AnswerRequest,
    AnswerTimeoutError,
    EngineBusyError,
    EngineClosedError,
    EngineFailedError,
    RequestTooLongError,
    Ticket,
)
from pipeline.service.disconnects import DisconnectWatch
from pipeline.service.lifecycle import WAIT_FOR_STATE_S, Loaded, Service
from pipeline.service.logs import RequestRecord
from pipeline.service.metrics import Metrics
from pipeline.service.problems import CLIENT_GONE, Problem

if TYPE_CHECKING:
    from pipeline.generation.generate import Generation

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Asker:
    """The client of a request.

    Attributes:
        record: The request's record for the log.
        gone: Whether the client has disconnected; None if the server cannot tell.
    """

    record: RequestRecord
    gone: Callable[[], bool] | None


class Answering:
    """Starts answers with the service's engine."""

    def __init__(self, service: Service, metrics: Metrics) -> None:
        """The engine need not be loaded yet."""
        self.service, self.metrics = service, metrics
        self.watch = DisconnectWatch()

    def start(
        self,
        asker: Asker,
        prompt: str,
        style: Style | None,
        limits: Callable[[Style], GenerationConfig] = GENERATION_PRESETS.__getitem__,
        field: str = "prompt",
    ) -> Answer:
        """Start one answer.

        Args:
            asker: The client.
            prompt: The user's prompt.
            style: The requested style; None detects it from the prompt.
            limits: Decoding limits of a style; by default its documented preset.
            field: Field of the body with the prompt.

        Raises:
            Problem: 400 if the prompt spells one of the model's control tokens, 413 if it is too long, 503 if the
                service cannot answer now.
        """
        loaded = self.service.serving()
        style = style or detect_style(prompt)
        asker.record.style = style
        if self.service.settings.log_prompts:
            asker.record.facts["prompt"] = prompt
        try:
            prompt_tokens = loaded.info.count_tokens(prompt)
        except TextError as error:
            raise Problem(400, f"{field}: {error}", field) from None
        if prompt_tokens > loaded.info.max_prompt_tokens:
            raise Problem(413, f"the prompt is longer than {loaded.info.max_prompt_tokens} tokens; shorten it.", field)
        asker.record.facts["prompt_tokens"] = prompt_tokens
        request = AnswerRequest(prompt, style, self.service.settings.timeout_s, limits(style))
        return Answer(self, loaded, asker, self._submit(loaded, request, field), prompt_tokens)

    def _submit(self, loaded: Loaded, request: AnswerRequest, field: str) -> Ticket:
        try:
            return loaded.engine.submit(request)
        except EngineBusyError:
            raise self.service.busy() from None
        except EngineClosedError:
            raise Problem(
                503, "the server is shutting down; use another one.", retry_after_s=WAIT_FOR_STATE_S
            ) from None
        except EngineFailedError:
            raise Problem(503, "the engine has failed.", retry_after_s=WAIT_FOR_STATE_S) from None
        except RequestTooLongError as error:
            detail = f"prompt and answer exceed the limit of {error.limit_tokens} tokens; shorten the prompt."
            raise Problem(413, detail, field) from None


class Answer:
    """An answer in progress; ``close`` must always be called, and frees its slot."""

    def __init__(self, answering: Answering, loaded: Loaded, asker: Asker, ticket: Ticket, prompt_tokens: int) -> None:
        """Watch for the client to disconnect."""
        self.style, self.prompt_tokens = ticket.request.style, prompt_tokens
        self._answering, self._loaded, self._asker, self._ticket = answering, loaded, asker, ticket
        self._client_gone = False
        if asker.gone is not None:
            answering.watch.add(self, asker.gone, self._give_up)

    def _give_up(self) -> None:
        self._client_gone = True
        self._loaded.engine.cancel(self._ticket)

    def close(self) -> None:
        """Stop watching, and cancel the answer if it is still in progress."""
        self._answering.watch.remove(self)
        self._loaded.engine.cancel(self._ticket)

    def deltas(self) -> Iterator[str]:
        """Yield the text as it is generated.

        Raises:
            Problem: As ``result``.
        """
        with self._explained():
            yield from self._ticket.deltas()

    def result(self) -> Generation:
        """Wait for the complete answer and record its metrics.

        Raises:
            Problem: 504 after the deadline, 503 if the server shuts down or the one that generates is gone, 500 if the
                engine failed.
        """
        with self._explained():
            generation = self._ticket.result()
        self._answering.service.note_answer(generation.latency_s)
        tokens, first_token_s = generation.token_count, generation.first_token_s
        self._answering.metrics.answer(self.style, tokens, first_token_s, generation.latency_s)
        self._asker.record.facts |= {
            "tokens": tokens,
            "finish_reason": generation.finish_reason,
            "first_token_s": first_token_s and round(first_token_s, 4),
        }
        return generation

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except AnswerTimeoutError:
            timeout_s = self._answering.service.settings.timeout_s
            detail = f"no complete answer within {timeout_s:g} s; try again when the server is less busy."
            raise Problem(504, detail) from None
        except AnswerCancelledError:
            if self._client_gone:
                raise Problem(CLIENT_GONE, "the client disconnected.") from None
            detail = "the server shut down before the answer was complete; use another one."
            raise Problem(503, detail, retry_after_s=WAIT_FOR_STATE_S) from None
        except AnswerLostError as error:
            logger.warning("answer lost", exc_info=error, extra=self._asker.record.name())
            raise Problem(503, "the server that generated the answer is gone; try again.", retry_after_s=1) from None
        except EngineFailedError as error:
            logger.error("engine failed", exc_info=error, extra=self._asker.record.name())
            raise Problem(500, "the engine failed on this request; the server's log has the reason.") from None
