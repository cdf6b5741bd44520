"""A model that answers the same alone and among others."""

from __future__ import annotations

import torch

from pipeline.model.dequantize import unpack
from pipeline.model.loading import LoadedModel, load_trained
from pipeline.run_folder import RunFolder


def exact_model(run: RunFolder) -> LoadedModel:
    """A run's model in float32: 4-bit weights and bfloat16 round differently when several answers share a step."""
    trained = load_trained(run)
    return LoadedModel(unpack(trained.model, torch.float32, merge=True).float(), trained.tokenizer, trained.target)
