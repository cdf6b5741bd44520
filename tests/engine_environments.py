"""Tests with the engines that users choose, each in an environment of its own, built once like the golden pins.

``python -m tests.engine_environments vllm -m pytest ...`` runs this Python with these arguments, and names the engine's
environment to the tests.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.pinned_environment import ROOT, NotEnoughDiskError, build_packages, not_run

ENGINES = ("vllm", "llama")
VLLM_SETTINGS = {
    "VLLM_TARGET_DEVICE": "cpu",
    "VLLM_CPU_KVCACHE_SPACE": "2",
    "VLLM_NO_USAGE_STATS": "1",
    "HF_HUB_OFFLINE": "1",
}
"""Environment variables of vLLM on a CPU; the cache's size is in GiB."""


def variable(engine: str) -> str:
    """The environment variable with the folder of an engine's environment."""
    return f"VERBOSITY_{engine.upper()}_ENVIRONMENT"


def run(engine: str, arguments: Sequence[str]) -> int:
    """Run Python beside an engine and return its exit status, or 1 if the engine cannot be had."""
    constraints = ROOT / "constraints" / f"{engine}.txt"
    try:
        packages = build_packages(constraints)
    except NotEnoughDiskError as error:
        return not_run(f"with {engine}", constraints, error)
    print(f"{engine}: {packages}", flush=True)
    environment = os.environ | {variable(engine): str(packages)}
    return subprocess.run([sys.executable, *arguments], env=environment, check=False).returncode


def engine_folder(engine: str) -> Path:
    """The environment of an engine, in a process that ``run`` started.

    Raises:
        RuntimeError: It did not.
    """
    if not (named := os.environ.get(variable(engine))):
        raise RuntimeError(f"{engine} is not here; start this by `python -m tests.engine_environments {engine} ...`")
    return Path(named)


def vllm_python(packages: Path, settings: Mapping[str, str]) -> list[str]:
    """The Python of vLLM's environment, with environment variables that are set for its process alone."""
    return ["env", *(f"{name}={value}" for name, value in settings.items()), str(packages / "bin" / "python")]


def vllm_command(packages: Path, model: Path, *, name: str, dtype: str, adapters: Mapping[str, Path]) -> list[str]:
    """The command line of vLLM's server on a CPU, without ``--host`` and ``--port``.

    Args:
        packages: vLLM's environment.
        model: The model folder.
        name: What requests call it.
        dtype: Compute dtype.
        adapters: LoRA folders by what requests call them.
    """
    # Its command `vllm` looks for a package of that name, which the build for CPUs has not.
    command = [*vllm_python(packages, VLLM_SETTINGS), "-m", "vllm.entrypoints.openai.api_server"]
    command += ["--model", str(model), "--served-model-name", name, "--dtype", dtype]
    command += ["--max-model-len", "2048", "--max-num-seqs", "32"]
    if adapters:
        loras = [f"{called}={folder}" for called, folder in adapters.items()]
        command += ["--enable-lora", "--max-loras", str(len(loras)), "--lora-modules", *loras]
    return command


def llama_command(packages: Path, model: Path, *, name: str, adapter: Path | None) -> list[str]:
    """The command line of llama-cpp-python's server, without ``--host`` and ``--port``.

    Args:
        packages: llama.cpp's environment.
        model: The GGUF file.
        name: What requests call it.
        adapter: GGUF file of an adapter.
    """
    command = [str(packages / "bin" / "python"), "-m", "llama_cpp.server", "--model", str(model), "--model_alias", name]
    # By default a request ends the stream of the one before it, and the logits of prompts are computed.
    command += ["--interrupt_requests", "false", "--logits_all", "false", "--n_threads", str(os.cpu_count())]
    return command + (["--lora_path", str(adapter)] if adapter else [])


if __name__ == "__main__":
    sys.exit(run(sys.argv[1], sys.argv[2:]))
