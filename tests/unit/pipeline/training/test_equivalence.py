"""What must come out the same: runs trained in other batches, up to rounding, and answers by either way."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from pipeline.config import PRESETS, Style
from pipeline.data.batches import training_batches
from pipeline.data.encoding import prompt_ids
from pipeline.data.formats import find_sources
from pipeline.data.store import EncodingRequest, encoded_dataset
from pipeline.engines.serial import SerialEngine
from pipeline.files import TRAINING_DATA
from pipeline.generation.generate import Generation, generate_with_style
from pipeline.model.adapter import attach_adapter
from pipeline.model.loading import TrainedModel, hardware_preset, load_base
from pipeline.model.style_embeddings import add_style_rows
from pipeline.run_folder import RunFolder
from pipeline.service.app import create_app
from pipeline.service.lifecycle import Service, ServiceInfo, Settings
from pipeline.training.collation import padded_tensors
from pipeline.training.frozen_head_loss import use_answer_loss
from pipeline.training.train import train
from tests.support import tiny_request

STEPS: dict[str, Any] = {"max_examples": 32}


def trajectory(run: RunFolder) -> list[float]:
    return [value for row in run.read_metrics() for value in (row["loss"], row["grad_norm"])]


@pytest.fixture(scope="module")
def straight(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """Two steps of four micro-batches of four."""
    output = tmp_path_factory.mktemp("straight")
    train(tiny_request(output, **STEPS))
    return RunFolder(output)


@pytest.mark.slow
@pytest.mark.versions
@pytest.mark.parametrize(
    "changed",
    [
        {"micro_batch_size": 16, "accumulation_steps": 1},
        {"micro_batch_size": 1, "accumulation_steps": 16},
        {"micro_batch_size": 8, "accumulation_steps": 2},
        {"pad_to_multiple": 1},
        {"gradient_checkpointing": True},
    ],
    ids=["16 at once", "one at a time", "eight at a time", "unpadded", "checkpointing"],
)
def test_the_same_window_gives_the_same_steps(straight: RunFolder, tmp_path: Path, changed: dict[str, Any]) -> None:
    train(tiny_request(tmp_path, **STEPS, **changed))
    run = RunFolder(tmp_path)
    assert len(run.read_metrics()) == 2
    assert trajectory(run) == pytest.approx(trajectory(straight), rel=5e-3)
    assert run.read_record()["tokens"] == straight.read_record()["tokens"]


@pytest.mark.slow
def test_another_window_gives_other_steps(straight: RunFolder, tmp_path: Path) -> None:
    train(tiny_request(tmp_path, **STEPS, seed=1))
    assert trajectory(RunFolder(tmp_path)) != pytest.approx(trajectory(straight), rel=5e-3)


def test_lean_batches_and_loss_give_the_gradient_of_plain_accumulation(tiny_folder: Path, tiny_tokenizer: Any) -> None:
    preset = hardware_preset(PRESETS["lean"], "cpu")
    request = EncodingRequest(find_sources(TRAINING_DATA), tiny_tokenizer, "equivalence", 2048, 16)
    data = encoded_dataset(request)
    base = load_base(tiny_folder, preset.quantization, "cpu")
    add_style_rows(base, tiny_tokenizer)
    torch.manual_seed(0)
    adapted = attach_adapter(base, tiny_tokenizer, preset).train()
    for name, parameter in adapted.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.02)
    by_tokens = training_batches(list(data["style"]), list(data["length"]), preset.training)
    assert len({len(batch) for batch in by_tokens}) > 1

    def gradient(batches: list[list[int]], multiple: int) -> torch.Tensor:
        adapted.zero_grad()
        rows = [[data[index] for index in batch] for batch in batches]
        inputs = [padded_tensors(batch, tiny_tokenizer.pad_token_id, multiple) for batch in rows]
        labelled = sum(int((batch["labels"][:, 1:] != -100).sum()) for batch in inputs)
        for batch in inputs:
            adapted(**batch, num_items_in_batch=labelled).loss.backward()
        parts = [p.grad.flatten().float() for p in adapted.parameters() if p.requires_grad and p.grad is not None]
        return torch.cat(parts)

    plain = gradient([[index] for index in range(16)], 1)
    use_answer_loss(adapted)
    batched = gradient(by_tokens, preset.training.pad_to_multiple)
    difference = (plain - batched).abs()
    assert plain.abs().max() > 0
    assert difference.max() <= 0.02 * plain.abs().max()
    assert difference.mean() <= 0.02 * plain.abs().mean()
    fewer = gradient([*by_tokens[:-1], by_tokens[0]], preset.training.pad_to_multiple)
    assert (plain - fewer).abs().mean() > 5 * difference.mean()


@pytest.mark.slow
@pytest.mark.parametrize("style", Style)
def test_an_answer_over_http_is_the_answer_in_process(tiny_trained: TrainedModel, style: Style) -> None:
    model, tokenizer = tiny_trained.model, tiny_trained.tokenizer

    def seeded(seed: int) -> Generation:
        torch.manual_seed(seed)
        return generate_with_style(model, tokenizer, "What is rate limiting?", style)

    engine = SerialEngine(model, tokenizer)
    info = ServiceInfo("tiny", "abc", lambda: 0.0, lambda prompt: len(prompt_ids(tokenizer, prompt)), 1024)
    expected = seeded(3)
    torch.manual_seed(3)
    body = {"prompt": "What is rate limiting?", "style": style}
    service = Service(Settings())
    service.ready(engine, info)
    answer = create_app(service).test_client().post("/generate", json=body).get_json()
    engine.close()
    assert (answer["response"], answer["tokens"]) == (expected.text, expected.token_count)
    assert seeded(4).text != expected.text
