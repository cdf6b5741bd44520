"""What is read from a base's folder decides how it is trained."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.config import PRESETS, TARGETS, resolve_preset
from pipeline.model.architecture import Architecture
from pipeline.model.base_models import base_model_folder, open_for_planning


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("name", ["mistral-7b-v0.3", "tiny-mistral", "smollm2-135m"])
def test_the_projects_targets_train_as_documented(preset: str, name: str) -> None:
    documented = resolve_preset(preset, TARGETS[name])
    with open_for_planning(TARGETS[name]) as base:
        assert base.fit(documented) == documented


def test_prepared_weights_have_the_documented_names(tiny_folder: Path) -> None:
    documented = PRESETS["golden"].adapter
    found = Architecture.of_folder(tiny_folder)
    assert found.projections == documented.target_modules
    assert (found.embeddings, found.head) == documented.modules_to_save
    assert found.packs
    assert tiny_folder == base_model_folder(TARGETS["tiny-mistral"])


@pytest.mark.parametrize(
    ("name", "change", "packs"),
    [
        ("llama", {}, True),
        ("llama", {"attention_bias": True}, False),
        ("llama", {"mlp_bias": True}, False),
        ("llama", {"hidden_act": "gelu"}, False),
        ("mistral", {}, False),  # a sliding window
        ("mistral", {"sliding_window": None}, True),
        ("qwen2", {}, False),
        ("phi3", {}, False),
    ],
)
def test_rows_are_packed_only_where_the_packed_layers_are_the_models(
    name: str, change: dict[str, object], packs: bool, base_of: Callable[[str], Path], tmp_path: Path
) -> None:
    config = json.loads((base_of(name) / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, **change}))
    (tmp_path / "model.safetensors").symlink_to(base_of(name) / "model.safetensors")
    preset = Architecture.of_folder(tmp_path).fit(PRESETS["lean"])
    assert preset.training.padding_free is packs
