"""The two style tokens' rows of the embeddings: how they start, and how a model looks them up."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
from peft.tuners.trainable_tokens import TrainableTokensLayer
from torch.nn import functional

from pipeline.config import STYLE_WORDS, Style


def add_style_rows(model: Any, tokenizer: Any, words: Mapping[str, str] = STYLE_WORDS) -> None:
    """Grow the embeddings by the style tokens, each row starting from the mean of words that describe it.

    transformers starts new rows almost identical to each other, which made the styles hard to tell apart.

    Args:
        model: A base model.
        tokenizer: Its tokenizer, style tokens added.
        words: The target's words for each style.
    """
    if model.get_input_embeddings().weight.shape[0] < len(tokenizer):
        model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    # A tied head stays tied to the base's rows but not to the trained ones: style tokens stand only in prompts, which
    # carry no loss, and a trained head would cost a gradient as large as the vocabulary in every micro-batch.
    model.config.tie_word_embeddings = False
    matrices = {id(part.weight): part.weight for part in (model.get_input_embeddings(), model.get_output_embeddings())}
    with torch.no_grad():
        for style in Style:
            row = tokenizer.convert_tokens_to_ids(style.token)
            ids = tokenizer(words[style], add_special_tokens=False)["input_ids"]
            for weight in matrices.values():
                weight[row] = weight[ids].float().mean(dim=0).to(weight.dtype)


def replace_rows_after_lookup(model: Any) -> None:
    """Let a model with trained rows look tokens up in the base's embeddings and replace theirs, which is the same.

    PEFT copies the whole matrix, the rows put in, for every call, and its gradient is as large: on the embedded target
    56 MB each, a tenth of the time of a micro-batch; on Mistral 268 MB.
    """
    for module in model.modules():
        if isinstance(module, TrainableTokensLayer):
            module.forward = partial(_look_up, module, module.forward)


def _look_up(layer: Any, whole_matrix: Any, input_ids: torch.Tensor) -> torch.Tensor:
    if layer.disable_adapters or layer.merged or layer.active_adapters != ["default"]:
        looked_up: torch.Tensor = whole_matrix(input_ids)
        return looked_up
    vectors = layer.base_layer(input_ids)
    rows = layer.trainable_tokens_delta["default"].to(vectors.dtype)
    if (scale := getattr(layer.base_layer, "embed_scale", None)) is not None:  # Gemma's embeddings scale what they give
        rows = rows * scale
    # Compared with numbers: a tensor of the ids would be copied from the host for every call, and into no CUDA graph.
    matches = torch.stack([input_ids == index for index in layer.token_indices["default"]], dim=-1)
    replaced = functional.embedding(matches.int().argmax(dim=-1), rows)
    return torch.where(matches.any(dim=-1, keepdim=True), replaced, vectors)
