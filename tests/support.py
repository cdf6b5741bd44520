"""Helpers shared by tests of several folders."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.config import TARGETS, resolve_preset
from pipeline.files import TRAINING_DATA

if TYPE_CHECKING:
    from pipeline.training.train import TrainingRequest

TINY = TARGETS["tiny-mistral"]


def tiny_request(output: Path, preset: str = "lean", **overrides: Any) -> TrainingRequest:
    """A run on the tiny target over the first few shipped examples."""
    from pipeline.training.train import TrainingRequest

    resolved = resolve_preset(preset, TINY, **{"max_examples": 16, **overrides})
    return TrainingRequest(TINY, resolved, TRAINING_DATA, output, "cpu")


@contextmanager
def torch_threads(count: int) -> Iterator[None]:
    """As on a machine of so many cores."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
