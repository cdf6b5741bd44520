"""Loading 4-bit base models and what a run trained from one."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, BitsAndBytesConfig
from transformers import GenerationConfig as HFGenerationConfig

from pipeline.compat import attends_to_packed_rows, cpu_compute_dtype, dtype_argument
from pipeline.config import (
    PRESETS,
    Preset,
    QuantizationConfig,
    Target,
    with_compute_dtype,
    with_padding_free,
)
from pipeline.distributed import is_sharded, local_gpu, process_count
from pipeline.errors import PipelineError
from pipeline.model.adapter import apply_adapter
from pipeline.model.base_models import BaseModelFiles, open_base_model
from pipeline.model.dequantize import for_inference
from pipeline.model.identity import require_same_adapter, require_same_base
from pipeline.model.openmp import in_temporary_thread
from pipeline.model.quantization_report import QuantizationCensus, quantization_census
from pipeline.model.style_embeddings import add_style_rows
from pipeline.run_folder import RunFolder
from pipeline.targets import recorded_target

logger = logging.getLogger(__name__)


def hardware_preset(preset: Preset, device: str) -> Preset:
    """The preset with a compute dtype and, if it asks for packed rows, a path that ``device`` supports.

    Several processes, and on a GPU a torch without variable-length attention, take padded micro-batches: the same loss.

    Raises:
        PipelineError: ``cuda`` was requested but is not available; falling back would silently change the run.
    """
    packs = preset.training.padding_free and process_count() == 1
    if device == "cuda":
        if not torch.cuda.is_available():
            raise PipelineError(
                "no CUDA device found; choose a CPU target, add --device cpu or run on a machine with a GPU."
            )
        return with_padding_free(preset, packs and attends_to_packed_rows())
    return with_compute_dtype(with_padding_free(preset, packs), cpu_compute_dtype())


def load_base(folder: Path, quantization: QuantizationConfig, device: str) -> Any:
    """Load a base model in 4-bit on one device, without the style tokens.

    Raises:
        PipelineError: The folder has no loadable safetensors weights.
    """
    dtype = getattr(torch, quantization.compute_dtype)
    place = local_gpu() if device == "cuda" else "cpu"
    four_bit = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type=quantization.quant_type,
        bnb_4bit_use_double_quant=quantization.double_quant,
        bnb_4bit_compute_dtype=dtype,
        bnb_4bit_quant_storage=dtype if is_sharded() else None,  # FSDP does not shard integer tensors
    )
    try:
        model = AutoModelForCausalLM.from_pretrained(
            folder,
            # transformers 5 quantises even with load_in_4bit=False in the configuration.
            quantization_config=four_bit if quantization.load_in_4bit else None,
            device_map={"": place},
            # On a CPU the fused kernel is slower for sequences this short; training is a fifth slower.
            attn_implementation="eager" if device == "cpu" else None,
            use_safetensors=True,
            trust_remote_code=False,
            local_files_only=True,
            **dtype_argument(dtype),
        )
    except (OSError, ValueError) as error:
        raise PipelineError(f"{folder}: the base model cannot be loaded ({error}).") from error
    if device == "cpu":
        _unmap(model)
    # The checkpoint's own decoding defaults would apply wherever a preset leaves a field unset.
    model.generation_config = HFGenerationConfig(
        bos_token_id=model.config.bos_token_id,
        eos_token_id=model.config.eos_token_id,
        pad_token_id=ends[0] if isinstance(ends := model.config.eos_token_id, list) else ends,
    )
    return model


def _unmap(model: Any) -> None:
    """Copy what was not quantised: one tensor that still lies in the mapped file keeps all of the file in memory."""
    for parameter in model.parameters():
        if parameter.is_floating_point():
            parameter.data = parameter.data.clone()


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A model ready for inference.

    Attributes:
        model: The model in evaluation mode.
        tokenizer: Its tokenizer, style tokens added.
        target: Its base model.
    """

    model: Any
    tokenizer: Any
    target: Target


@dataclass(frozen=True, slots=True)
class TrainedModel(LoadedModel):
    """A run's base model and adapter, ready for inference.

    Attributes:
        adapter_sha256: Digest of the adapter's weights.
        census: How the base was quantised, counted before conversion for inference.
    """

    adapter_sha256: str
    census: QuantizationCensus


@in_temporary_thread
def load_trained(run: RunFolder, *, device: str | None = None, base_model: str | None = None) -> TrainedModel:
    """Load a trained model: the 4-bit base with the run's adapter.

    Args:
        run: A completed run.
        device: ``cpu`` or ``cuda``; None takes the run's own.
        base_model: Folder of the base weights, for targets with local weights.

    Raises:
        PipelineError: The run is not complete, its adapter is missing or damaged, or what decides its answers is not as
            it was trained: adapter, base, tokenizer, template or decoding limits.
    """
    record = run.read_record()
    if record["status"] != "completed":
        raise PipelineError(f"{run.path}: the run is {record['status']}, not completed; finish the training first.")
    require_same_adapter(run, record)
    base = _load_run_base(run, record, device, base_model)
    census = quantization_census(base.model)
    adapted = for_inference(apply_adapter(base.model, base.tokenizer, run.adapter, base.target.style_words))
    return TrainedModel(adapted, base.tokenizer, base.target, record["adapter"]["sha256"], census)


@in_temporary_thread
def load_untrained(run: RunFolder, *, device: str | None = None, base_model: str | None = None) -> LoadedModel:
    """Load the starting point of a run: the same base and compute dtype with initial style rows, without the adapter.

    Args:
        run: A run, completed or not.
        device: As for ``load_trained``.
        base_model: As for ``load_trained``.

    Raises:
        PipelineError: The run or the base weights are missing, or the base is not the one of the training.
    """
    base = _load_run_base(run, run.read_record(), device, base_model)
    add_style_rows(base.model, base.tokenizer, base.target.style_words)
    return LoadedModel(for_inference(base.model.eval()), base.tokenizer, base.target)


def open_run_base(run: RunFolder, record: dict[str, Any], base_model: str | None) -> BaseModelFiles:
    """Open the base model that a run was trained from.

    Raises:
        PipelineError: The base is missing, or it, its tokenizer or the decoding limits are not those of the training.
    """
    base = open_base_model(recorded_target(record, run.record_file), base_model)
    require_same_base(run, record, base)
    return base


def _load_run_base(run: RunFolder, record: dict[str, Any], device: str | None, base_model: str | None) -> LoadedModel:
    base, device = open_run_base(run, record, base_model), device or record["device"]
    quantization = hardware_preset(PRESETS[record["preset"]["name"]], device).quantization
    return LoadedModel(load_base(base.folder, quantization, device), base.tokenizer, base.target)
