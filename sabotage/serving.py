"""Faults of the server."""

from __future__ import annotations

import json
import os
import random
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

from pipeline.config import Style
from sabotage import answering
from sabotage.replacing import replace

BUSY = 6
"""More than the gate sends at once, except under load."""


def hang() -> None:
    replace("pipeline.service.server:run_server", lambda run: lambda *arguments, **keywords: threading.Event().wait())


def exit_at_once() -> None:
    replace("pipeline.service.server:run_server", lambda run: lambda *arguments, **keywords: sys.exit(3))


def when_busy(act: Callable[[], None]) -> None:
    """Call ``act`` before a request is admitted while ``BUSY`` others are in flight."""

    def broken(admission: Any) -> Any:
        def admit(self: Any, request: Any) -> Any:
            if len(self.tickets()) >= BUSY:
                act()
            return admission.admit(self, request)

        return type("BusyAdmission", (admission,), {"admit": admit})

    replace("pipeline.engines.admission:Admission", broken)


def break_when_busy() -> None:
    def act() -> None:
        raise RuntimeError("too busy")

    when_busy(act)


def starve_when_busy() -> None:
    when_busy(lambda: time.sleep(answering.STALL_S))


def slow_health() -> None:
    def slow() -> float:
        time.sleep(2)
        return 0.0

    replace(
        "pipeline.service.lifecycle:ServiceInfo",
        lambda info: lambda **fields: info(**{**fields, "gpu_memory_gib": slow}),
    )


def name_another_adapter() -> None:
    replace(
        "pipeline.service.lifecycle:ServiceInfo", lambda info: lambda **fields: info(**{**fields, "adapter": "0" * 64})
    )


def with_bodies(change: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    def broken(reply: Any) -> Any:
        def changed(body: Any, status: int = 200) -> Any:
            response = reply(body, status)
            response.set_data(json.dumps(change(response.get_json())))
            return response

        return changed

    replace("pipeline.service.routes:reply", broken)


def leave_out_memory() -> None:
    with_bodies(lambda fields: {name: value for name, value in fields.items() if name != "gpu_memory"})


def milliseconds() -> None:
    with_bodies(lambda fields: {n: value * 1000 if n == "latency" else value for n, value in fields.items()})


def count_words() -> None:
    def change(fields: dict[str, Any]) -> dict[str, Any]:
        return {**fields, "tokens": len(fields["response"].split())} if "tokens" in fields else fields

    with_bodies(change)


def shuffle_words() -> None:
    def shuffled(text: str) -> str:
        words = text.split()
        random.Random(len(words)).shuffle(words)
        return " ".join(words)

    with_bodies(lambda fields: {n: shuffled(value) if n == "response" else value for n, value in fields.items()})


def with_served_model(change: Callable[[Any], Any]) -> None:
    """Change the adapted model in the server's process only."""

    def broken(load_trained: Any) -> Any:
        def load(*arguments: Any, **keywords: Any) -> Any:
            # Not in pipeline.model.adapter: by now the loading module has the function by name.
            replace("pipeline.model.loading:apply_adapter", lambda apply: lambda *given: change(apply(*given)))
            return load_trained(*arguments, **keywords)

        return load

    replace("pipeline.service.loading:load_trained", broken)


def leave_adapter_out() -> None:
    with_served_model(answering.without_adapter)


def with_problems(change: Callable[[Any, int], None]) -> None:
    def broken(respond: Any) -> Any:
        def changed(problem: Any, *details: Any, **options: Any) -> Any:
            response = respond(problem, *details, **options)
            change(response, problem.status)
            return response

        return changed

    replace("pipeline.service.problems:problem_response", broken)


def answer_200() -> None:
    with_problems(lambda response, status: setattr(response, "status_code", 200))


def answer_html() -> None:
    def change(response: Any, status: int) -> None:
        response.set_data(f"<h1>{status}</h1>")
        response.content_type = "text/html"

    with_problems(change)


def die_of_bad_request() -> None:
    with_problems(lambda response, status: os._exit(1) if status == 400 else None)


def ignore_style() -> None:
    replace(
        "pipeline.engines.interface:AnswerRequest",
        lambda request: lambda prompt, style, timeout_s, limits: request(prompt, Style.TERSE, timeout_s),
    )


def with_generations(change: Callable[[Any, Any], Any]) -> None:
    """Change what each answer ends with; ``change`` sees the request and the generation."""

    def broken(ticket: Any) -> Any:
        def finish(self: Any, generation: Any) -> None:
            ticket.finish(self, change(self.request, generation))

        return type("ChangingTicket", (ticket,), {"finish": finish})

    replace("pipeline.engines.interface:Ticket", broken)


def _exchange_among(styles: set[Style]) -> None:
    """Each answer goes to the request after its own."""
    earlier: list[Any] = []

    def exchange(request: Any, generation: Any) -> Any:
        if request.style not in styles:
            return generation
        earlier.append(generation)
        return earlier[-2] if len(earlier) > 1 else generation

    with_generations(exchange)


def mix_up() -> None:
    _exchange_among(set(Style))


def mix_up_terse() -> None:
    _exchange_among({Style.TERSE})
