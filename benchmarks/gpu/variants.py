"""The levers of the padding-free path one after the other, on one loaded model."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from benchmarks.gpu.training import profiled, wait
from pipeline.config import GIB, Target, resolve_preset
from pipeline.data.batches import packed_batches, row_lengths, training_batches
from pipeline.data.store import tokenised
from pipeline.files import TRAINING_DATA
from pipeline.model.adapter import attach_adapter
from pipeline.model.base_models import base_model_folder
from pipeline.model.loading import hardware_preset, load_base
from pipeline.model.style_embeddings import add_style_rows
from pipeline.model.tokenizer import load_tokenizer
from pipeline.training.collation import packed_tensors, padded_tensors
from pipeline.training.frozen_head_loss import share_inputs, use_answer_loss
from pipeline.training.packed_model import PackedModel
from pipeline.training.packed_step import PackedStep

WINDOWS = 64
"""Windows of the shipped data that the steps take in turn."""
NAMES = (
    "padded 4x4",
    "padded 16x1",
    "packed, all layers again",
    "packed, a quarter again",
    "packed, recorded, all layers again",
    "packed, recorded, a quarter again",
)


class _Unrecorded(PackedStep):
    """A packed step that is launched kernel by kernel."""

    def __call__(self, row: Any, num_items_in_batch: Any) -> Tensor:
        self._attach_gradients()
        return self._pass(row, 1 / torch.as_tensor(float(num_items_in_batch), device=row["input_ids"].device))


class Variants:
    """One model with lean's adapter and the ways to take a step with it."""

    names = NAMES

    def __init__(self, target: Target, device: str, base_model: str | None) -> None:
        """Load the model."""
        self._device = device
        preset = hardware_preset(resolve_preset("lean", target, max_examples=16 * WINDOWS), device)
        folder = base_model_folder(target, base_model)
        self._tokenizer = load_tokenizer(folder, target)
        self._data, _ = tokenised(TRAINING_DATA, self._tokenizer, folder, preset.training)
        model = load_base(folder, preset.quantization, device)
        add_style_rows(model, self._tokenizer)
        torch.manual_seed(0)
        self._model = attach_adapter(model, self._tokenizer, preset).train()
        for name, parameter in self._model.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(parameter, std=0.02)
        self._head = use_answer_loss(self._model)
        share_inputs(self._model)
        self._training, self._styles, self._lengths = (
            preset.training,
            list(self._data["style"]),
            list(self._data["length"]),
        )
        self._trained = [parameter for parameter in self._model.parameters() if parameter.requires_grad]
        self._reference: Tensor | None = None

    def measure(self, name: str, seconds: float) -> dict[str, Any]:
        """Steady rate, memory, profile, and how far the first window's gradient is from the first variant's."""
        self._model.zero_grad()
        gc.collect()  # the last variant's graphs
        if self._device == "cuda":
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
        windows, take = self._padded(name) if name.startswith("padded") else self._packed(name)
        optimizer = torch.optim.AdamW(self._trained, lr=0.0, fused=name.startswith("packed"))

        def step(window: Sequence[Any]) -> float:
            loss = sum(take(batch, window) for batch in window)
            torch.nn.utils.clip_grad_norm_(self._trained, 1.0)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            return float(loss)

        first = sum(take(batch, windows[0]) for batch in windows[0])
        figures: dict[str, Any] = {"loss": float(first), **self._gradient()}
        self._model.zero_grad()
        for window in windows[1:4]:
            step(window)
        wait(self._device)
        started, done = time.perf_counter(), 0
        while time.perf_counter() - started < seconds:
            step(windows[done % len(windows)])
            done += 1
        wait(self._device)
        duration = time.perf_counter() - started
        figures |= {"examples_per_s": 16 * done / duration, "step_s": duration / done, "steps": done}
        if self._device == "cuda":
            free, total = torch.cuda.mem_get_info()
            figures["driver_gib"] = (total - free) / GIB
            figures["allocated_gib"] = torch.cuda.max_memory_allocated() / GIB
        figures["profile"] = profiled(self._device, lambda: step(windows[4]), 1)
        return figures

    def _gradient(self) -> dict[str, float]:
        flat = torch.cat([p.grad.flatten() for p in self._trained if p.grad is not None]).double()
        if self._reference is None:
            self._reference = flat.cpu()
            return {}
        reference = self._reference.to(flat.device)
        return {"gradient_difference": float((flat - reference).norm() / reference.norm())}

    def _windows(self, batches: list[Any], per_window: int) -> list[list[Any]]:
        return [batches[first : first + per_window] for first in range(0, len(batches), per_window)]

    def _padded(self, name: str) -> tuple[list[list[Any]], Callable[[Any, Any], Any]]:
        from dataclasses import replace

        size = 4 if name.endswith("4x4") else 16
        training = replace(self._training, micro_batch_size=size, accumulation_steps=16 // size)
        batches = training_batches(self._styles, self._lengths, training)
        self._model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        tensors = [padded_tensors([self._data[i] for i in batch], self._tokenizer.pad_token_id, 8) for batch in batches]
        moved = [self._moved(batch) for batch in tensors]

        def take(batch: Any, window: Any) -> Any:
            count = sum(int((each["labels"] != -100).sum()) for each in window)
            with torch.autocast(self._device, torch.bfloat16):
                loss = self._model(**batch, num_items_in_batch=torch.tensor(float(count), device=self._device)).loss
            loss.backward()
            return loss.item()

        return self._windows(moved, 16 // size), take

    def _packed(self, name: str) -> tuple[list[list[Any]], Callable[[Any, Any], Any]]:
        batches = packed_batches(self._styles, self._lengths, self._training, 1)
        lengths = row_lengths(batches, self._lengths)
        rows = [
            self._moved(packed_tensors([self._data[i] for i in batch], self._tokenizer.pad_token_id, lengths, 16))
            for batch in batches
        ]
        counts = {id(row): int((row["labels"] != -100).sum()) for row in rows}
        layers = len(self._model.get_base_model().model.layers)
        model = PackedModel(
            self._model, self._head, max(self._lengths), layers if "all layers" in name else layers // 4
        )
        step = (PackedStep if "recorded" in name else _Unrecorded)(model, lengths)
        return [[row] for row in rows], lambda row, window: step(row, counts[id(row)])

    def _moved(self, batch: dict[str, Any]) -> dict[str, Any]:
        return {key: value.to(self._device) if isinstance(value, Tensor) else value for key, value in batch.items()}
