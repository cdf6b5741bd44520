"""The padding-free path: the loss and the gradients of a whole window, as plain accumulation gives them."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from pipeline.config import PRESETS
from pipeline.data.formats import find_sources
from pipeline.data.store import EncodingRequest, encoded_dataset
from pipeline.files import TRAINING_DATA
from pipeline.model import loading
from pipeline.model.adapter import attach_adapter
from pipeline.model.loading import hardware_preset, load_base
from pipeline.model.style_embeddings import add_style_rows
from pipeline.run_folder import RunFolder
from pipeline.training.collation import packed_tensors, padded_tensors, split_row
from pipeline.training.packed_model import PackedModel
from pipeline.training.packed_step import PackedStep
from pipeline.training.train import train
from tests.support import tiny_request, torch_threads

EXAMPLES = 16


@pytest.fixture(scope="module")
def data(tiny_tokenizer: Any) -> Any:
    return encoded_dataset(EncodingRequest(find_sources(TRAINING_DATA), tiny_tokenizer, "packed", 2048, EXAMPLES))


@pytest.fixture
def adapted(tiny_folder: Path, tiny_tokenizer: Any) -> Any:
    """The tiny model with an adapter that adds something, in this CPU's arithmetic."""
    return adapted_model(tiny_folder, tiny_tokenizer)


def adapted_model(tiny_folder: Path, tiny_tokenizer: Any) -> Any:
    preset = hardware_preset(PRESETS["lean"], "cpu")
    base = load_base(tiny_folder, preset.quantization, "cpu")
    add_style_rows(base, tiny_tokenizer)
    torch.manual_seed(0)
    model = attach_adapter(base, tiny_tokenizer, preset).train()
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.02)
    return model


def flat_gradient(model: Any) -> torch.Tensor:
    return torch.cat([p.grad.flatten().float() for p in model.parameters() if p.requires_grad])


def plain_accumulation(model: Any, data: Any, pad_id: int) -> tuple[float, torch.Tensor]:
    """One example at a time through the model as PEFT made it."""
    batches = [padded_tensors([data[index]], pad_id) for index in range(EXAMPLES)]
    labelled = sum(int((batch["labels"][:, 1:] != -100).sum()) for batch in batches)
    total = 0.0
    model.zero_grad()
    for batch in batches:
        loss = model(**batch, num_items_in_batch=labelled).loss
        loss.backward()
        total += loss.item()
    return total, flat_gradient(model)


def packed(
    model: Any, data: Any, pad_id: int, rows: Sequence[Sequence[int]], checkpointed: int = 0
) -> tuple[float, torch.Tensor]:
    head = model.get_base_model().get_output_embeddings().weight
    step = PackedStep(PackedModel(model, head, 2048, checkpointed), [])
    batches = [packed_tensors([data[index] for index in row], pad_id, [2048], EXAMPLES) for row in rows]
    labelled = sum(int((batch["labels"][:, 1:] != -100).sum()) for batch in batches)
    model.zero_grad()
    total = sum(step(batch, labelled).item() for batch in batches)
    return total, flat_gradient(model)


@pytest.mark.parametrize("checkpointed", [0, 1], ids=["all kept", "a layer computed again"])
@pytest.mark.parametrize("rows", [[range(16)], [range(5), range(5, 16)]], ids=["one row", "two rows"])
def test_a_window_gives_the_gradient_of_plain_accumulation(
    adapted: Any, data: Any, tiny_tokenizer: Any, rows: Sequence[Sequence[int]], checkpointed: int
) -> None:
    loss, gradient = plain_accumulation(adapted, data, tiny_tokenizer.pad_token_id)
    packed_loss, packed_gradient = packed(adapted, data, tiny_tokenizer.pad_token_id, rows, checkpointed)
    assert packed_loss == pytest.approx(loss, rel=2e-3)
    difference = (gradient - packed_gradient).norm() / gradient.norm()
    assert difference < 0.02


def test_in_float32_the_gradients_are_equal(
    tiny_folder: Path, tiny_tokenizer: Any, data: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loading, "cpu_compute_dtype", lambda: "float32")
    model = adapted_model(tiny_folder, tiny_tokenizer)
    loss, gradient = plain_accumulation(model, data, tiny_tokenizer.pad_token_id)
    packed_loss, packed_gradient = packed(model, data, tiny_tokenizer.pad_token_id, [range(16)])
    assert packed_loss == pytest.approx(loss, rel=1e-5)
    assert (gradient - packed_gradient).norm() < 1e-5 * gradient.norm()


def test_three_cores_give_the_gradient_of_one(
    tiny_folder: Path, tiny_tokenizer: Any, data: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loading, "cpu_compute_dtype", lambda: "float32")
    model = adapted_model(tiny_folder, tiny_tokenizer)
    with torch_threads(1):
        alone, gradient = packed(model, data, tiny_tokenizer.pad_token_id, [range(16)])
    with torch_threads(3):
        loss, shared = packed(model, data, tiny_tokenizer.pad_token_id, [range(16)])
        again = packed(model, data, tiny_tokenizer.pad_token_id, [range(16)])
        assert torch.get_num_threads() == 3
    assert loss == pytest.approx(alone, rel=1e-5)
    assert (gradient - shared).norm() < 1e-5 * gradient.norm()
    assert again[0] == loss
    assert torch.equal(again[1], shared)


def test_a_row_is_split_evenly_and_keeps_each_example(data: Any) -> None:
    indices = range(7)
    row = packed_tensors([data[index] for index in indices], 0, [2048], EXAMPLES)
    shares = split_row(row, 3)
    tokens = [int(share["starts"][-1]) for share in shares]
    assert sum(tokens) == sum(data[index]["length"] for index in indices)
    assert max(tokens) - min(tokens) <= max(data[index]["length"] for index in indices)
    texts = [
        share["input_ids"][0, start:end].tolist()
        for share in shares
        for start, end in itertools.pairwise(share["starts"].tolist())
    ]
    assert sorted(texts) == sorted(list(data[index]["input_ids"]) for index in indices)
    assert all(share["position_ids"][0, start] == 0 for share in shares for start in share["starts"][:-1])
    assert len(split_row(row, 20)) == len(indices)


@pytest.mark.slow
@pytest.mark.versions
def test_the_trajectory_is_that_of_padded_micro_batches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loading, "cpu_compute_dtype", lambda: "float32")
    train(tiny_request(tmp_path / "padded", max_examples=48, padding_free=False))
    padded = RunFolder(tmp_path / "padded").read_metrics()
    train(tiny_request(tmp_path / "packed", max_examples=48))
    rows = RunFolder(tmp_path / "packed").read_metrics()
    assert [row["tokens"] for row in rows] == [row["tokens"] for row in padded]
    assert [row["loss"] for row in rows] == pytest.approx([row["loss"] for row in padded], rel=2e-3)
    assert [row["grad_norm"] for row in rows] == pytest.approx([row["grad_norm"] for row in padded], rel=1e-2)
