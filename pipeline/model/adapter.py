"""The adapter: attached to a base model for training, saved, and put on a base again."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from peft import (
    LoraConfig,
    PeftModel,
    TaskType,
    get_peft_model,
    get_peft_model_state_dict,
    prepare_model_for_kbit_training,
)
from safetensors import safe_open

from pipeline.config import STYLE_WORDS, AdapterConfig, Preset
from pipeline.distributed import gathered_tensors, is_sharded
from pipeline.errors import PipelineError
from pipeline.files import building_folder
from pipeline.model.style_embeddings import add_style_rows, replace_rows_after_lookup
from pipeline.model.tokenizer import style_token_ids

ADAPTER = "default"
"""PEFT's name of the only adapter."""


def attach_adapter(model: Any, tokenizer: Any, preset: Preset) -> PeftModel:
    """Wrap a base model, its style rows added, with a fresh trainable adapter."""
    adapter, training = preset.adapter, preset.training
    if training.upcast_embeddings:
        # Checkpointing is switched on by the trainer alone, so that there is one place for it.
        model = prepare_model_for_kbit_training(model, use_gradient_checkpointing=False)
    else:
        for parameter in model.parameters():
            parameter.requires_grad_(False)
    adapted = get_peft_model(model, _lora_config(model, adapter, style_token_ids(tokenizer)))
    replace_rows_after_lookup(adapted)
    return adapted


def _lora_config(model: Any, adapter: AdapterConfig, style_ids: list[int]) -> LoraConfig:
    """The PEFT configuration; style rows go through the embeddings only, since prompts carry no loss."""
    embeddings = next(name for name, part in model.named_modules() if part is model.get_input_embeddings())
    trained = (
        {"trainable_token_indices": {embeddings.rpartition(".")[2]: style_ids}}
        if adapter.trains_style_rows_only
        else {"modules_to_save": list(adapter.modules_to_save)}
    )
    return LoraConfig(
        r=adapter.rank,
        lora_alpha=adapter.alpha,
        lora_dropout=adapter.dropout,
        bias=adapter.bias,
        target_modules=list(adapter.target_modules),
        task_type=TaskType.CAUSAL_LM,
        **trained,
    )


def save_adapter(model: PeftModel, folder: Path) -> None:
    """Write the trained tensors as safetensors, all or nothing.

    PEFT's automatic choice adds the base's embeddings whenever the vocabulary grew: a thousand times the two trained
    rows for lean, and two further copies of the trained matrices for golden. Where the model is sharded, every process
    must call it.
    """
    tensors = gathered_tensors(model) if is_sharded() else None
    with building_folder(folder) as temporary:
        model.save_pretrained(str(temporary), safe_serialization=True, save_embedding_layers=False, state_dict=tensors)


def apply_adapter(base: Any, tokenizer: Any, adapter_folder: Path, words: Mapping[str, str] = STYLE_WORDS) -> PeftModel:
    """Put a saved adapter on a base model, in evaluation mode.

    Raises:
        PipelineError: The adapter is damaged, lacks a tensor, has one too many or is made for another base.
    """
    add_style_rows(base, tokenizer, words)
    try:
        with warnings.catch_warnings():
            # PEFT only warns of a tensor that the file lacks, and answers without it.
            warnings.filterwarnings("error", message="Found missing adapter keys")
            adapted = PeftModel.from_pretrained(base, str(adapter_folder), local_files_only=True).eval()
    except Exception as error:  # safetensors and PEFT raise many kinds; each means the same to the user
        raise PipelineError(f"{adapter_folder}: the adapter cannot be loaded ({error}); train it again.") from error
    if surplus := _tensor_names(adapter_folder) - _taken_names(adapted):
        raise PipelineError(
            f"{adapter_folder}: the model does not take {len(surplus)} of its tensors, {min(surplus)} among them;"
            " restore its adapter_config.json or train it again."
        )
    replace_rows_after_lookup(adapted)
    return adapted


def _tensor_names(adapter_folder: Path) -> set[str]:
    names: set[str] = set()
    for file in adapter_folder.glob("*.safetensors"):
        with safe_open(file, framework="pt") as tensors:
            names.update(tensors.keys())
    return names


def _taken_names(adapted: PeftModel) -> set[str]:
    """Names under which an adapter's file may hold tensors; PEFT leaves all others out without a word."""
    whole = {name for name, _ in adapted.named_parameters()}  # a resized embedding may be saved beside the adapter
    whole.update(get_peft_model_state_dict(adapted, save_embedding_layers=False))
    return whole
