"""Batched answers with transformers' continuous batching, guarded against its limits."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from transformers import GenerationConfig as HFGenerationConfig
from transformers.generation.configuration_utils import ContinuousBatchingConfig

from pipeline.config import GENERATION_PRESETS, GenerationConfig, Style
from pipeline.engines.admission import Admission
from pipeline.engines.interface import AnswerRequest, EngineStats, RequestTooLongError, Ticket
from pipeline.engines.pace import Pace
from pipeline.engines.processors import Greedy, MinNewTokens, QuickTopP
from pipeline.engines.text import TextDeltas
from pipeline.generation.generate import answer_text, finished, styled_prompt_ids
from pipeline.model.openmp import in_temporary_thread

PAGE_TOKENS = 64
GRAPH_QUERY_TOKENS, GRAPH_CACHE_TOKENS = 16, 1024
"""Granularity of the CUDA graphs: a step is padded to multiples of these, so that few graphs are captured. Without
graphs, launching a small step would take longer than computing it."""
POLL_S = 0.05
"""How long an answer without a waiting client may continue after its deadline."""
STOP_LIMIT_S = 10.0
"""How long ``close`` waits for the current step."""


@dataclass(frozen=True, slots=True)
class _Job:
    ticket: Ticket
    deltas: TextDeltas


class ContinuousEngine:
    """One thread decodes all answers together; answers join and leave the batch between tokens."""

    name = "continuous"

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        *,
        max_in_flight: int = 16,
        cache_tokens: int = 8192,
        batch_tokens: int = 256,
    ) -> None:
        """Reserve the cache and start.

        Args:
            model: A model in evaluation mode, used by nobody else until ``close``.
            tokenizer: Its tokenizer, style tokens added.
            max_in_flight: Maximum of requests decoded together; further ones are refused.
            cache_tokens: Capacity of the key-value cache in tokens of prompts and answers. If the requests in flight
                need more, some are restarted after others have ended.
            batch_tokens: Maximum of tokens per step; longer prompts take several steps.
        """
        self._tokenizer = tokenizer
        self._jobs: dict[str, _Job] = {}
        self._ids: dict[Ticket, str] = {}
        self._admission = Admission(max_in_flight, self._left, self._seconds)
        self._pace = Pace()
        self._manager = _manager(model, tokenizer, max_in_flight, cache_tokens, batch_tokens)
        # Warm up now, so that a cache too large for the memory fails here.
        in_temporary_thread(self._manager.warmup)()
        config = self._manager.continuous_batching_config
        self._limit_tokens = min(config.num_blocks * config.page_size, model.config.max_position_embeddings)
        # A thread inherits being a daemon from its parent; otherwise a hanging step would keep the process alive.
        in_temporary_thread(self._manager.start)()
        # Results are lost or delayed when two threads read them.
        self._dispatcher = threading.Thread(target=self._dispatch, name="continuous-engine", daemon=True)
        self._dispatcher.start()

    def submit(self, request: AnswerRequest) -> Ticket:
        """Add one answer to the batch."""
        prompt_ids = styled_prompt_ids(self._tokenizer, request.prompt, request.style)
        limits = request.limits
        # One token too many would end the engine's thread, and with it all answers.
        if len(prompt_ids) + limits.max_new_tokens > self._limit_tokens:
            raise RequestTooLongError(self._limit_tokens)
        ticket = self._admission.admit(request)
        identifier = uuid.uuid4().hex
        self._ids[ticket], self._jobs[identifier] = identifier, _Job(ticket, TextDeltas())
        self._manager.add_request(
            prompt_ids, request_id=identifier, max_new_tokens=limits.max_new_tokens, streaming=True, **_choice(limits)
        )
        if ticket.done():  # it ended before it had an id to cancel by
            self._left(ticket)
        return ticket

    def _seconds(self, requests: Sequence[AnswerRequest]) -> float:
        longest = max(self._pace.tokens(request.style, request.limits.max_new_tokens) for request in requests)
        return longest * self._pace.token_s(len(requests))

    def cancel(self, ticket: Ticket) -> None:
        """Cancel an answer; it leaves the batch before the next token."""
        ticket.cancel()

    def stats(self) -> EngineStats:
        """Load and counters."""
        return self._admission.stats(
            running=lambda ticket: ticket.first_token_s is not None, alive=self._manager.is_running()
        )

    def close(self, drain_s: float = 0.0) -> None:
        """Refuse new requests, wait up to ``drain_s`` seconds for those in flight, cancel the rest."""
        self._admission.close(drain_s)
        if self._manager.batch_processor is not None:  # not stopped yet; a dead manager must release the model, too
            self._manager.stop(timeout=STOP_LIMIT_S, hard_stop=True)
        if not self._manager.is_running():  # a hanging step keeps it running, and the dispatcher with it
            self._dispatcher.join(STOP_LIMIT_S)

    def _left(self, ticket: Ticket) -> None:
        identifier = self._ids.pop(ticket, None)
        if identifier is not None and self._jobs.pop(identifier, None) is not None:
            # The manager does not report a cancelled request; the ticket already has its outcome.
            self._manager.cancel_request(identifier)

    def _dispatch(self) -> None:
        try:
            while self._manager.is_running():
                output = self._manager.get_result(timeout=POLL_S)
                if output is not None:
                    self._deliver(output)
                self._admission.expire()
            raise RuntimeError(
                "the generation thread has ended"
            ) from self._manager.background_thread_status.fatal_error
        except Exception as error:
            self._admission.fail(error)

    def _deliver(self, output: Any) -> None:
        self._admission.progress()
        job = self._jobs.get(output.request_id)
        if job is None:  # ended in the meantime
            self._manager.cancel_request(output.request_id)
        elif output.error is not None:
            job.ticket.fail(RuntimeError(output.error))
        elif output.is_finished():
            self._finish(job.ticket, output.generated_tokens)
        else:
            delta = job.deltas.next(answer_text(output.generated_tokens, self._tokenizer))
            self._pace.note_token(job.ticket.progress(delta), len(self._jobs))

    def _finish(self, ticket: Ticket, answer: list[int]) -> None:
        request = ticket.request
        self._pace.note_token(ticket.progress(), len(self._jobs))
        ticket.finish(finished(answer, self._tokenizer, request.limits, 0.0, request.style))
        if not isinstance(ticket.outcome, Exception):
            self._pace.note_answer(request.style, len(answer))


def _choice(limits: GenerationConfig) -> dict[str, Any]:
    """One request's sampling arguments."""
    greedy = limits.temperature == 0
    return {
        "min_new_tokens": limits.min_new_tokens,
        "greedy": greedy,
        "temperature": 1.0 if greedy else float(limits.temperature),
        "top_p": 1.0 if greedy else float(limits.top_p),
    }


def _manager(model: Any, tokenizer: Any, max_in_flight: int, cache_tokens: int, batch_tokens: int) -> Any:
    # A processor exists, and can be overridden per request, only if its default has an effect.
    default = GENERATION_PRESETS[Style.VERBOSE]
    on_cuda = model.device.type == "cuda"
    manager = model.init_continuous_batching(
        generation_config=HFGenerationConfig(
            do_sample=True,
            temperature=default.temperature,
            top_p=default.top_p,
            top_k=0,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        ),
        continuous_batching_config=ContinuousBatchingConfig(
            page_size=PAGE_TOKENS,
            num_blocks=-(-cache_tokens // PAGE_TOKENS),
            max_batch_tokens=batch_tokens,
            max_requests_per_batch=max_in_flight,
            per_request_processors=True,
            allow_block_sharing=False,
            use_cuda_graph=on_cuda,
            q_padding_interval_size=GRAPH_QUERY_TOKENS if on_cuda else 0,
            kv_padding_interval_size=GRAPH_CACHE_TOKENS if on_cuda else 0,
            use_async_batching=False,
            auto_switch_to_flash=False,
        ),
    )
    processors = manager.logit_processor
    temperature, top_p = processors.logits_processor
    processors.logits_processor[:] = [
        MinNewTokens(tokenizer.eos_token_id),
        Greedy(),
        temperature,
        QuickTopP(top_p),
    ]
    processors.tensors_required = len(processors.logits_processor)
    processors._retrieve_processors_kwargs()
    return manager
