"""deploy/compose.yaml's server before two engines on this CPU: load shared, one killed under it, another adapter."""

from __future__ import annotations

import hashlib
import signal
import subprocess
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import requests

from acceptance.processes import ServerProcess
from pipeline.run_folder import RunFolder
from tests.smoke.gate import acceptance, results
from tests.support import tiny_request
from tests.unit.pipeline.engines.conftest import until
from tests.unit.pipeline.engines.openai_server import openai_process
from tests.unit.test_deploy import ENGINES, SERVER

pytestmark = pytest.mark.slow

ENGINE_KEY, KEY = "of the engines", "of the clients"
Engine = tuple[str, "subprocess.Popen[str]"]


@pytest.fixture(scope="module")
def other_run(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """Another adapter of the same base."""
    from pipeline.training.train import train

    output = tmp_path_factory.mktemp("other") / "run"
    train(tiny_request(output, accumulation_steps=1, learning_rate=2e-2))
    return RunFolder(output)


@contextmanager
def deployed(run: RunFolder, urls: Sequence[str], folder: Path) -> Iterator[str]:
    """The server as deployed, at other addresses; yields its own."""
    keys = folder / "keys"
    keys.write_text(hashlib.sha256(KEY.encode()).hexdigest())
    instead = {
        "--run": str(run.path),
        "--remote-model": "tiny",
        "--host": "127.0.0.1",
        "--api-keys": str(keys),
        **{f"--remote-url=http://{name}:8000/v1": url for name, url in zip(ENGINES, urls, strict=True)},
    }
    command, *arguments = SERVER["command"]
    assert command == "serve"
    for number, argument in enumerate(arguments):
        name = argument.partition("=")[0]
        if (replacement := instead.get(argument, instead.get(name))) is not None:
            arguments[number] = f"{name}={replacement}"
    with ServerProcess(arguments, folder / "server.log") as server:
        assert server.url, (folder / "server.log").read_text()
        yield server.url


@pytest.fixture
def engines(tiny_run: RunFolder, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Engine]]:
    monkeypatch.setenv("VERBOSITY_REMOTE_API_KEY", ENGINE_KEY)
    with openai_process(tiny_run, ENGINE_KEY) as first, openai_process(tiny_run, ENGINE_KEY) as second:
        yield [first, second]


def ask(url: str) -> requests.Response:
    body = {"prompt": "What is rate limiting?", "style": "terse"}
    return requests.post(f"{url}/generate", json=body, headers={"Authorization": f"Bearer {KEY}"}, timeout=120)


def health(url: str) -> tuple[int, dict[str, Any]]:
    response = requests.get(f"{url}/health", timeout=60)
    return response.status_code, response.json()


def of_replicas(url: str, member: str) -> list[Any]:
    return [replica[member] for replica in health(url)[1]["replicas"]]


def test_the_load_is_shared_and_a_killed_engine_loses_its_own_answers_alone(
    engines: list[Engine], tiny_run: RunFolder, tmp_path: Path
) -> None:
    (dying_url, dying), (living_url, living) = engines
    with deployed(tiny_run, [dying_url, living_url], tmp_path) as url, ThreadPoolExecutor(16) as pool:
        assert of_replicas(url, "url") == [dying_url, living_url]
        for _, engine in engines:
            engine.send_signal(signal.SIGSTOP)
        asked = [pool.submit(ask, url) for _ in range(8)]
        assert until(lambda: of_replicas(url, "in_flight") == [4, 4])
        dying.kill()
        assert until(lambda: sum(one.done() for one in asked) == 4)
        living.send_signal(signal.SIGCONT)
        assert until(lambda: of_replicas(url, "status") == ["unreachable", "ok"])
        later = [pool.submit(ask, url) for _ in range(4)]
        replies = [one.result() for one in asked]
        assert sorted(reply.status_code for reply in replies) == [200] * 4 + [503] * 4
        assert [int(reply.headers["Retry-After"]) for reply in replies if reply.status_code == 503] == [1] * 4
        assert [one.result().status_code for one in later] == [200] * 4
        status, body = health(url)
        assert (status, body["status"]) == (200, "ok")


def test_an_engine_with_another_adapter_is_named_by_health_and_by_the_gate(
    tiny_run: RunFolder, other_run: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VERBOSITY_REMOTE_API_KEY", ENGINE_KEY)
    monkeypatch.setenv("VERBOSITY_API_KEY", KEY)
    with (
        openai_process(tiny_run, ENGINE_KEY) as (url, _),
        openai_process(other_run, ENGINE_KEY) as (other_url, _),
        deployed(tiny_run, [url, other_url], tmp_path) as server,
    ):
        status, body = health(server)
        assert (status, body["status"]) == (503, "mixed")
        assert body["reason"].startswith(f"{other_url} answers as another model than {url}")
        assert of_replicas(server, "status") == ["ok", "different"]
        assert requests.get(f"{server}/readyz", timeout=60).status_code == 200
        assert [ask(server).status_code for _ in range(4)] == [200] * 4
        chosen = ("-m", "deployment", "-k", "health_endpoint", "--target", "tiny-mistral")
        acceptance(*chosen, "--endpoint", server, "--acceptance-dir", str(tmp_path))
    judged = results(tmp_path, server.removeprefix("http://"))["deployment.health_endpoint"]
    assert judged["outcome"] == "FAIL"
    assert judged["measurements"]["reason"] == body["reason"]
