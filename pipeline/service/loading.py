"""From a run to an engine and its service information; the only module here that needs torch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from pipeline.config import GIB
from pipeline.data.encoding import prompt_ids
from pipeline.data.text import require_text
from pipeline.engines.interface import Engine
from pipeline.engines.remote import RemoteEngine
from pipeline.engines.selection import DEFAULT_ENGINE, EngineName, open_local
from pipeline.memory import return_freed_memory
from pipeline.model.identity import require_same_adapter
from pipeline.model.loading import load_trained, open_run_base
from pipeline.run_folder import RunFolder
from pipeline.service.lifecycle import ServiceInfo

MAX_PROMPT_TOKENS = 1024


@dataclass(frozen=True, slots=True)
class Remote:
    """OpenAI-compatible servers that generate.

    Attributes:
        urls: Their base addresses, including ``/v1``.
        model: Their name for the run's model.
        api_key: Sent as a bearer token.
    """

    urls: tuple[str, ...]
    model: str
    api_key: str | None


def load_local(
    run: RunFolder, engine: EngineName | None, *, max_in_flight: int, device: str | None, base_model: str | None
) -> tuple[Engine, ServiceInfo]:
    """Load a trained model into an engine of this process; None takes the default engine.

    Raises:
        PipelineError: As ``load_trained`` and ``open_local``.
    """

    def opened() -> tuple[Engine, ServiceInfo]:
        trained = load_trained(run, device=device, base_model=base_model)
        info = _info(trained.target.name, trained.adapter_sha256, trained.tokenizer, _gpu_memory_gib)
        return open_local(engine or DEFAULT_ENGINE, trained.model, trained.tokenizer, max_in_flight=max_in_flight), info

    loaded = opened()
    return_freed_memory()  # what was only loaded to be prepared
    return loaded


def load_remote(
    run: RunFolder, remote: Remote, *, max_in_flight: int, base_model: str | None
) -> tuple[Engine, ServiceInfo]:
    """Connect to servers that have the run's model; only the tokenizer is loaded in this process.

    Raises:
        PipelineError: The run, the base model or every server is missing, or the run is not as it was trained.
    """
    record = run.read_record()
    require_same_adapter(run, record)
    base = open_run_base(run, record, base_model)
    engine = RemoteEngine(
        remote.urls, remote.model, base.tokenizer, api_key=remote.api_key, max_in_flight=max_in_flight
    )
    return engine, _info(base.target.name, record["adapter"]["sha256"], base.tokenizer, lambda: 0.0)


def _gpu_memory_gib() -> float:
    return torch.cuda.memory_allocated() / GIB if torch.cuda.is_available() else 0.0


def _info(model: str, adapter: str, tokenizer: Any, gpu_memory_gib: Callable[[], float]) -> ServiceInfo:
    return ServiceInfo(
        model=model,
        adapter=adapter,
        gpu_memory_gib=gpu_memory_gib,
        count_tokens=prompt_token_counter(tokenizer),
        max_prompt_tokens=MAX_PROMPT_TOKENS,
    )


def prompt_token_counter(tokenizer: Any) -> Callable[[str], int]:
    """A function that counts a prompt's tokens; it raises ``TextError`` if the prompt spells a control token."""

    def count(prompt: str) -> int:
        require_text(prompt, tokenizer)
        return len(prompt_ids(tokenizer, prompt))

    return count
