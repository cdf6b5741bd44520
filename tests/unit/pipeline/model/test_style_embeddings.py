from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from peft.tuners.trainable_tokens import TrainableTokensLayer

from pipeline.config import PRESETS, Style
from pipeline.model.adapter import attach_adapter
from pipeline.model.loading import hardware_preset, load_base
from pipeline.model.style_embeddings import add_style_rows
from pipeline.model.tokenizer import style_token_ids

LEAN = hardware_preset(PRESETS["lean"], "cpu")


@pytest.fixture
def layer(tiny_folder: Path, tiny_tokenizer: Any) -> Any:
    base = load_base(tiny_folder, LEAN.quantization, "cpu")
    add_style_rows(base, tiny_tokenizer)
    adapted = attach_adapter(base, tiny_tokenizer, LEAN)
    (found,) = (module for module in adapted.modules() if isinstance(module, TrainableTokensLayer))
    with torch.no_grad():
        found.trainable_tokens_delta["default"].normal_()
    return found


@pytest.fixture
def ids(tiny_tokenizer: Any) -> torch.Tensor:
    terse, verbose = style_token_ids(tiny_tokenizer)
    return torch.tensor([[1, verbose, 40, 41, terse], [1, terse, terse, 7, 40]])


def vectors_and_gradient(embed: Any, layer: Any, ids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    rows = layer.trainable_tokens_delta["default"]
    rows.grad = None
    vectors = embed(ids)
    (vectors.float() * torch.arange(vectors[0].numel()).view_as(vectors[0])).sum().backward()
    assert rows.grad is not None
    return vectors.detach(), rows.grad


def test_rows_and_their_gradient_are_those_of_the_full_matrix(layer: Any, ids: torch.Tensor) -> None:
    vectors, gradient = vectors_and_gradient(layer, layer, ids)
    expected_vectors, expected_gradient = vectors_and_gradient(
        lambda x: TrainableTokensLayer.forward(layer, x), layer, ids
    )
    assert torch.equal(vectors, expected_vectors)
    assert gradient.abs().min() > 0
    assert torch.allclose(gradient, expected_gradient, rtol=1e-2)


def test_the_full_matrix_is_not_copied(layer: Any, ids: torch.Tensor) -> None:
    saved: list[torch.Tensor] = []

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        saved.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        layer(ids)
    assert max(tensor.numel() for tensor in saved) < layer.base_layer.weight.numel() / 1000


def test_without_the_adapter_the_base_rows_are_looked_up(layer: Any, ids: torch.Tensor) -> None:
    layer.enable_adapters(False)
    assert torch.equal(layer(ids), layer.base_layer(ids))
    layer.enable_adapters(True)
    assert not torch.equal(layer(ids), layer.base_layer(ids))


def test_style_token_ids_follow_the_styles(tiny_tokenizer: Any) -> None:
    assert tiny_tokenizer.convert_ids_to_tokens(style_token_ids(tiny_tokenizer)) == [style.token for style in Style]
