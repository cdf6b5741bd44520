"""Training criteria: 4-bit load, memory, completion, falling loss, saved adapter."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import get_peft_model_state_dict
from safetensors import SafetensorError
from safetensors.torch import load_file

from acceptance.evidence import TrainingOutcome
from harness.machine import MachineUse
from harness.metrics import loss_trend
from harness.recorder import Recorder
from pipeline.config import PRESETS, Target
from pipeline.errors import PipelineError
from pipeline.files import weights_digest
from pipeline.model.adapter import apply_adapter
from pipeline.model.architecture import layer_matrices, tensor_shapes, vocabulary_matrices
from pipeline.model.base_models import base_model_folder
from pipeline.model.loading import TrainedModel, hardware_preset, load_base
from pipeline.model.shapes import model_config
from pipeline.run_folder import RunFolder


@pytest.mark.criterion("training.loads_in_4bit")
def test_loads_in_4bit(measured: Recorder, trained: TrainedModel) -> None:
    census = trained.census
    measured.record(
        is_loaded_in_4bit=census.is_loaded_in_4bit,
        nf4_double_quant_linear_share=census.nf4_double_quant_count / census.linear_count,
        linear_bits_per_parameter=census.bits_per_parameter,
    )


@pytest.mark.criterion("training.gpu_memory")
def test_memory(measured: Recorder, completed_run: RunFolder, device: str) -> None:
    record = completed_run.read_record()
    peak = record["peak_memory"]
    # Reserved, not allocated: a smaller card would have to hold everything that the process reserves.
    judged = "cuda_reserved_gib" if device == "cuda" else "rss_gib"
    rows = completed_run.read_metrics()
    measured.record(peak_memory_gib=max(peak[judged], *(row[judged] for row in rows)), **peak)


@pytest.mark.criterion("training.completes")
def test_training_completes(measured: Recorder, training: TrainingOutcome, record: dict[str, Any]) -> None:
    steps = len(training.run.read_metrics())
    measured.record(
        exit_status=training.exit_status,
        completed_step_share=steps / record["planned_steps"],
        step_count=steps,
        example_count=record["data"]["examples"],
    )


@pytest.mark.criterion("training.duration")
def test_duration(measured: Recorder, completed_run: RunFolder, machine_uses: dict[str, MachineUse]) -> None:
    record = completed_run.read_record()
    rate = record["examples_per_s"]
    measured.record(duration_of_1600_examples_s=1600 / rate, duration_s=record["duration_s"], examples_per_s=rate)
    if use := machine_uses.get("training"):
        measured.taken_during(use, "duration_of_1600_examples_s")


@pytest.mark.criterion("training.loss_converges")
def test_loss_converges(measured: Recorder, training: TrainingOutcome) -> None:
    rows = training.run.read_metrics()
    losses = [row["loss"] for row in rows]
    measured.attach("training loss", kind="series", values=losses, unit="nats/token", label="loss")
    measured.record(**dataclasses.asdict(loss_trend(losses)), first_loss=losses[0], last_loss=losses[-1])


@pytest.mark.criterion("training.adapter_saves")
def test_adapter_saves(
    measured: Recorder, completed_run: RunFolder, trained_base: tuple[Any, Any], base_folder: Path
) -> None:
    record = completed_run.read_record()
    tensors = _read_tensors(completed_run.adapter)
    missing = _expected_names(completed_run, base_folder) - tensors.keys()
    unmoved = [name for name, tensor in tensors.items() if "lora_B" in name and not tensor.any()]
    measured.record(
        missing_tensor_count=len(missing),
        non_finite_tensor_count=sum(not bool(torch.isfinite(tensor).all()) for tensor in tensors.values()),
        unmoved_lora_b_count=len(unmoved),
        digest_matches=weights_digest(completed_run.adapter) == record["adapter"]["sha256"],
        reloads=_reloads(trained_base, completed_run.adapter, tensors),
        adapter_size_mib=record["adapter"]["size_bytes"] / 2**20,
    )


@pytest.fixture
def base_folder(target: Target, base_model: str | None) -> Path:
    return base_model_folder(target, base_model)


@pytest.fixture
def trained_base(base_folder: Path, target: Target, device: str) -> tuple[Any, Any]:
    """A fresh base model, so that only the adapter's files can restore the training."""
    from pipeline.model.tokenizer import load_tokenizer

    quantization = hardware_preset(PRESETS["golden"], device).quantization
    return load_base(base_folder, quantization, device), load_tokenizer(base_folder, target)


def _read_tensors(adapter: Path) -> dict[str, torch.Tensor]:
    try:
        return load_file(adapter / "adapter_model.safetensors")
    except (OSError, SafetensorError):
        return {}


def _expected_names(run: RunFolder, base_folder: Path) -> set[str]:
    """Tensor names of a complete adapter: LoRA around every matrix of the base's layers, and what is trained beside."""
    tensors, config = tensor_shapes(base_folder), model_config(base_folder)
    root = "base_model.model"
    lora = {
        f"{root}.{name.removesuffix('weight')}lora_{side}.weight" for name in layer_matrices(tensors) for side in "AB"
    }
    embeddings, *head = sorted(vocabulary_matrices(tensors, config), key=lambda name: name in _HEADS)
    if run.read_record()["preset"]["adapter"]["modules_to_save"]:
        return lora | {f"{root}.{embeddings}", f"{root}.{head[0] if head else 'lm_head.weight'}"}
    return lora | {f"{root}.{embeddings.removesuffix('weight')}token_adapter.trainable_tokens_delta"}


_HEADS = ("lm_head.weight", "embed_out.weight")


def _reloads(base: tuple[Any, Any], adapter: Path, tensors: dict[str, torch.Tensor]) -> bool:
    try:
        loaded = get_peft_model_state_dict(apply_adapter(*base, adapter), save_embedding_layers=False)
    except PipelineError:
        return False
    # A golden adapter is trained and saved in float32 but serves in the dtype of its base.
    return loaded.keys() == tensors.keys() and all(
        torch.equal(tensor.cpu(), tensors[name].to(tensor.dtype)) for name, tensor in loaded.items()
    )
