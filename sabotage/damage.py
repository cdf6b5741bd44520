"""Damage to a finished run."""

from __future__ import annotations

import json
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


def scale_by_rank(run: RunFolder) -> None:
    _edit_config(run, use_rslora=True)


def double_alpha(run: RunFolder) -> None:
    _edit_config(run, lora_alpha=64)


def drop_modules(run: RunFolder) -> None:
    _edit_config(run, target_modules=["q_proj", "k_proj", "v_proj", "o_proj"])


def _edit_config(run: RunFolder, **changes: Any) -> None:
    file = run.adapter / "adapter_config.json"
    config = json.loads(file.read_text(encoding="utf-8"))
    if all(config[name] == value for name, value in changes.items()):
        raise ValueError(f"{file}: is so already: {changes}")
    file.write_text(json.dumps({**config, **changes}), encoding="utf-8")


def add_surplus_tensor(run: RunFolder) -> None:
    """Add a tensor of a layer that the model does not have, as a file with other names holds them."""

    def add(tensors: dict[str, torch.Tensor]) -> None:
        name = _first(tensors, "lora_A")
        tensors[name.replace("layers.0", "layers.99")] = tensors[name].clone()

    _rewrite(run, add)


def fit_another_base(run: RunFolder) -> None:
    """Make the adapter one of a base whose layers are narrower."""

    def narrow(tensors: dict[str, torch.Tensor]) -> None:
        for name in [name for name in tensors if "lora_A" in name]:
            tensors[name] = tensors[name][:, : tensors[name].shape[1] // 2].contiguous()

    _rewrite(run, narrow)


def lose_style_rows(run: RunFolder) -> None:
    def lose(tensors: dict[str, torch.Tensor]) -> None:
        del tensors[_first(tensors, "trainable_tokens_delta")]

    _rewrite(run, lose)


def empty_tensors(run: RunFolder) -> None:
    """Leave names without values, as a process saves that holds no shard of them."""

    def empty(tensors: dict[str, torch.Tensor]) -> None:
        for name, tensor in tensors.items():
            tensors[name] = tensor.new_empty(0)

    _rewrite(run, empty)


def pickle_weights(run: RunFolder) -> None:
    file = run.adapter / WEIGHTS
    torch.save(load_file(file), run.adapter / "adapter_model.bin")
    file.unlink()


def cut_log(run: RunFolder) -> None:
    """Drop the first half of the metrics, as a rotated log does."""
    lines = run.metrics_file.read_text(encoding="utf-8").splitlines(keepends=True)
    run.metrics_file.write_text("".join(lines[len(lines) // 2 :]), encoding="utf-8")
