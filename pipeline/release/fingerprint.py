"""The fingerprint of a verdict: digests of everything that affects a model's answers, and where it was judged."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from typing import Any

from pipeline.config import GENERATION_PRESETS, PRESETS
from pipeline.errors import PipelineError
from pipeline.files import sha256_of, weights_digest
from pipeline.model.base_models import open_base_model
from pipeline.model.identity import base_config, tokenizer_files
from pipeline.run_folder import RunFolder, package_versions
from pipeline.targets import recorded_target


def identity(run: RunFolder, *, base_model: str | None = None, device: str | None = None) -> dict[str, Any]:
    """Everything that a verdict about a run is bound to.

    Args:
        run: A completed run.
        base_model: Folder of the base weights, for targets with local weights.
        device: ``cpu`` or ``cuda``, where the model runs; None takes the run's own.

    Returns:
        JSON values: ``target``, one ``*_sha256`` for each part, ``style_token_ids``, and ``environment`` with
        ``device``, ``gpu``, ``compute_dtype`` and ``packages``.

    Raises:
        PipelineError: The run is not completed, or the base weights are missing.
    """
    return {**run_identity(run), **base_identity(run, base_model), "environment": environment_identity(run, device)}


def run_identity(run: RunFolder) -> dict[str, Any]:
    """The part of ``identity`` that depends on the run folder and the pipeline's settings.

    Raises:
        PipelineError: The run is not completed, or its record or adapter is incomplete.
    """
    record = run.read_record()
    if _recorded(run, record, "status") != "completed":
        raise PipelineError(f"{run.path}: the run is {record['status']}, not completed; finish the training first.")
    preset = _recorded(run, record, "preset")
    quantization = {
        "trained": _recorded(run, preset, "quantization"),
        # Loading uses the preset of the installed pipeline, which may have changed since training.
        "loaded": dataclasses.asdict(_installed_preset(run, preset).quantization),
    }
    generation = {style: dataclasses.asdict(config) for style, config in GENERATION_PRESETS.items()}
    return {
        "target": recorded_target(record, run.record_file).name,
        "adapter_sha256": weights_digest(run.adapter),
        "adapter_config_sha256": sha256_of(run.adapter / "adapter_config.json"),
        "quantization_sha256": _canonical_sha256(quantization),
        "generation_sha256": _canonical_sha256(generation),
        "data_sha256": _recorded(run, _recorded(run, record, "data"), "sha256"),
    }


def base_identity(run: RunFolder, base_model: str | None = None) -> dict[str, Any]:
    """The part of ``identity`` that depends on the base model's folder.

    Raises:
        PipelineError: The base weights or their tokenizer are missing.
    """
    from pipeline.model.tokenizer import style_token_ids

    base = open_base_model(recorded_target(run.read_record(), run.record_file), base_model)
    folder, tokenizer = base.folder, base.tokenizer
    return {
        "base_model_sha256": weights_digest(folder),
        "base_config_sha256": _canonical_sha256(base_config(folder)),
        "tokenizer_sha256": sha256_of(*tokenizer_files(folder)),
        "chat_template_sha256": _canonical_sha256(tokenizer.chat_template),
        "style_token_ids": style_token_ids(tokenizer),
    }


def environment_identity(run: RunFolder, device: str | None = None) -> dict[str, Any]:
    """The part of ``identity`` about where the model runs: device, GPU, compute dtype and package versions.

    Args:
        run: The run.
        device: ``cpu`` or ``cuda``; None takes the run's own. Without a GPU the result is always ``cpu``.

    Raises:
        PipelineError: The run's record is incomplete.
    """
    import torch

    from pipeline.model.loading import hardware_preset

    record = run.read_record()
    wanted = device or _recorded(run, record, "device")
    actual = "cuda" if wanted == "cuda" and torch.cuda.is_available() else "cpu"
    preset = hardware_preset(_installed_preset(run, _recorded(run, record, "preset")), actual)
    return {
        "device": actual,
        "gpu": torch.cuda.get_device_name() if actual == "cuda" else None,
        "compute_dtype": preset.quantization.compute_dtype,
        "packages": package_versions(),
    }


def _recorded(run: RunFolder, fields: Any, name: str) -> Any:
    if not isinstance(fields, dict) or name not in fields:
        raise PipelineError(f"{run.record_file}: has no {name!r}; restore the file or train again.")
    return fields[name]


def _installed_preset(run: RunFolder, preset: Any) -> Any:
    name = _recorded(run, preset, "name")
    if name not in PRESETS:
        raise PipelineError(f"{run.record_file}: preset.name is {name!r}, not one of: {', '.join(PRESETS)}.")
    return PRESETS[name]


def _canonical_sha256(value: object) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
