"""Every difference between the two supported dependency sets, and CPU features that only private names report."""

from __future__ import annotations

import functools
import importlib.util
from typing import Any, Literal

import accelerate
import bitsandbytes
import torch
import transformers
from packaging.version import Version

TRANSFORMERS_5 = Version(transformers.__version__) >= Version("5.0")
SHARDS_FOUR_BIT = Version(accelerate.__version__) >= Version("1.15")
"""Whether FSDP leaves packed 4-bit weights as they are (accelerate 1.9 casts them to float32)."""


def dtype_argument(dtype: torch.dtype) -> dict[str, Any]:
    """``from_pretrained``'s dtype keyword (``torch_dtype`` before transformers 4.56)."""
    return {"dtype": dtype} if TRANSFORMERS_5 else {"torch_dtype": dtype}


def gguf_arguments() -> dict[str, Any]:
    """Keywords that load a GGUF file as float32 (transformers 4.54 always does)."""
    if not TRANSFORMERS_5:
        return {}
    return {"quantization_config": transformers.GgufConfig(dequantize=True)}


def warmup_arguments(ratio: float) -> dict[str, Any]:
    """The warm-up share (transformers 5 reads a float ``warmup_steps`` below 1 as a share)."""
    return {"warmup_steps": ratio} if TRANSFORMERS_5 else {"warmup_ratio": ratio}


def cpu_compute_dtype() -> Literal["bfloat16", "float32"]:
    """``bfloat16`` if this CPU multiplies it natively; otherwise it would be a hundred times slower than float32."""
    return "bfloat16" if torch.ops.mkldnn._is_mkldnn_bf16_supported() else "float32"


def multiplies_packed_on_cpu() -> bool:
    """Whether this CPU multiplies packed 4-bit weights (bitsandbytes 0.46 unpacks each layer for every token)."""
    supported = getattr(bitsandbytes.functional, "has_avx512bf16", None)
    return supported is not None and bool(supported())


def checkpointing_arguments(enabled: bool) -> dict[str, Any]:
    """Non-reentrant gradient checkpointing; the reentrant kind leaves LoRA untrained without an input hook."""
    fields = transformers.TrainingArguments.__dataclass_fields__
    name = "activation_checkpointing" if "activation_checkpointing" in fields else "gradient_checkpointing"
    return {name: enabled, f"{name}_kwargs": {"use_reentrant": False}}


def attends_to_packed_rows() -> bool:
    """Whether torch has variable-length attention (2.10); with older ones the packed path was never run on a GPU."""
    return importlib.util.find_spec("torch.nn.attention.varlen") is not None


@functools.cache  # torch refuses to register the same package twice
def load_to_numbered_cpus() -> None:
    """Allow loading tensors to ``cpu:0``, accelerate's name of a process's CPU, which transformers 4.54 asks for."""

    def load(storage: Any, location: str) -> Any:
        return storage if location == "cpu:0" else None

    if not TRANSFORMERS_5:
        torch.serialization.register_package(1000, lambda storage: None, load)
