"""The process around the pipeline: environment variables set before torch is imported, and whether torch is there."""

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
"""Environment variables of the golden document; the commands set them before torch is imported."""

PROJECT_VARIABLES: Mapping[str, str] = MappingProxyType({"HF_HUB_OFFLINE": "1", "THP_MEM_ALLOC_ENABLE": "1"})
"""The project's own: nothing is fetched at run time, and huge pages make single answers on a CPU a quarter faster."""


def wanted_environment() -> Mapping[str, str]:
    """The variables that this process should run with.

    A process that a launcher started keeps its view of the GPUs, of which it takes the one with its own number.
    """
    wanted = {**GOLDEN_VARIABLES, **PROJECT_VARIABLES}
    if "LOCAL_RANK" in os.environ:
        del wanted["CUDA_VISIBLE_DEVICES"]
    if not torch_is_installed():
        # transformers advises whoever imports it to install torch, for tokenizers, too.
        wanted["TRANSFORMERS_NO_ADVISORY_WARNINGS"] = "1"
    return wanted


def apply_environment() -> None:
    """Set the environment variables that the user has not set; torch reads them when it is imported."""
    for name, value in wanted_environment().items():
        os.environ.setdefault(name, value)


def environment_values() -> dict[str, str | None]:
    """The value of each wanted variable as it is now; None where it is not set."""
    return {name: os.environ.get(name) for name in wanted_environment()}


def torch_is_installed() -> bool:
    """Whether torch can be imported, without importing it."""
    try:
        return importlib.util.find_spec("torch") is not None
    except ModuleNotFoundError:  # an import hook that hides it, as a test's does
        return False
