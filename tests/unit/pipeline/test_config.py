from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from pipeline.config import (
    GENERATION_PRESETS,
    PRESETS,
    TARGETS,
    AdapterConfig,
    GenerationConfig,
    QuantizationConfig,
    Style,
    TrainingConfig,
    get_target,
    resolve_preset,
)
from pipeline.environment import GOLDEN_VARIABLES
from pipeline.errors import PipelineError

DOCUMENTED = {
    "quantization": {"load_in_4bit": True, "quant_type": "nf4", "double_quant": True, "compute_dtype": "bfloat16"},
    "adapter": {
        "rank": 16,
        "alpha": 32,
        "dropout": 0.05,
        "bias": "none",
        "target_modules": ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"),
        "modules_to_save": ("embed_tokens", "lm_head"),
    },
    "training": {
        "micro_batch_size": 1,
        "accumulation_steps": 16,
        "learning_rate": 2e-4,
        "lr_scheduler": "cosine",
        "warmup_ratio": 0.03,
        "epochs": 1,
        "bf16": True,
        "gradient_checkpointing": True,
        "optimizer": "adamw_torch",
        "logging_steps": 25,
        "save_steps": 500,
        "save_total_limit": 2,
        "completion_only_loss": True,
        "packing": False,
        "loader_workers": 2,
        "pin_memory": False,
    },
}


@pytest.mark.parametrize("target_name", TARGETS)
def test_golden_is_the_documented_configuration_on_every_target(target_name: str) -> None:
    resolved = resolve_preset("golden", TARGETS[target_name]).describe()
    for part, fields in DOCUMENTED.items():
        assert {name: resolved[part][name] for name in fields} == fields


def test_generation_presets_are_the_documented_ones() -> None:
    terse, verbose = GENERATION_PRESETS[Style.TERSE], GENERATION_PRESETS[Style.VERBOSE]
    assert (terse.temperature, terse.top_p, terse.min_new_tokens, terse.max_new_tokens) == (0.1, 0.95, 0, 32)
    assert (verbose.temperature, verbose.top_p, verbose.min_new_tokens, verbose.max_new_tokens) == (0.7, 0.9, 64, 256)
    assert terse.top_k == verbose.top_k == 0


def test_golden_environment_is_the_documented_one() -> None:
    assert GOLDEN_VARIABLES == {
        "CUDA_VISIBLE_DEVICES": "0",
        "ACCELERATE_USE_DEEPSPEED": "0",
        "ACCELERATE_USE_FSDP": "0",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "PYTORCH_CUDA_ALLOC_CONF": "expandable_segments:True",
    }


@pytest.mark.parametrize("kind", [QuantizationConfig, AdapterConfig, TrainingConfig, GenerationConfig])
def test_every_setting_says_its_unit_and_source(kind: type[Any]) -> None:
    for field in dataclasses.fields(kind):
        assert field.metadata["unit"], field.name
        assert field.metadata["source"], field.name


def test_lean_keeps_the_window_of_sixteen_examples() -> None:
    assert PRESETS["lean"].training.window_examples == PRESETS["golden"].training.window_examples == 16


@pytest.mark.parametrize(
    ("fields", "message"),
    [({"packing": True}, "packing"), ({"completion_only_loss": False}, "completion_only"), ({"epochs": 0}, "epochs")],
)
def test_what_the_pipeline_does_not_do_is_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(PipelineError, match=message):
        TrainingConfig(**fields)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"learning_rate": float("nan")}, "learning_rate must be a positive number, not nan."),
        ({"learning_rate": float("inf")}, "learning_rate must be a positive number, not inf."),
        ({"learning_rate": -1.0}, "learning_rate must be a positive number, not -1.0."),
        ({"learning_rate": 0.0}, "learning_rate must be a positive number, not 0.0."),
        ({"seed": -1}, "seed must be from 0 to 4294967295, not -1."),
        ({"seed": 2**32}, "seed must be from 0 to 4294967295, not 4294967296."),
        ({"max_examples": 0}, "max_examples must be at least 1, not 0."),
    ],
)
def test_a_number_out_of_range_is_refused_with_its_field(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(PipelineError) as refusal:
        resolve_preset("lean", TARGETS["tiny-mistral"], **fields)
    assert str(refusal.value) == message


def test_unknown_names_are_answered_with_the_choices() -> None:
    with pytest.raises(PipelineError, match="smollm2-135m"):
        get_target("gpt-5")
    with pytest.raises(PipelineError, match="golden, lean"):
        resolve_preset("fast", TARGETS["tiny-mistral"])
