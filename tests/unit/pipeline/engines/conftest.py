"""The three engines over one tiny model."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from pipeline.engines.interface import Engine
from pipeline.engines.remote import RemoteEngine
from pipeline.engines.selection import open_local
from pipeline.model.loading import LoadedModel
from pipeline.run_folder import RunFolder
from tests.unit.pipeline.engines.exact import exact_model
from tests.unit.pipeline.engines.openai_server import openai_process

KEY = "a-key"
OpenEngine = Callable[..., Engine]


def until(condition: Callable[[], bool], limit_s: float = 30) -> bool:
    """Whether the condition comes true in time."""
    end, pause = time.monotonic() + limit_s, threading.Event()
    while not condition():
        if time.monotonic() > end:
            return False
        pause.wait(0.01)
    return True


@pytest.fixture(scope="session")
def exact(tiny_run: RunFolder) -> LoadedModel:
    return exact_model(tiny_run)


@pytest.fixture(scope="session")
def openai_server(tiny_run: RunFolder) -> Iterator[str]:
    """The address of another process that serves the same model."""
    with openai_process(tiny_run, KEY) as (url, _):
        yield url


@pytest.fixture(params=["serial", "continuous", "remote"])
def open_engine(request: pytest.FixtureRequest, exact: LoadedModel) -> Iterator[OpenEngine]:
    """Opens the engine under test; all are closed in the end."""
    opened: list[Engine] = []

    def start(max_in_flight: int = 16) -> Engine:
        if request.param == "remote":
            url = request.getfixturevalue("openai_server")
            engine: Engine = RemoteEngine([url], "tiny", exact.tokenizer, api_key=KEY, max_in_flight=max_in_flight)
        else:
            engine = open_local(request.param, exact.model, exact.tokenizer, max_in_flight=max_in_flight)
        opened.append(engine)
        return engine

    yield start
    for engine in opened:
        engine.close()


@pytest.fixture
def engine(open_engine: OpenEngine) -> Any:
    return open_engine()
