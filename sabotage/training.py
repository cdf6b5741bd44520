"""Faults of loading and training."""

from __future__ import annotations

import atexit
import dataclasses
import errno
import os
import random
import signal
import sys
import time
from collections.abc import Callable
from itertools import pairwise
from typing import Any

from pipeline.config import TARGETS
from pipeline.data.batches import IGNORED_LABEL
from pipeline.model.tokenizer import style_token_ids
from sabotage.replacing import replace

FEW_EXAMPLES = 160
STALL_S = 16
_held: list[bytes] = []


def _load_with(**changes: Any) -> None:
    replace(
        "pipeline.model.loading:load_base",
        lambda load: (
            lambda folder, quantization, device: load(folder, dataclasses.replace(quantization, **changes), device)
        ),
    )


def load_unquantised() -> None:
    _load_with(load_in_4bit=False)


def load_fp4() -> None:
    _load_with(quant_type="fp4")


def load_single_quantised() -> None:
    _load_with(double_quant=False)


def _train_with(**changes: Any) -> None:
    """Change the lean preset, with few examples, padded: a broken run shows after a few."""
    lean: Any = TARGETS["smollm2-135m"].lean
    lean.update({"max_examples": FEW_EXAMPLES, "padding_free": False, **changes})


def learn_nothing() -> None:
    # Zero itself is refused; in float32 this is zero.
    _train_with(learning_rate=sys.float_info.min)


def _before_training(change: Callable[[Any], None]) -> None:
    """Change the adapted model just before it is trained."""

    def broken(optimize: Any) -> Any:
        def optimize_changed(model: Any, *arguments: Any) -> Any:
            change(model)
            return optimize(model, *arguments)

        return optimize_changed

    replace("pipeline.training.train:_optimize", broken)


def hold_memory() -> None:
    _before_training(lambda model: _held.append(b"\1" * (7 * 2**30)))


def crawl() -> None:
    def broken(trainer: Any) -> Any:
        class Broken(trainer):  # type: ignore[misc]
            def training_step(self, *arguments: Any, **keywords: Any) -> Any:
                time.sleep(STALL_S)
                return super().training_step(*arguments, **keywords)

        return Broken

    replace("pipeline.training.train:StepRecordingTrainer", broken)


def freeze_adapter() -> None:
    def freeze(model: Any) -> None:
        for name, parameter in model.named_parameters():
            if "lora_" in name:
                parameter.requires_grad_(False)

    _before_training(freeze)


def lose_gradients() -> None:
    """Let no gradient reach the LoRA matrices, as checkpointing does whose inputs need none."""

    def cut(model: Any) -> None:
        for name, parameter in model.named_parameters():
            if "lora_" in name and parameter.requires_grad:
                parameter.register_hook(lambda gradient: gradient * 0)

    _before_training(cut)


def _with_saving(save: Callable[[Any, Any, Any], None]) -> None:
    """Change how the trained adapter is saved; ``save`` sees the original, the model and the folder."""

    def broken(save_adapter: Any) -> Any:
        return lambda model, folder: save(save_adapter, model, folder)

    replace("pipeline.training.train:save_adapter", broken)


def save_fresh_adapter() -> None:
    def save(save_adapter: Any, model: Any, folder: Any) -> None:
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.data.zero_()
        save_adapter(model, folder)

    _with_saving(save)


def fill_disk() -> None:
    def save(save_adapter: Any, model: Any, folder: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    _with_saving(save)


def crash_at_exit() -> None:
    def register(model: Any) -> None:
        atexit.register(os._exit, 134)

    _before_training(register)


def _half_way(act: Callable[[Any], None]) -> None:
    def broken(metrics: Any) -> Any:
        class Broken(metrics):  # type: ignore[misc]
            def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **keywords: Any) -> None:
                super().on_log(args, state, control, logs, **keywords)
                if state.global_step >= state.max_steps // 2:
                    act(control)

        return Broken

    replace("pipeline.training.train:StepMetrics", broken)


def kill_half_way() -> None:
    _half_way(lambda control: os.kill(os.getpid(), signal.SIGKILL))


def stop_half_way() -> None:
    _half_way(lambda control: setattr(control, "should_training_stop", True))


def nan_loss() -> None:
    def broken(trainer: Any) -> Any:
        class Broken(trainer):  # type: ignore[misc]
            def training_step(self, *arguments: Any, **keywords: Any) -> Any:
                loss = super().training_step(*arguments, **keywords)
                if self.state.global_step >= 5:
                    self.step_loss = float("nan")
                return loss

        return Broken

    _train_with()
    replace("pipeline.training.train:StepRecordingTrainer", broken)


def _with_rows(broken: Callable[[Any], Any]) -> None:
    """Replace both ways in which examples become rows: padded and packed."""
    for place in ("pipeline.training.collation:collate", "pipeline.training.collation:pack"):
        replace(place, broken)


def _with_labels(change: Callable[[list[int]], list[int]]) -> None:
    """Change the labels of each example; ``change`` sees those that carry loss, EOS last."""

    def broken(make_rows: Any) -> Any:
        def make_changed(batch: Any, *arguments: int) -> Any:
            columns = make_rows(batch, *arguments)
            for labels in columns["labels"]:
                for first, end in pairwise(columns.get("starts", [0, len(labels)])):
                    places = [place for place in range(first, end) if labels[place] != IGNORED_LABEL]
                    for place, label in zip(places, change([labels[place] for place in places]), strict=True):
                        labels[place] = label
            return columns

        return make_changed

    _train_with()
    _with_rows(broken)


def shuffle_labels() -> None:
    rng = random.Random(0)
    _with_labels(lambda labels: rng.sample(labels[:-1], len(labels[:-1])) + labels[-1:])


def mask_eos() -> None:
    _with_labels(lambda labels: [*labels[:-1], *[IGNORED_LABEL] * len(labels[-1:])])


def drop_style_tokens() -> None:
    dropped: set[int] = set()

    def attaching(attach: Any) -> Any:
        def attach_noting(model: Any, tokenizer: Any, preset: Any) -> Any:
            dropped.update(style_token_ids(tokenizer))
            return attach(model, tokenizer, preset)

        return attach_noting

    def without(make_rows: Any) -> Any:
        return lambda batch, *arguments: make_rows([_without(example, dropped) for example in batch], *arguments)

    _train_with()
    # Not in the encoding: encoded data is cached, and the fault must not reach the cache.
    replace("pipeline.training.train:attach_adapter", attaching)
    _with_rows(without)


def _without(example: Any, dropped: set[int]) -> dict[str, Any]:
    prompt, answer = example["input_ids"][: example["prompt_length"]], example["input_ids"][example["prompt_length"] :]
    kept = [token for token in prompt if token not in dropped]
    return {"input_ids": [*kept, *answer], "prompt_length": len(kept)}
