"""Training one adapter with transformers' ``Trainer``: recorded step by step, resumable, saved whole or not at all."""

from __future__ import annotations

import dataclasses
import json
import math
import resource
import time
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import Sampler, SequentialSampler
from tqdm import tqdm
from transformers import PrinterCallback, ProgressCallback, Trainer, TrainerCallback, TrainingArguments

from pipeline.compat import checkpointing_arguments, warmup_arguments
from pipeline.config import GIB, Preset, Target, TrainingConfig
from pipeline.data.encoding import IGNORED_LABEL, collate, training_order
from pipeline.data.formats import find_sources
from pipeline.data.store import EncodingRequest, encoded_dataset
from pipeline.errors import PipelineError
from pipeline.files import sha256_of, weights_digest, write_json
from pipeline.model import (
    add_style_rows,
    attach_adapter,
    hardware_preset,
    load_base,
    load_tokenizer,
    save_adapter,
)
from pipeline.quantization import quantization_census
from pipeline.runs import RunFolder, package_versions
from pipeline.targets import base_model_folder


class TrainingDivergedError(PipelineError):
    """The loss or the gradient stopped being a number."""


@dataclasses.dataclass(frozen=True, slots=True)
class TrainingRequest:
    """Everything that decides a run."""

    target: Target
    preset: Preset
    data: Path
    output: Path
    device: str
    base_model: str | None = None


def train(request: TrainingRequest) -> dict[str, Any]:
    """Train an adapter, or finish the run that ``request.output`` already holds.

    Returns:
        The run's record, as in ``run.json``.

    Raises:
        PipelineError: Bad data, missing weights, another run in the folder, or a loss that is not finite.
    """
    preset = hardware_preset(request.preset, request.device)
    training = preset.training
    base_folder = base_model_folder(request.target, request.base_model)
    tokenizer = load_tokenizer(base_folder, request.target)
    data, data_identity = _tokenised(request.data, tokenizer, base_folder, training)
    run = RunFolder(request.output)
    identity = {
        "target": request.target.name,
        "device": request.device,
        "preset": preset.describe(),
        "data": data_identity,
        "base_model_sha256": weights_digest(base_folder),
    }
    earlier = run.open(identity)
    if earlier is not None and earlier["status"] == "completed":
        return earlier
    run.update(**identity, status="running", versions=package_versions(), seed=training.seed)
    try:
        model = load_base(base_folder, preset.quantization, request.device)
        run.update(quantization=dataclasses.asdict(quantization_census(model)))
        add_style_rows(model, tokenizer)
        torch.manual_seed(training.seed)
        adapted = attach_adapter(model, tokenizer, preset)
        order = training_order(
            list(data["style"]),
            list(data["length"]),
            seed=training.seed,
            window=training.window_examples if training.stratify_windows else None,
            epochs=training.epochs,
        )
        figures = _optimize(adapted, tokenizer.pad_token_id, data.select(order), preset, run, request.device)
        save_adapter(adapted, run.adapter)
    except BaseException as error:
        run.update(status="failed", reason=f"{type(error).__name__}: {error}")
        raise
    size_bytes = sum(file.stat().st_size for file in run.adapter.glob("*.safetensors"))
    run.update(
        **figures,
        status="completed",
        reason=None,
        adapter={"sha256": weights_digest(run.adapter), "size_bytes": size_bytes},
    )
    run.discard_checkpoints()
    return run.read_record()


def _tokenised(
    path: Path, tokenizer: Any, base_folder: Path, training: TrainingConfig
) -> tuple[Any, dict[str, str | int]]:
    """The encoded examples, and what names them in the run's record."""
    sources = find_sources(path)
    for source in sources:
        print(f"data: {source.path.name} ({source.format.name})", flush=True)
    tokenizer_sha256 = sha256_of(*sorted(base_folder.glob("tokenizer*")))
    request = EncodingRequest(sources, tokenizer, tokenizer_sha256, training.max_sequence_tokens, training.max_examples)
    data = encoded_dataset(request)
    return data, {"file": path.name, "sha256": request.data_sha256, "examples": len(data)}


def _optimize(model: Any, pad_id: int, data: Any, preset: Preset, run: RunFolder, device: str) -> dict[str, Any]:
    """Run the trainer and return the run's figures."""
    trainer = StepRecordingTrainer(
        model=model,
        args=_trainer_arguments(preset, run, device),
        train_dataset=data,
        data_collator=partial(_tensors, pad_id=pad_id),
    )
    trainer.remove_callback(PrinterCallback)
    trainer.remove_callback(ProgressCallback)
    checkpoint = run.last_checkpoint()
    earlier_s = run.keep_metrics_until(int(checkpoint.name.rpartition("-")[2]) if checkpoint else 0)
    trainer.add_callback(StepMetrics(run, trainer, device, earlier_s))
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    started = time.perf_counter()
    trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    duration_s = earlier_s + time.perf_counter() - started
    return {
        "planned_steps": trainer.state.max_steps,
        "completed_steps": trainer.state.global_step,
        "resumed_from": checkpoint.name if checkpoint else None,
        "duration_s": duration_s,
        "examples_per_s": len(data) / duration_s,
        "tokens": sum(data["length"]),
        "peak_memory": peak_memory(device),
    }


def _trainer_arguments(preset: Preset, run: RunFolder, device: str) -> TrainingArguments:
    training = preset.training
    return TrainingArguments(
        output_dir=str(run.checkpoints),
        per_device_train_batch_size=training.micro_batch_size,
        gradient_accumulation_steps=training.accumulation_steps,
        learning_rate=training.learning_rate,
        lr_scheduler_type=training.lr_scheduler,
        num_train_epochs=1,  # the order that the trainer is given holds every pass, each shuffled anew
        bf16=training.bf16,
        optim=training.optimizer,
        logging_steps=training.logging_steps,
        logging_nan_inf_filter=False,
        save_strategy="steps",
        save_steps=training.save_steps,
        save_total_limit=training.save_total_limit,
        dataloader_num_workers=training.loader_workers,
        dataloader_pin_memory=training.pin_memory,
        remove_unused_columns=False,
        seed=training.seed,
        report_to=[],
        disable_tqdm=True,
        use_cpu=device == "cpu",
        **warmup_arguments(training.warmup_ratio),
        **checkpointing_arguments(training.gradient_checkpointing),
    )


def _tensors(batch: Sequence[Mapping[str, Any]], pad_id: int) -> dict[str, Any]:
    tensors = {name: torch.tensor(rows) for name, rows in collate(batch, pad_id).items()}
    # A prompt's logits carry no loss and are as wide as the vocabulary; the last of them predicts the answer's start.
    before = int((tensors["labels"] != IGNORED_LABEL).any(dim=0).nonzero()[0]) - 1
    labels = tensors["labels"][:, before:]
    return {**tensors, "labels": labels, "logits_to_keep": labels.shape[1]}


def peak_memory(device: str) -> dict[str, float]:
    """Peak memory in GiB: resident set on the CPU; allocated, reserved and the driver's figure on CUDA."""
    figures = {"rss_gib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / GIB}
    if device == "cuda":
        free_bytes, total_bytes = torch.cuda.mem_get_info()
        figures["cuda_allocated_gib"] = torch.cuda.max_memory_allocated() / GIB
        figures["cuda_reserved_gib"] = torch.cuda.max_memory_reserved() / GIB
        figures["cuda_driver_gib"] = (total_bytes - free_bytes) / GIB
    return figures


class StepRecordingTrainer(Trainer):
    """The stock trainer, in the order it is given, keeping every step's exact loss and saving small adapters."""

    def __init__(self, **kwargs: Any) -> None:
        """See ``Trainer``."""
        super().__init__(**kwargs)
        self.step_loss = 0.0

    def _get_train_sampler(self, *args: Any, **kwargs: Any) -> Sampler[int]:
        return SequentialSampler(self.train_dataset)

    def training_step(self, *args: Any, **kwargs: Any) -> torch.Tensor:
        """One micro-batch; its loss is already divided by the whole window's labelled tokens."""
        loss: torch.Tensor = super().training_step(*args, **kwargs)
        self.step_loss += loss.item()
        return loss

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Any] | None = None) -> None:
        save_adapter(self.model, Path(output_dir or self.args.output_dir))


class StepMetrics(TrainerCallback):
    """Writes each step's figures, draws the progress bar, marks whole checkpoints and stops a diverged run."""

    def __init__(self, run: RunFolder, trainer: StepRecordingTrainer, device: str, earlier_s: float) -> None:
        """Record into ``run`` what ``trainer`` does, ``earlier_s`` seconds of training after the run began."""
        self._run, self._trainer, self._device = run, trainer, device
        self._started = time.perf_counter() - earlier_s
        self._bar: tqdm[Any] | None = None

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Open the bar and say how many steps there are, so that a killed run shows how far it got."""
        self._run.update(planned_steps=state.max_steps)
        self._bar = tqdm(total=state.max_steps, initial=state.global_step, desc="training", unit="step")

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Ask the trainer to log this step whatever ``logging_steps`` says; that setting paces the console."""
        control.should_log = True

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **kwargs: Any) -> None:
        """Write the step's row.

        Raises:
            TrainingDivergedError: Its loss or gradient norm is not finite.
        """
        if not logs or "grad_norm" not in logs:
            return
        loss, self._trainer.step_loss = self._trainer.step_loss, 0.0
        row = {
            "step": state.global_step,
            "loss": loss,
            "grad_norm": float(logs["grad_norm"]),
            "learning_rate": logs["learning_rate"],
            "elapsed_s": time.perf_counter() - self._started,
            **peak_memory(self._device),
        }
        with self._run.metrics_file.open("a", encoding="utf-8") as handle:
            handle.write(json.dumps(row) + "\n")
        assert self._bar is not None
        self._bar.update(1)
        self._bar.set_postfix(loss=f"{loss:.3f}")
        if state.global_step % args.logging_steps == 0:
            self._bar.write(f"step {state.global_step}/{state.max_steps}: loss {loss:.4f}")
        if not (math.isfinite(loss) and math.isfinite(row["grad_norm"])):
            raise TrainingDivergedError(
                f"step {state.global_step}: loss {loss}, gradient norm {row['grad_norm']}; "
                "lower the learning rate or check the data."
            )

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Mark the checkpoint as whole; one without the mark is never resumed from."""
        write_json(
            self._run.checkpoints / f"checkpoint-{state.global_step}" / "complete.json", {"step": state.global_step}
        )

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Close the bar."""
        if self._bar is not None:
            self._bar.close()
