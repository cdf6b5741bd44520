"""What a user would train with instead, on the same machine, data and shape: ``python -m benchmarks.gpu.peers``.

trl's ``SFTTrainer`` and unsloth's model under transformers' ``Trainer``, each with windows of 16 in one micro-batch and
gradient checkpointing as it does it. The same LoRA, without the two trained rows. It runs in a process whose path holds
the peer's own versions (``prepare_wheels.py``).
"""

from __future__ import annotations

import argparse
import json
import os
import random
import sys
import time
from pathlib import Path
from typing import Any

from pipeline.files import TRAINING_DATA, write_json

WINDOW, WARM_STEPS = 16, 4
LORA: dict[str, Any] = {
    "r": 16,
    "lora_alpha": 32,
    "lora_dropout": 0.0,
    "bias": "none",
    "target_modules": ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"],
}


def encoded(tokenizer: Any, examples: int) -> list[dict[str, list[int]]]:
    """The first shipped examples as token ids, prompts without labels."""
    rows = [json.loads(line) for line in TRAINING_DATA.read_text(encoding="utf-8").splitlines()[:examples]]
    found = []
    for row in rows:
        question, answer = (message["content"] for message in row["messages"])
        prompt = tokenizer(f"<s>[INST] <STYLE>\n{question}[/INST]", add_special_tokens=False)["input_ids"]
        completion = tokenizer(f" {answer}</s>", add_special_tokens=False)["input_ids"]
        mask = [0] * len(prompt) + [1] * len(completion)
        labels = [-100] * len(prompt) + completion
        found.append({"input_ids": prompt + completion, "completion_mask": mask, "labels": labels})
    random.Random(0).shuffle(found)
    return found


def clock() -> tuple[Any, list[float]]:
    """A trainer callback and the list of times that it fills, one for each step's end."""
    import torch
    from transformers import TrainerCallback

    times: list[float] = []

    class Clock(TrainerCallback):  # type: ignore[misc]
        def on_step_end(self, *args: Any, **kwargs: Any) -> None:
            torch.cuda.synchronize()
            times.append(time.perf_counter())

    return Clock(), times


def padded(batch: list[dict[str, list[int]]], pad_id: int) -> dict[str, Any]:
    """Padded tensors."""
    import torch

    width = max(len(row["input_ids"]) for row in batch)

    def filled(values: list[int], filling: int) -> list[int]:
        return values + [filling] * (width - len(values))

    return {
        "input_ids": torch.tensor([filled(row["input_ids"], pad_id) for row in batch]),
        "labels": torch.tensor([filled(row["labels"], -100) for row in batch]),
        "attention_mask": torch.tensor([filled([1] * len(row["input_ids"]), 0) for row in batch]),
    }


def trainer_of(peer: str, folder: str, examples: int, work: str, callback: Any) -> Any:
    """The peer's trainer, ready to train."""
    import torch

    common: dict[str, Any] = {
        "output_dir": work,
        "per_device_train_batch_size": WINDOW,
        "gradient_accumulation_steps": 1,
        "learning_rate": 2e-4,
        "num_train_epochs": 1,
        "bf16": True,
        "optim": "adamw_torch",
        "logging_steps": 1,
        "save_strategy": "no",
        "report_to": "none",
    }
    if peer == "unsloth":
        from unsloth import FastLanguageModel

        model, tokenizer = FastLanguageModel.from_pretrained(
            folder, max_seq_length=1024, load_in_4bit=True, dtype=torch.bfloat16, local_files_only=True
        )
        model = FastLanguageModel.get_peft_model(model, **LORA, use_gradient_checkpointing="unsloth")
        from transformers import Trainer, TrainingArguments

        tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
        return Trainer(
            model=model,
            args=TrainingArguments(**common, remove_unused_columns=False),
            train_dataset=encoded(tokenizer, examples),
            data_collator=lambda batch: padded(batch, tokenizer.pad_token_id),
            callbacks=[callback],
        )
    from datasets import Dataset
    from peft import LoraConfig
    from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig
    from trl import SFTConfig, SFTTrainer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
    four_bit = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16,
    )
    model = AutoModelForCausalLM.from_pretrained(
        folder, quantization_config=four_bit, dtype=torch.bfloat16, device_map={"": 0}
    )
    rows = [
        {"input_ids": row["input_ids"], "completion_mask": row["completion_mask"]}
        for row in encoded(tokenizer, examples)
    ]
    return SFTTrainer(
        model=model,
        args=SFTConfig(**common, max_length=None, completion_only_loss=True, gradient_checkpointing=True),
        train_dataset=Dataset.from_list(rows),
        processing_class=tokenizer,
        callbacks=[callback],
        peft_config=LoraConfig(task_type="CAUSAL_LM", **LORA),
    )


def main() -> int:
    """Train with one peer in this process and write its figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("peer", choices=("trl", "unsloth"))
    parser.add_argument("--base-model", required=True, metavar="DIR", help="folder of the base weights")
    parser.add_argument("--examples", type=int, default=320)
    parser.add_argument("--work", default="peer-runs", metavar="DIR")
    parser.add_argument("--output", type=Path, required=True, help="the JSON file to write")
    options = parser.parse_args()
    output, folder = options.output.resolve(), Path(options.base_model).resolve()
    work = Path(options.work).resolve()
    work.mkdir(parents=True, exist_ok=True)
    os.chdir(work)  # unsloth writes a cache into the current folder, and the project's must stay as it was committed
    os.environ |= {"UNSLOTH_DISABLE_STATISTICS": "1", "HF_HUB_OFFLINE": "1"}
    if options.peer == "unsloth":
        import unsloth  # noqa: F401  # before transformers
    import torch

    callback, times = clock()
    trainer = trainer_of(options.peer, str(folder), options.examples, str(work), callback)
    trainer.train()
    free, total = torch.cuda.mem_get_info()
    from importlib.metadata import version

    losses = [float(row["loss"]) for row in trainer.state.log_history if "loss" in row]
    from benchmarks.gpu.origin import origin

    figures = {
        **origin(),
        "peer": options.peer,
        "version": version(options.peer),
        "examples_per_s": WINDOW * (len(times) - WARM_STEPS) / (times[-1] - times[WARM_STEPS - 1]),
        "driver_gib": (total - free) / 2**30,
        "losses": losses,
    }
    write_json(output, figures)
    print(json.dumps({key: value for key, value in figures.items() if key != "losses"}), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
