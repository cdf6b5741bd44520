"""Environment variables that are set before torch is imported, and whether torch is installed."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Mapping
from types import MappingProxyType

GOLDEN_VARIABLES: Mapping[str, str] = MappingProxyType(
    {
        "CUDA_VISIBLE_DEVICES": "0",
        "ACCELERATE_USE_DEEPSPEED": "0",
        "ACCELERATE_USE_FSDP": "0",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "PYTORCH_CUDA_ALLOC_CONF": "expandable_segments:True",
    }
)
"""Environment variables of the documented configuration; torch and accelerate read them on import."""

PROJECT_VARIABLES: Mapping[str, str] = MappingProxyType(
    {"HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1", "THP_MEM_ALLOC_ENABLE": "1"}
)
"""The project's own variables: nothing is downloaded at run time, no library draws a bar each time a model is loaded,
and transparent huge pages make single answers on a CPU a quarter faster."""


def wanted_environment() -> Mapping[str, str]:
    """The environment variables that this process should run with.

    A process started by a launcher keeps its ``CUDA_VISIBLE_DEVICES``, since it picks a GPU by its local rank.
    """
    wanted = {**GOLDEN_VARIABLES, **PROJECT_VARIABLES}
    if "LOCAL_RANK" in os.environ:
        del wanted["CUDA_VISIBLE_DEVICES"]
    if not torch_is_installed():
        # Without torch, importing transformers prints an advice to install it, even if only tokenizers are used.
        wanted["TRANSFORMERS_NO_ADVISORY_WARNINGS"] = "1"
    return wanted


def apply_environment() -> None:
    """Set each wanted variable that the user has not set; must run before torch is imported."""
    for name, value in wanted_environment().items():
        os.environ.setdefault(name, value)


def environment_values() -> dict[str, str | None]:
    """The current value of each wanted variable; None if it is not set."""
    return {name: os.environ.get(name) for name in wanted_environment()}


def torch_is_installed() -> bool:
    """Whether torch can be imported, without importing it."""
    try:
        return importlib.util.find_spec("torch") is not None
    except ModuleNotFoundError:  # an import hook hides it, as in a test
        return False
