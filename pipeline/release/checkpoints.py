"""Exports that transformers, PEFT and vLLM load: the adapter merged, or as plain LoRA beside a base."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, TaskType
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForCausalLM, LlamaConfig

from pipeline.compat import dtype_argument
from pipeline.errors import PipelineError
from pipeline.model.dequantize import unpack
from pipeline.model.loading import LoadedModel, TrainedModel
from pipeline.model.tokenizer import style_token_ids
from pipeline.run_folder import RunFolder

BASE, ADAPTER = "base", "adapter"
_TRAINED_ROWS = ".token_adapter.trainable_tokens_delta"
"""How PEFT's name of the trained token rows, shape (tokens, hidden), ends after the embedding's."""


def write_merged(trained: TrainedModel, run: RunFolder, base_folder: Path, folder: Path, dtype: torch.dtype) -> None:
    """Write a model folder with the adapter merged, and the adapter in a folder of its own.

    The 4-bit weights are unpacked and the adapter is merged in float32; merged into 4-bit weights it would be rounded
    away.
    """
    model = unpack(trained.model, dtype, merge=True)
    _untie_head(model)
    _save_plain(model.merge_and_unload(), trained.tokenizer, _config(base_folder), folder, dtype)
    # PEFT's own card is an empty form that names a local folder.
    shutil.copytree(run.adapter, folder / ADAPTER, ignore=shutil.ignore_patterns("README.md"))
    for path in [*folder.glob("tokenizer*"), *folder.glob("*.jinja"), *folder.glob("special_tokens_map.json")]:
        shutil.copyfile(path, folder / ADAPTER / path.name)


def write_unmerged(untrained: LoadedModel, run: RunFolder, base_folder: Path, folder: Path, dtype: torch.dtype) -> None:
    """Write the unpacked base as a model folder, and the adapter as plain LoRA beside it.

    The trained token rows become LoRA of the embedding: A selects a token, B holds its row, on a base whose rows of
    these tokens are zero. So several adapters share a base, and a row is rounded once, as in the trained model.
    """
    style_ids = style_token_ids(untrained.tokenizer)
    model = unpack(untrained.model, dtype, merge=False)
    _untie_head(model)
    embedding = model.get_input_embeddings().weight
    with torch.no_grad():
        embedding[style_ids] = 0
    _write_lora(run, folder / ADAPTER, vocabulary_size=embedding.shape[0])
    _save_plain(model, untrained.tokenizer, _as_llama(_config(base_folder)), folder / BASE, dtype)


def require_plain_lora(run: RunFolder) -> None:
    """Refuse an adapter that holds more than LoRA and token rows.

    Raises:
        PipelineError: It does.
    """
    if saved := LoraConfig.from_pretrained(str(run.adapter)).modules_to_save:
        raise PipelineError(
            f"{run.path}: its adapter holds {' and '.join(saved)} entire, which is no LoRA, and engines do not load it"
            " beside a base; export it with --format merged or gguf, or train with --preset lean."
        )


def load_plain(folder: Path, dtype: torch.dtype) -> Any:
    """Load a model folder as anybody would, in evaluation mode."""
    return AutoModelForCausalLM.from_pretrained(
        folder, use_safetensors=True, trust_remote_code=False, local_files_only=True, **dtype_argument(dtype)
    ).eval()


def load_unmerged(folder: Path, dtype: torch.dtype) -> Any:
    """Load what ``write_unmerged`` wrote with plain PEFT."""
    base = load_plain(folder / BASE, dtype)
    return PeftModel.from_pretrained(base, str(folder / ADAPTER), local_files_only=True).eval()


def _write_lora(run: RunFolder, folder: Path, *, vocabulary_size: int) -> None:
    trained = LoraConfig.from_pretrained(str(run.adapter))
    ((embedding, token_ids),) = trained.trainable_token_indices.items()
    tensors = load_file(run.adapter / "adapter_model.safetensors")
    (name,) = [name for name in tensors if name.endswith(_TRAINED_ROWS)]
    rows, place = tensors.pop(name).float(), name.removesuffix(_TRAINED_ROWS)
    # As wide as the adapter's rank, since some engines compute the scale from one rank for all modules.
    select = torch.zeros(trained.r, vocabulary_size)
    select[range(len(token_ids)), token_ids] = 1
    spread = torch.zeros(rows.shape[1], trained.r)
    spread[:, : len(token_ids)] = rows.T * (trained.r / trained.lora_alpha)
    tensors[f"{place}.lora_embedding_A"] = select
    tensors[f"{place}.lora_embedding_B"] = spread
    plain = LoraConfig(
        r=trained.r,
        lora_alpha=trained.lora_alpha,
        target_modules=[*trained.target_modules, embedding],
        task_type=TaskType.CAUSAL_LM,
        inference_mode=True,
    )
    plain.save_pretrained(str(folder))
    save_file(tensors, folder / "adapter_model.safetensors", metadata={"format": "pt"})


def _untie_head(model: Any) -> None:
    """Give a head tied to the embeddings its own weights: the trained rows belong to the input alone."""
    if isinstance(head := model.get_output_embeddings(), torch.nn.Linear):
        head.weight = torch.nn.Parameter(head.weight.detach().clone(), requires_grad=False)


def _config(base_folder: Path) -> Any:
    return AutoConfig.from_pretrained(base_folder, trust_remote_code=False, local_files_only=True)


def _as_llama(config: Any) -> Any:
    """Describe a Mistral without a sliding window as the Llama that it is: vLLM adapts the embeddings of Llama alone.

    Source: ``embedding_modules`` in vLLM 0.32, ``model_executor/models/mistral.py``.
    """
    if config.model_type != "mistral" or config.sliding_window is not None:
        return config
    known = LlamaConfig().to_dict().keys() - {"model_type", "architectures"}
    return LlamaConfig(**{name: value for name, value in config.to_dict().items() if name in known})


def _save_plain(model: Any, tokenizer: Any, config: Any, folder: Path, dtype: torch.dtype) -> None:
    config.vocab_size = model.get_input_embeddings().weight.shape[0]
    config.tie_word_embeddings = False
    with torch.device("meta"):
        plain = AutoModelForCausalLM.from_config(config, **dtype_argument(dtype))
    state = {name: tensor.to("cpu", dtype) for name, tensor in model.state_dict().items()}
    plain.load_state_dict(state, strict=True, assign=True)
    plain.generation_config = model.generation_config
    plain.generation_config.eos_token_id = tokenizer.eos_token_id
    plain.generation_config.pad_token_id = tokenizer.pad_token_id
    plain.save_pretrained(folder, safe_serialization=True)
    tokenizer.save_pretrained(folder)
