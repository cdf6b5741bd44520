"""What clients of broken servers see: ``python -m tests.unit.sabotage.broken_server FOLDER FAULT...``.

Each fault, and the healthy server, is served by a process of its own, forked before the service is imported, because
faults replace functions before that; what it saw is ``FAULT.json`` in the folder. No model: answers are as long as
their cap.
"""

from __future__ import annotations

import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import flask  # noqa: F401 -- once for all processes

from sabotage.faults import FAULTS


@dataclass(frozen=True)
class Answer:
    """A ``Generation`` whose module needs no torch."""

    text: str
    token_ids: tuple[int, ...]
    style: Any
    finish_reason: str = "length"
    latency_s: float = 0.2
    first_token_s: float | None = None

    @property
    def token_count(self) -> int:
        return len(self.token_ids)


def seen() -> dict[str, Any]:
    from acceptance.protocols import OWN_MALFORMED
    from pipeline.config import GENERATION_PRESETS, Style
    from pipeline.engines.admission import Admission
    from pipeline.engines.interface import AnswerRequest
    from pipeline.service.app import create_app
    from pipeline.service.lifecycle import Service, ServiceInfo, Settings

    class Engine:
        name, weights, held = "none", "4-bit", False

        def __init__(self) -> None:
            self.admission = Admission(50)

        def submit(self, request: Any) -> Any:
            ticket = self.admission.admit(request)
            if not self.held:
                answer: Any = Answer(f"{request.style}", tuple(range(request.limits.max_new_tokens)), request.style)
                ticket.finish(answer)
            return ticket

        def cancel(self, ticket: Any) -> None:
            ticket.cancel()

        def stats(self) -> Any:
            return self.admission.stats(running=lambda ticket: True, alive=True)

    engine: Any = Engine()
    service = Service(Settings())
    info: dict[str, Any] = {
        "model": "tiny",
        "adapter": "a" * 64,
        "gpu_memory_gib": lambda: 0.0,
        "max_prompt_tokens": 1000,
    }
    service.ready(engine, ServiceInfo(**info, count_tokens=lambda prompt: len(prompt.split())))
    client: Any = create_app(service).test_client()

    def post(**body: str) -> tuple[int, Any, str | None]:
        response = client.post("/generate", json=body)
        return response.status_code, response.get_json(), response.headers.get("Retry-After")

    found = {style.value: post(prompt="What is caching?", style=style.value)[1] for style in Style}
    found |= {"health": client.get("/health").get_json(), "unknown_style": post(prompt="Hi", style="rambling")[0]}
    long = OWN_MALFORMED["prompt too long"]
    found["long_prompt"] = client.post("/generate", data=long.body, headers=dict(long.headers)).status_code
    engine.held = True
    for _ in range(6):
        engine.submit(AnswerRequest("Hi", Style.TERSE, 28.0, GENERATION_PRESETS[Style.TERSE]))
    engine.admission.max_in_flight = 6  # what a healthy server refuses, too
    found["busy"] = post(prompt="Hi")
    return found


def main() -> int:
    """Exit status 1 if a server broke down altogether."""
    folder, exit_status = Path(sys.argv[1]), 0
    for name in ("healthy", *sys.argv[2:]):
        child = os.fork()
        if child == 0:
            if name != "healthy" and (inject := FAULTS[name].inject):
                inject()
            (folder / f"{name}.json").write_text(json.dumps(seen()), encoding="utf-8")
            os._exit(0)
        exit_status |= bool(os.waitpid(child, 0)[1])
    return exit_status


if __name__ == "__main__":
    sys.exit(main())
