"""A preset as arguments of transformers' trainer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from transformers import TrainingArguments

from pipeline.compat import checkpointing_arguments, warmup_arguments
from pipeline.config import TrainingConfig
from pipeline.distributed import accumulation_per_process, process_count


def trainer_arguments(training: TrainingConfig, device: str, checkpoints: Path, examples: int) -> TrainingArguments:
    """Arguments of padded training in this process, alone or beside others.

    Args:
        training: The preset's.
        device: ``cpu`` or ``cuda``.
        checkpoints: Folder that they are written to.
        examples: Of all passes.
    """
    together: dict[str, Any] = {}
    if process_count() > 1:
        together = {"average_tokens_across_devices": True, "ddp_find_unused_parameters": False}
        together["accelerator_config"] = {"even_batches": False}  # the processes' micro-batches differ in size
        together["ddp_backend"] = "gloo" if device == "cpu" else "nccl"
    return TrainingArguments(
        output_dir=str(checkpoints),
        per_device_train_batch_size=training.micro_batch_size,
        gradient_accumulation_steps=accumulation_per_process(training, examples),
        learning_rate=training.learning_rate,
        lr_scheduler_type=training.lr_scheduler,
        num_train_epochs=1,  # the order that the trainer is given holds every pass, each shuffled again
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
        **together,
        # The first step of a warm-up has the learning rate 0, so a single step would train nothing.
        **warmup_arguments(training.warmup_ratio if examples > training.window_examples else 0.0),
        **checkpointing_arguments(training.gradient_checkpointing),
    )
