"""Servers to compare, each in its own process: ours, vLLM, transformers' and llama.cpp's."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psutil
import requests

from acceptance.processes import VERBOSITY, ServerProcess
from pipeline.config import GENERATION_PRESETS, MIB, Style
from pipeline.model.base_models import gguf_file
from tests.engine_environments import vllm_command

VLLM, TRANSFORMERS, LLAMA_CPP = "vLLM", "transformers serve", "llama-cpp-python"
HOST = "127.0.0.1"
START_LIMIT_S, STOP_LIMIT_S, POLL_S = 180.0, 5.0, 0.1
COMPILING_LIMIT_S = 900.0
"""vLLM compiles its kernels first, which takes minutes on two busy cores."""
OUR_TIMEOUT_S = 3600
"""Long enough that no request times out: queueing shows as latency, as with the other servers."""
CACHE = ("--cb-block-size", "64", "--cb-num-blocks", "128", "--cb-max-batch-tokens", "256")
"""The cache size of our engine; by default transformers' server takes more than half of the machine's memory."""
WITH_USAGE = {"stream_options": {"include_usage": True}}
"""Asks for the answer's token count at the end of its stream."""


@dataclass(frozen=True, slots=True)
class Server:
    """One way to serve the embedded model.

    Attributes:
        name: Its unique name in the table.
        versions: Its packages and their versions, the server's first.
        weights: The weights that it serves.
        remark: Caveats for reading its figures.
        open: Context manager that starts it with its log in a file, yields its address and stops it.
        body: Returns the request body for a question in a style, without ``stream``.
    """

    name: str
    versions: dict[str, str]
    weights: str
    remark: str
    open: Callable[[Path], AbstractContextManager[str]]
    body: Callable[[str, Style], dict[str, Any]]


def ours(run: Path, target: str, in_flight: int) -> Server:
    """``verbosity serve`` of a run, with its default engine."""
    arguments = ["--run", str(run), "--timeout-s", str(OUR_TIMEOUT_S), "--max-in-flight", str(in_flight)]
    return Server(
        name="verbosity serve",
        versions={"verbosity": metadata.version("verbosity")},
        weights="tuned, 4-bit values and adapter, prepared for inference",
        remark="samples each answer by its style's own values; a verbose answer has at least 64 tokens; streams whole"
        " words, so its first token is its first word, and makes their text for streams alone",
        open=partial(_our_process, arguments),
        body=lambda question, style: {
            "model": f"{target}:{style.value}",
            "messages": _messages(question),
            **WITH_USAGE,
        },
    )


@contextmanager
def _our_process(arguments: list[str], log: Path) -> Iterator[str]:
    with ServerProcess(arguments, log, START_LIMIT_S) as server:
        if server.url is None:
            raise RuntimeError(f"verbosity serve did not start: {_end_of(log)}")
        yield server.url


def vllm(packages: Path, exported: Path, dtype: str, *, all_cores: bool = False) -> Server:
    """vLLM on the CPU, of an exported run.

    Args:
        packages: Its environment.
        exported: The model folder.
        dtype: Compute dtype.
        all_cores: Whether it computes on every core; by default it keeps one free for its HTTP server.

    Returns:
        The server.
    """
    name = "verbosity"

    def body(question: str, style: Style) -> dict[str, Any]:
        asked = _as_openai(name, f"{style.token}\n{question}", style)
        # vLLM's extension of OpenAI's protocol, as our engine `remote` sends it.
        return {**asked, "min_tokens": GENERATION_PRESETS[style].min_new_tokens, **WITH_USAGE}

    command = vllm_command(packages, exported, name=name, dtype=dtype, adapters={})
    if all_cores:
        command = ["env", f"VLLM_CPU_OMP_THREADS_BIND=0-{(os.cpu_count() or 1) - 1}", *command]
    cores = "every core" if all_cores else "all cores but one, its default"
    return Server(
        name=f"{VLLM}, all cores" if all_cores else VLLM,
        versions=package_versions(packages / "bin" / "python", "vllm-cpu", "torch"),
        weights=f"tuned, exported, {dtype}",
        remark="samples each answer by its style's own values; a verbose answer has at least 64 tokens; computes on"
        f" {cores}",
        open=partial(running, command, ready="/health", limit_s=COMPILING_LIMIT_S),
        body=body,
    )


def transformers_serve(python: Path, exported: Path, dtype: str, *, samples: bool = False) -> Server:
    """``transformers serve`` with continuous batching, of an exported run.

    Args:
        python: Interpreter with transformers' server installed.
        exported: The model folder.
        dtype: Compute dtype.
        samples: Whether requests enable sampling, by a field outside OpenAI's API.

    Returns:
        The server.
    """
    command = [str(python), "-m", "transformers.cli.transformers", "serve", str(exported), "--continuous-batching"]
    command += ["--device", "cpu", "--dtype", dtype, *CACHE]
    remark = "takes max_tokens of a request and neither temperature nor top_p; it answers greedily, which costs less"
    if samples:
        remark = "asked to sample, it does so for all requests with the temperature and top_p of the first one"

    def body(question: str, style: Style) -> dict[str, Any]:
        asked = _as_openai(str(exported), f"{style.token}\n{question}", style)
        if samples:
            own = json.loads((exported / "generation_config.json").read_text(encoding="utf-8"))
            given = {"do_sample": True, "top_k": 0, "temperature": asked["temperature"], "top_p": asked["top_p"]}
            asked["generation_config"] = json.dumps(own | given)
        return asked

    return Server(
        name=f"{TRANSFORMERS}, sampling" if samples else TRANSFORMERS,
        versions=package_versions(python, "transformers", "torch"),
        weights=f"tuned, exported, {dtype}",
        remark=remark,
        open=partial(running, command, ready="/health"),
        body=body,
    )


def llama_cpp(python: Path) -> Server:
    """llama-cpp-python's server of the embedded model's GGUF file."""
    weights = gguf_file()
    command = [str(python), "-m", "llama_cpp.server", "--model", str(weights), "--chat_format", "chatml"]
    # By default the server also computes the logits of the prompt, which nothing uses here.
    command += ["--n_threads", str(os.cpu_count()), "--logits_all", "false"]
    # By default a request ends the stream of the one before it.
    command += ["--interrupt_requests", "false"]
    return Server(
        name=LLAMA_CPP,
        versions=package_versions(python, "llama-cpp-python"),
        weights=f"not tuned, {weights.name}",
        remark="answers one request at a time; adds top_k 40, min_p 0.05 and a repeat penalty of 1.1 unasked; not being"
        " tuned it writes longer answers, so compare its tokens/s; the chunks of its stream count as tokens",
        open=partial(running, command, ready="/v1/models"),
        body=lambda question, style: _as_openai(weights.name, question, style),
    )


def export_model(run: Path, output: Path, dtype: str) -> None:
    """Export a run's model in its own process, so that the memory is freed."""
    command = [*VERBOSITY, "export", "--run", str(run), "--output", str(output), "--dtype", dtype]
    subprocess.run(command, check=True)


@contextmanager
def running(command: Sequence[str], log: Path, *, ready: str, limit_s: float = START_LIMIT_S) -> Iterator[str]:
    """Run a server's process on a free port until the end of the block.

    Args:
        command: Command line without ``--host`` and ``--port``.
        log: File for its output.
        ready: Path that returns 200 once the server is ready.
        limit_s: Maximum time to start in seconds.

    Yields:
        Its address, once it is ready.

    Raises:
        RuntimeError: It exited or was not ready in time; the message has the end of its output.
    """
    port = free_port()
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*command, "--host", HOST, "--port", str(port)],
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        url = f"http://{HOST}:{port}"
        _wait_until_ready(process, f"{url}{ready}", log, limit_s)
        yield url
    finally:
        process.terminate()
        try:
            process.wait(STOP_LIMIT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # its processes that outlive it, such as vLLM's engine


def _wait_until_ready(process: subprocess.Popen[bytes], page: str, log: Path, limit_s: float) -> None:
    deadline = time.monotonic() + limit_s
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise RuntimeError(f"the server ended with {process.returncode}: {_end_of(log)}")
        try:
            if requests.get(page, timeout=5).status_code == 200:
                return
        except requests.RequestException:
            pass
        time.sleep(POLL_S)
    raise RuntimeError(f"the server was not ready after {limit_s:g} s: {_end_of(log)}")


def memory_mib(url: str) -> float:
    """Memory of the process of this machine that listens at an address, and of its descendants, in MiB.

    Pages that several of them share count once.
    """
    address = (HOST, urlsplit(url).port)
    open_ones = psutil.net_connections("tcp")
    (listener,) = {one.pid for one in open_ones if one.status == psutil.CONN_LISTEN and one.laddr == address}
    process = psutil.Process(listener)
    tree = [process, *process.children(recursive=True)]
    return sum(one.memory_full_info().pss for one in tree) / MIB


def free_port() -> int:
    """A free port."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port: int = probe.getsockname()[1]
    return port


def _messages(content: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": content}]


def _as_openai(model: str, content: str, style: Style) -> dict[str, Any]:
    """A request body with a style's limits, as far as OpenAI's API can express them."""
    limits = GENERATION_PRESETS[style]
    given = {"max_tokens": limits.max_new_tokens, "temperature": limits.temperature, "top_p": limits.top_p}
    return {"model": model, "messages": _messages(content), **given}


def package_versions(python: Path, *packages: str) -> dict[str, str]:
    """Versions of packages in another interpreter."""
    code = "import sys; from importlib.metadata import version; print(*map(version, sys.argv[1:]))"
    asked = subprocess.run([str(python), "-c", code, *packages], check=True, stdout=subprocess.PIPE, text=True)
    return dict(zip(packages, asked.stdout.split(), strict=True))


def _end_of(log: Path) -> str:
    return log.read_text(encoding="utf-8", errors="replace")[-2000:]
