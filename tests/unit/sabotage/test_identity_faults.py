"""What changes an answer is refused when the run is loaded and when its verdict is verified, and the field is named."""

from __future__ import annotations

import dataclasses
import importlib
import importlib.metadata
import json
import logging
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

import pipeline.model.base_models
from harness.seal import KEY_VARIABLE, seal
from pipeline.cli import main
from pipeline.config import TARGETS
from pipeline.errors import PipelineError
from pipeline.files import write_json
from pipeline.model.identity import RECORDED, adapter_settings
from pipeline.model.loading import load_trained, load_untrained
from pipeline.release.fingerprint import identity
from pipeline.release.verify import check_verdict
from pipeline.run_folder import RunFolder
from sabotage.faults import FAULTS
from sabotage.replacing import holders_of
from tests.verdict_files import accepted_subject, document

ADAPTER = {
    "rank-scaled": r"adapter_config\.use_rslora true, was false",
    "alpha-doubled": r"adapter_config\.lora_alpha 64, was 32",
    "modules-dropped": r"adapter_config\.target_modules \[",
}
BASE = {
    "template-changed": ("chat_template_sha256 ", "chat_template_sha256"),
    "eos-changed": (r"special_tokens\.eos 0, was 2", "tokenizer_sha256"),
    "tokenizer-changed": (r"tokenizer_files\.tokenizer_config\.json ", "tokenizer_sha256"),
    "rope-changed": (r"base_config\.rope\w+", "base_config_sha256"),
    "base-twin": ("base_model_sha256 ", "base_model_sha256"),
}


@pytest.fixture
def run(tiny_run: RunFolder, tmp_path: Path) -> RunFolder:
    shutil.copytree(tiny_run.path, tmp_path / "run")
    return RunFolder(tmp_path / "run")


@pytest.fixture
def verdict(tiny_run: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The verdict about the healthy run."""
    monkeypatch.delenv(KEY_VARIABLE, raising=False)
    write_json(tmp_path / "verdict.json", seal(accepted_subject(identity(tiny_run)), document(), None))
    return tmp_path / "verdict.json"


@pytest.fixture
def inject(verdict: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Puts a twin in the place of the base, once the verdict is written; the original comes back after the test."""
    original = pipeline.model.base_models.base_model_folder
    for holder in holders_of(original, original.__name__):
        monkeypatch.setattr(holder, original.__name__, original)

    def put(name: str) -> None:
        change = FAULTS[name].inject
        assert change
        change()

    return put


def damage(name: str, run: RunFolder) -> None:
    change = FAULTS[name].damage
    assert change
    change(run)


@pytest.mark.parametrize("name", ADAPTER)
def test_an_edited_adapter_configuration_is_refused(name: str, run: RunFolder, verdict: Path) -> None:
    damage(name, run)
    with pytest.raises(
        PipelineError, match=rf"not as it was trained \({ADAPTER[name]}.*; restore .*adapter_config\.json"
    ):
        load_trained(run)
    (complaint,) = check_verdict(verdict, run)
    assert complaint.startswith("identity.adapter_config_sha256: stale")


@pytest.mark.parametrize(
    "name", ["truncated", "adapter-of-another-base", "rows-lost", "tensor-lost", "tensors-empty", "weights-pickled"]
)
def test_a_damaged_adapter_is_refused(name: str, run: RunFolder) -> None:
    damage(name, run)
    with pytest.raises(PipelineError, match="adapter"):
        load_trained(run)


@pytest.mark.slow
@pytest.mark.parametrize("name", BASE)
def test_another_base_is_refused(name: str, run: RunFolder, verdict: Path, inject: Callable[[str], None]) -> None:
    inject(name)
    message, field = BASE[name]
    for load in (load_trained, load_untrained):
        with pytest.raises(PipelineError, match=rf"not as it was trained \(.*{message}.*--base-model, or train again"):
            load(run)
    assert f"identity.{field}" in {complaint.partition(":")[0] for complaint in check_verdict(verdict, run)}


@pytest.mark.parametrize("command", ["serve", "serve remote", "generate", "export"])
def test_no_command_answers_with_an_edited_configuration(
    command: str, run: RunFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    damage("alpha-doubled", run)
    options = {
        "serve": ["--port", "0"],
        "serve remote": [
            "--port",
            "0",
            "--engine",
            "remote",
            "--remote-url",
            "http://127.0.0.1:9/v1",
            "--remote-model",
            "m",
        ],
        "generate": ["--prompt", "What is caching?", "--style", "terse"],
        "export": ["--output", str(run.path / "exported")],
    }
    assert main([command.split()[0], "--run", str(run.path), *options[command]]) == 1
    assert "adapter_config.lora_alpha 64, was 32" in capsys.readouterr().err


def test_limits_of_another_version_are_refused(run: RunFolder) -> None:
    recorded = run.read_record()[RECORDED]
    recorded["generation"]["verbose"]["temperature"] = 1.0
    run.update(**{RECORDED: recorded})
    with pytest.raises(PipelineError, match=r"generation\.verbose\.temperature 0\.7, was 1\.0"):
        load_trained(run)


@pytest.mark.parametrize("name", ["modules-dropped", "tensor-surplus"])
def test_tensors_that_the_model_does_not_take_are_refused_even_if_the_record_agrees(name: str, run: RunFolder) -> None:
    damage(name, run)
    run.update(**{RECORDED: {**run.read_record()[RECORDED], **adapter_settings(run.adapter)}})
    with pytest.raises(PipelineError, match=r"the model does not take \d+ of its tensors, base_model\S+ among them"):
        load_trained(run)


def test_an_earlier_versions_run_is_loaded_and_what_is_unknown_is_said(
    run: RunFolder, caplog: pytest.LogCaptureFixture
) -> None:
    record = json.loads(run.record_file.read_text(encoding="utf-8"))
    del record[RECORDED]
    write_json(run.record_file, record)
    with caplog.at_level(logging.WARNING):
        load_trained(run)
    (message,) = [entry.getMessage() for entry in caplog.records if entry.name == "pipeline.model.identity"]
    assert "without 'identity'" in message
    assert "adapter_config.json are those of the training is unknown" in message


def test_an_earlier_versions_run_still_needs_its_base(run: RunFolder, inject: Callable[[str], None]) -> None:
    record = json.loads(run.record_file.read_text(encoding="utf-8"))
    del record[RECORDED]
    write_json(run.record_file, record)
    inject("base-twin")
    with pytest.raises(PipelineError, match="base_model_sha256"):
        load_trained(run)


def test_every_fault_replaces_what_the_pipeline_has(monkeypatch: pytest.MonkeyPatch) -> None:
    """A renamed function would leave a fault without effect, or end it before the gate sees it."""
    places: list[str] = []
    # Some faults change a target's settings.
    copies = {name: dataclasses.replace(target, lean=dict(target.lean)) for name, target in TARGETS.items()}
    monkeypatch.setattr("sabotage.training.TARGETS", copies)
    for module in ("answering", "bases", "other_servers", "serving", "training"):
        monkeypatch.setattr(f"sabotage.{module}.replace", lambda place, broken: places.append(place))
    for fault in FAULTS.values():
        if fault.inject:
            fault.inject()
    assert len(places) > 40
    for place in places:
        module, _, attribute = place.partition(":")
        assert hasattr(importlib.import_module(module), attribute), place
