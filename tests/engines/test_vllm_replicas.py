"""Two of vLLM's replicas behind one address, as deploy/ starts them, on this CPU: load shared, one killed under it."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil
import pytest
import requests
import yaml

from acceptance.processes import ServerProcess
from benchmarks.peers import running
from pipeline.config import Style
from pipeline.release.export import export
from pipeline.run_folder import RunFolder
from pipeline.service.lifecycle import WAIT_FOR_STATE_S
from tests.engine_environments import VLLM_SETTINGS, engine_folder, vllm_python
from tests.unit.pipeline.engines.conftest import until
from tests.unit.test_deploy import DATA_PARALLEL_FILE, RAY_FILE, SERVE

START_LIMIT_S, ANSWER_LIMIT_S = 900, 300
SETTINGS = {**VLLM_SETTINGS, "VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_CPU_OMP_THREADS_BIND": "nobind"}
SMALL = {"dtype": "float32", "max_model_len": 512, "enforce_eager": True}
"""What vLLM is told besides deploy/, for a tiny model on a CPU."""
ASKED = 16


@pytest.fixture(scope="module")
def exported(taught: RunFolder, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("exported") / "model"
    export(taught, folder)
    return folder


@contextmanager
def deployed(
    command: list[str], settings: Mapping[str, str], run: RunFolder, folder: Path
) -> Iterator[tuple[str, str]]:
    """The replicas with our server before them; yields the addresses of both."""
    started = [*vllm_python(engine_folder("vllm"), {**SETTINGS, **settings}), *command]
    with running(started, folder / "replicas.log", ready="/v1/models", limit_s=START_LIMIT_S) as replicas:
        arguments = ["--run", str(run.path), "--engine", "remote", "--remote-url", f"{replicas}/v1"]
        arguments += ["--remote-model", SERVE.remote_model, "--timeout-s", str(ANSWER_LIMIT_S)]
        with ServerProcess(arguments, folder / "server.log") as server:
            assert server.url, (folder / "server.log").read_text()
            yield replicas, server.url


def ask(url: str, style: Style) -> requests.Response:
    body = {"prompt": "What is rate limiting?", "style": style.value}
    return requests.post(f"{url}/generate", json=body, timeout=ANSWER_LIMIT_S)


def health(url: str) -> str:
    return str(requests.get(f"{url}/health", timeout=60).json()["status"])


def metric(url: str, pattern: str) -> list[Any]:
    return re.findall(pattern, requests.get(f"{url}/metrics", timeout=60).text, re.MULTILINE)


def running_answers(url: str) -> int:
    """Answers being generated, as our server counts them."""
    (count,) = metric(url, r"^verbosity_batch_size (\S+)$")
    return int(float(count))


def processes(name: str) -> list[psutil.Process]:
    """Processes that this test started, by the name that they give themselves."""
    found = []
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            if re.fullmatch(name, "".join(process.cmdline()[:1]).strip()):
                found.append(process)
    return found


def answers_by_rank(replicas: str) -> dict[str, float]:
    """How many answers each rank has finished, as vLLM counts them."""
    counted: dict[str, float] = {}
    for rank, count in metric(replicas, r'^vllm:request_success_total\{engine="(\d+)".*\} (\S+)$'):
        counted[rank] = counted.get(rank, 0.0) + float(count)
    return counted


def lost_answers(asked: Sequence[Future[requests.Response]]) -> int:
    """How many were lost: each of these clients is asked to come again, and all others have their answers."""
    replies = [one.result() for one in asked]
    lost = [reply for reply in replies if reply.status_code != 200]
    assert {(reply.status_code, reply.headers.get("Retry-After")) for reply in lost} <= {(503, "1")}
    return len(lost)


def test_data_parallel_ranks_share_the_load_and_end_together(taught: RunFolder, exported: Path, tmp_path: Path) -> None:
    command = ["-m", "vllm.entrypoints.openai.api_server", "--config", str(DATA_PARALLEL_FILE)]
    command += ["--model", str(exported), "--dtype", "float32", "--max-model-len", "512", "--enforce-eager"]
    with deployed(command, {}, taught, tmp_path) as (replicas, url), ThreadPoolExecutor(ASKED) as pool:
        assert lost_answers([pool.submit(ask, url, Style.TERSE) for _ in range(2 * ASKED)]) == 0
        first, second = answers_by_rank(replicas).values()
        assert first + second == 2 * ASKED
        assert min(first, second) >= ASKED / 2
        dying, _ = processes(r"VLLM::EngineCore\w*")
        asked = [pool.submit(ask, url, Style.VERBOSE) for _ in range(ASKED)]
        assert until(lambda: running_answers(url) >= ASKED / 2)
        dying.kill()
        assert lost_answers(asked) > 0
        assert until(lambda: health(url) == "failed")
        assert until(lambda: not processes(r"VLLM::EngineCore\w*"))
        refused = ask(url, Style.TERSE)
        assert (refused.status_code, refused.headers.get("Retry-After")) == (503, str(WAIT_FOR_STATE_S))


def test_ray_shares_the_load_and_replaces_a_replica_that_dies(
    taught: RunFolder, exported: Path, tmp_path: Path
) -> None:
    document = yaml.safe_load(RAY_FILE.read_text(encoding="utf-8"))
    (model,) = document["applications"][0]["args"]["llm_configs"]
    model["model_loading_config"]["model_source"] = str(exported)
    model["engine_kwargs"] |= SMALL
    model["placement_group_config"] = {"bundles": [{"CPU": 1}]}
    (tmp_path / RAY_FILE.name).write_text(yaml.safe_dump(document))
    command = [str(Path(__file__).with_name("ray_serve.py")), str(tmp_path / RAY_FILE.name)]
    ready = "ray::ServeReplica:verbosity:LLMServer:verbosity"
    # The paths of Ray's sockets would be too long in pytest's folders.
    with tempfile.TemporaryDirectory(prefix="ray") as folder:
        settings = {"RAY_TMPDIR": folder, "RAY_USAGE_STATS_ENABLED": "0", "RAY_OVERRIDE_RESOURCES": '{"CPU": 8}'}
        with deployed(command, settings, taught, tmp_path) as (_, url), ThreadPoolExecutor(ASKED) as pool:
            assert until(lambda: len(processes(ready)) == 2, START_LIMIT_S)
            dying, _ = processes(ready)
            asked = [pool.submit(ask, url, Style.VERBOSE) for _ in range(ASKED)]
            assert until(lambda: running_answers(url) >= ASKED / 2)
            dying.kill()
            assert ASKED / 8 <= lost_answers(asked) <= ASKED * 7 / 8
            assert health(url) == "ok"
            assert lost_answers([pool.submit(ask, url, Style.TERSE) for _ in range(ASKED)]) == 0
            assert until(lambda: len(processes(ready)) == 2, START_LIMIT_S)
