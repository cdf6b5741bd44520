"""From a checked request to an engine's answer: refusals, deadlines and departed clients, the same on every route."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pipeline.config import GENERATION_PRESETS, GenerationConfig, Style
from pipeline.data.style import detect_style
from pipeline.engines.interface import (
    AnswerCancelledError,
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
    """Who asks.

    Attributes:
        record: What the log is told of the request.
        gone: Whether the client went away; None where the server cannot tell.
    """

    record: RequestRecord
    gone: Callable[[], bool] | None


class Answering:
    """Starts answers."""

    def __init__(self, service: Service, metrics: Metrics) -> None:
        """Answer with the service's engine once it is loaded."""
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
            asker: Who asks.
            prompt: The user's words.
            style: How long the answer should be; the words decide when None.
            limits: Decoding limits of the style; its documented preset unless given.
            field: Member of the body that holds the prompt.

        Raises:
            Problem: 413 for a prompt that is too long; 503 while the service cannot take it.
        """
        loaded = self.service.serving()
        style = style or detect_style(prompt)
        asker.record.style = style
        if self.service.settings.log_prompts:
            asker.record.facts["prompt"] = prompt
        prompt_tokens = loaded.info.count_tokens(prompt)
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
            raise Problem(503, "the server is ending; ask again elsewhere.", retry_after_s=WAIT_FOR_STATE_S) from None
        except EngineFailedError:
            raise Problem(503, "the engine does not work any more.", retry_after_s=WAIT_FOR_STATE_S) from None
        except RequestTooLongError as error:
            detail = f"prompt and answer need more than the {error.limit_tokens} tokens there is room for; shorten it."
            raise Problem(413, detail, field) from None


class Answer:
    """One answer under way; ``close`` must be called whatever happens, and frees its place."""

    def __init__(self, answering: Answering, loaded: Loaded, asker: Asker, ticket: Ticket, prompt_tokens: int) -> None:
        """Watch the client while its answer is made."""
        self.style, self.prompt_tokens = ticket.request.style, prompt_tokens
        self._answering, self._loaded, self._asker, self._ticket = answering, loaded, asker, ticket
        self._client_gone = False
        if asker.gone is not None:
            answering.watch.add(self, asker.gone, self._give_up)

    def _give_up(self) -> None:
        self._client_gone = True
        self._loaded.engine.cancel(self._ticket)

    def close(self) -> None:
        """Free the place of an answer that nobody waits for any more."""
        self._answering.watch.remove(self)
        self._loaded.engine.cancel(self._ticket)

    def deltas(self) -> Iterator[str]:
        """Yield the text as it comes.

        Raises:
            Problem: As ``result``.
        """
        with self._explained():
            yield from self._ticket.deltas()

    def result(self) -> Generation:
        """Wait for the whole answer and count it.

        Raises:
            Problem: 504 when the time is over, 503 when the server ends, 500 when the engine failed.
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
            detail = f"no whole answer within {timeout_s:g} s; try again when the server is less busy."
            raise Problem(504, detail) from None
        except AnswerCancelledError:
            if self._client_gone:
                raise Problem(CLIENT_GONE, "the client went away.") from None
            detail = "the server ended before the answer was whole; ask again elsewhere."
            raise Problem(503, detail, retry_after_s=WAIT_FOR_STATE_S) from None
        except EngineFailedError as error:
            logger.error("engine failed", exc_info=error, extra=self._asker.record.name())
            raise Problem(500, "the engine failed on this request; the server's log has the reason.") from None
