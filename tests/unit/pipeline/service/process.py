"""``python -m tests.unit.pipeline.service.process``: a server with a fake engine that does what its input says.

``load`` ends the loading; ``answer`` answers what waits; ``break`` makes the loading fail.
"""

from __future__ import annotations

import sys
import threading

from pipeline.engines.interface import Engine
from pipeline.errors import PipelineError
from pipeline.service.lifecycle import ServiceInfo, Settings
from pipeline.service.logs import logging_to_stderr
from pipeline.service.server import run_server
from tests.unit.pipeline.service.fakes import INFO, FakeEngine


def load() -> tuple[Engine, ServiceInfo]:
    engine = FakeEngine()
    engine.hold = True
    if input() == "break":
        raise PipelineError("the run is not complete.")

    def obey() -> None:
        for _ in sys.stdin:
            for ticket in engine.admission.tickets():
                engine.answer(ticket)

    threading.Thread(target=obey, daemon=True).start()
    return engine, INFO


if __name__ == "__main__":
    with logging_to_stderr():
        run_server(load, Settings(), host="127.0.0.1", port=0, max_in_flight=4)
