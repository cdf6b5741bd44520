"""Damage to a finished run."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from pipeline.files import weights_digest
from pipeline.run_folder import RunFolder

WEIGHTS = "adapter_model.safetensors"


def truncate(run: RunFolder) -> None:
    file = run.adapter / WEIGHTS
    content = file.read_bytes()
    file.write_bytes(content[: len(content) // 2])


def _rewrite(run: RunFolder, change: Callable[[dict[str, torch.Tensor]], None], *, owned: bool = True) -> None:
    """Change the tensors; ``owned`` makes the run's record agree, as a faulty save would."""
    tensors = load_file(run.adapter / WEIGHTS)
    change(tensors)
    save_file(tensors, run.adapter / WEIGHTS, metadata={"format": "pt"})
    if owned:
        adapter: dict[str, Any] = run.read_record()["adapter"]
        run.update(adapter={**adapter, "sha256": weights_digest(run.adapter)})


def lose_tensor(run: RunFolder) -> None:
    def lose(tensors: dict[str, torch.Tensor]) -> None:
        del tensors[_first(tensors, "lora_A")]

    _rewrite(run, lose)


def poison_tensor(run: RunFolder) -> None:
    def poison(tensors: dict[str, torch.Tensor]) -> None:
        tensors[_first(tensors, "lora_A")].view(-1)[0] = float("nan")

    _rewrite(run, poison)


def exchange(run: RunFolder) -> None:
    def double(tensors: dict[str, torch.Tensor]) -> None:
        tensors[_first(tensors, "lora_B")].mul_(2)

    _rewrite(run, double, owned=False)


def zero_lora(run: RunFolder) -> None:
    def zero(tensors: dict[str, torch.Tensor]) -> None:
        for name, tensor in tensors.items():
            if "lora_B" in name:
                tensor.zero_()

    _rewrite(run, zero)


def _first(tensors: dict[str, torch.Tensor], part: str) -> str:
    return next(name for name in sorted(tensors) if part in name)
