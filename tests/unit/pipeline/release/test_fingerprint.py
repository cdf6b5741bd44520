"""Each thing that decides how a model answers changes its own field of the identity and no other."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import pipeline.model.base_models
import pipeline.release.fingerprint
from pipeline.config import GENERATION_PRESETS, PRESETS, Style
from pipeline.errors import PipelineError
from pipeline.release.fingerprint import environment_identity, identity, run_identity
from pipeline.run_folder import VERSIONED_PACKAGES, RunFolder

DIGESTS = {
    "adapter_sha256",
    "adapter_config_sha256",
    "base_model_sha256",
    "base_config_sha256",
    "tokenizer_sha256",
    "chat_template_sha256",
    "quantization_sha256",
    "generation_sha256",
    "data_sha256",
}


@pytest.fixture
def run(tiny_run: RunFolder, tmp_path: Path) -> RunFolder:
    shutil.copytree(tiny_run.path, tmp_path / "run")
    return RunFolder(tmp_path / "run")


@pytest.fixture
def base(tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A base model that a test may change."""
    folder = tmp_path / "base"
    shutil.copytree(tiny_folder, folder)
    monkeypatch.setattr(pipeline.model.base_models, "base_model_folder", lambda target, base_model: folder)
    return folder


def changed(before: dict[str, Any], after: dict[str, Any]) -> set[str]:
    assert before.keys() == after.keys()
    return {name for name in before if before[name] != after[name]}


def test_it_names_every_part_and_repeats(tiny_run: RunFolder, tiny_tokenizer: Any) -> None:
    named = identity(tiny_run)
    record = tiny_run.read_record()
    assert named.keys() == DIGESTS | {"target", "style_token_ids", "environment"}
    assert all(len(named[name]) == 64 for name in DIGESTS)
    assert len({named[name] for name in DIGESTS}) == len(DIGESTS)
    assert named["target"] == "tiny-mistral"
    assert named["adapter_sha256"] == record["adapter"]["sha256"]
    assert named["base_model_sha256"] == record["base_model_sha256"]
    assert named["data_sha256"] == record["data"]["sha256"]
    assert named["style_token_ids"] == [tiny_tokenizer.convert_tokens_to_ids(style.token) for style in Style]
    assert named["environment"]["device"] == "cpu"
    assert named["environment"]["gpu"] is None
    assert named["environment"]["packages"].keys() == set(VERSIONED_PACKAGES)
    assert json.loads(json.dumps(named)) == identity(tiny_run)


def flip_last_byte(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))


def edit_json(path: Path, edit: Callable[[Any], object]) -> None:
    value = json.loads(path.read_text(encoding="utf-8"))
    edit(value)
    path.write_text(json.dumps(value), encoding="utf-8")


RUN_CHANGES: dict[str, Callable[[RunFolder], object]] = {
    "adapter_sha256": lambda run: flip_last_byte(run.adapter / "adapter_model.safetensors"),
    "adapter_config_sha256": lambda run: edit_json(run.adapter / "adapter_config.json", lambda c: c.update(r=8)),
    "data_sha256": lambda run: edit_json(run.record_file, lambda record: record["data"].update(sha256="0" * 64)),
    "target": lambda run: edit_json(run.record_file, lambda record: record.update(target="smollm2-135m")),
    "quantization_sha256": lambda run: edit_json(
        run.record_file, lambda record: record["preset"]["quantization"].update(quant_type="fp4")
    ),
}


@pytest.mark.parametrize("name", RUN_CHANGES)
def test_a_change_of_the_run_changes_its_own_field(name: str, run: RunFolder) -> None:
    before = run_identity(run)
    RUN_CHANGES[name](run)
    assert changed(before, run_identity(run)) == {name}


BASE_CHANGES: dict[str, Callable[[Path], object]] = {
    "base_model_sha256": lambda base: flip_last_byte(base / "model-00001-of-00003.safetensors"),
    "base_config_sha256": lambda base: edit_json(base / "config.json", lambda config: config.update(rms_norm_eps=0.1)),
    "tokenizer_sha256": lambda base: edit_json(base / "tokenizer_config.json", lambda c: c.update(remark="other")),
}


@pytest.mark.parametrize("name", BASE_CHANGES)
def test_a_change_of_the_base_model_changes_its_own_field(name: str, tiny_run: RunFolder, base: Path) -> None:
    before = identity(tiny_run)
    BASE_CHANGES[name](base)
    assert changed(before, identity(tiny_run)) == {name}


def test_a_chat_template_counts_wherever_it_lies(tiny_run: RunFolder, base: Path) -> None:
    before = identity(tiny_run)
    edit_json(base / "tokenizer_config.json", lambda config: config.update(chat_template="{{ messages }}"))
    assert changed(before, identity(tiny_run)) == {"chat_template_sha256", "tokenizer_sha256"}


def test_who_wrote_the_config_does_not_count(tiny_run: RunFolder, base: Path) -> None:
    before = identity(tiny_run)
    edit_json(base / "config.json", lambda config: config.update(transformers_version="4.54.0"))
    assert identity(tiny_run) == before


def test_the_pipelines_own_settings_count(tiny_run: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    before = run_identity(tiny_run)
    longer = replace(GENERATION_PRESETS[Style.TERSE], max_new_tokens=48)
    monkeypatch.setattr(pipeline.release.fingerprint, "GENERATION_PRESETS", {**GENERATION_PRESETS, Style.TERSE: longer})
    assert changed(before, run_identity(tiny_run)) == {"generation_sha256"}

    lean = replace(PRESETS["lean"], quantization=replace(PRESETS["lean"].quantization, double_quant=False))
    monkeypatch.setattr(pipeline.release.fingerprint, "PRESETS", {**PRESETS, "lean": lean})
    assert changed(before, run_identity(tiny_run)) == {"generation_sha256", "quantization_sha256"}


def test_the_environment_is_this_machine(tiny_run: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "a GPU")
    on_gpu = {"device": "cuda", "gpu": "a GPU", "compute_dtype": "bfloat16"}
    assert environment_identity(tiny_run, "cuda").items() >= on_gpu.items()
    assert environment_identity(tiny_run)["device"] == "cpu"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert environment_identity(tiny_run, "cuda") == environment_identity(tiny_run, "cpu")


def test_an_incomplete_run_has_no_identity(run: RunFolder) -> None:
    run.update(status="failed")
    with pytest.raises(PipelineError, match="the run is failed, not completed"):
        identity(run)


@pytest.mark.parametrize("name", ["status", "target", "preset", "data"])
def test_a_record_that_lacks_something_is_named(name: str, run: RunFolder) -> None:
    edit_json(run.record_file, lambda record: record.pop(name))
    with pytest.raises(PipelineError, match=rf"run\.json: has no '{name}'"):
        run_identity(run)


def test_an_unknown_preset_is_named(run: RunFolder) -> None:
    edit_json(run.record_file, lambda record: record["preset"].update(name="mine"))
    with pytest.raises(PipelineError, match=r"run\.json: preset\.name is 'mine', not one of: golden, lean"):
        run_identity(run)


def test_an_adapter_without_weights_is_named(run: RunFolder) -> None:
    (run.adapter / "adapter_model.safetensors").unlink()
    with pytest.raises(PipelineError, match=r"no \*\.safetensors file found"):
        run_identity(run)


def test_a_copy_elsewhere_has_the_same_identity(tiny_run: RunFolder, run: RunFolder) -> None:
    assert identity(run) == identity(tiny_run)
