"""Tiny folders of base models, as users have them: config, random safetensors weights, tokenizer, chat template."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
SYSTEM = "{% if messages[0]['role'] != 'system' %}{{ '<|im_start|>system\nYou help.<|im_end|>\n' }}{% endif %}"
THINKING = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' }}"
    "{% if m['role'] == 'assistant' %}{{ '<think>\n\n</think>\n\n' }}{% endif %}"
    "{{ m['content'] + '<|im_end|>\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}"
    "{% if enable_thinking is defined and enable_thinking is false %}{{ '<think>\n\n</think>\n\n' }}{% endif %}"
    "{% endif %}"
)
DATED = "{{ '<|im_start|>system\nToday: ' + strftime_now('%d %B %Y') + '<|im_end|>\n' }}"
LLAMA3 = (
    "{{ bos_token }}{% for m in messages %}"
    "{{ '<|start_header_id|>' + m['role'] + '<|end_header_id|>\n\n' + m['content'] | trim + '<|eot_id|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"
)
GEMMA = (
    "{{ bos_token }}{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system role') }}{% endif %}"
    "{% for m in messages %}{% set role = 'model' if m['role'] == 'assistant' else m['role'] %}"
    "{{ '<start_of_turn>' + role + '\n' + m['content'] | trim + '<end_of_turn>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}"
)
PHI3 = (
    "{% for m in messages %}{{ '<|' + m['role'] + '|>\n' + m['content'] + '<|end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% else %}{{ eos_token }}{% endif %}"
)


@dataclass(frozen=True, slots=True)
class TinyBase:
    """An architecture at its smallest, with the special tokens and the kind of template that its family has.

    Attributes:
        special: Special tokens by role, and others under ``additional``; a role that is missing is not set.
        template: The chat template; None for a tokenizer without one.
        config: Fields of the configuration beside the common sizes.
        ends: The token that ends an answer.
    """

    model_type: str
    special: Mapping[str, Any]
    template: str | None
    ends: str
    config: Mapping[str, Any] = field(default_factory=dict)


_IM = {"eos_token": "<|im_end|>", "additional": ["<|im_start|>"]}
_GEMMA = {"bos_token": "<bos>", "eos_token": "<eos>", "additional": ["<start_of_turn>", "<end_of_turn>"]}
TINY_BASES: Mapping[str, TinyBase] = MappingProxyType(
    {
        "llama": TinyBase(
            "llama",
            {
                "bos_token": "<|begin|>",
                "eos_token": "<|eot_id|>",
                "additional": ["<|start_header_id|>", "<|end_header_id|>"],
            },
            LLAMA3,
            "<|eot_id|>",
            {"eos_token_id": [1, 2], "tie_word_embeddings": False},
        ),
        "mistral": TinyBase("mistral", {"bos_token": "<s>", "eos_token": "</s>"}, None, "</s>", {"sliding_window": 64}),
        "qwen2": TinyBase("qwen2", _IM, SYSTEM + CHATML, "<|im_end|>", {"tie_word_embeddings": True}),
        "qwen3": TinyBase("qwen3", _IM, THINKING, "<|im_end|>", {"head_dim": 16, "tie_word_embeddings": True}),
        "gemma2": TinyBase(
            "gemma2",
            _GEMMA,
            GEMMA,
            "<end_of_turn>",
            {"head_dim": 16, "query_pre_attn_scalar": 16, "final_logit_softcapping": 0.5, "sliding_window": 64},
        ),
        "gemma3": TinyBase(
            "gemma3_text",
            _GEMMA,
            GEMMA,
            "<end_of_turn>",
            {"head_dim": 16, "query_pre_attn_scalar": 16, "sliding_window": 64, "eos_token_id": [1, 3]},
        ),
        "phi3": TinyBase(
            "phi3",
            {"eos_token": "<|endoftext|>", "additional": ["<|end|>", "<|user|>", "<|assistant|>"]},
            PHI3,
            "<|end|>",
            {"pad_token_id": 0, "sliding_window": None},
        ),
        "smollm3": TinyBase(
            "smollm3", _IM, DATED + CHATML, "<|im_end|>", {"tie_word_embeddings": True, "pad_token_id": 0}
        ),
        "gpt_neox": TinyBase(
            "gpt_neox", {"eos_token": "<|endoftext|>"}, None, "<|endoftext|>", {"num_key_value_heads": 4}
        ),
        "granite": TinyBase(
            "granite", _IM, CHATML, "<|im_end|>", {"logits_scaling": 8.0, "embedding_multiplier": 12.0}
        ),
    }
)


def write_tiny_base(name: str, folder: Path) -> Path:
    """Write a base's folder, without a ``target.toml``.

    Raises:
        KeyError: The installed transformers does not know the architecture.
    """
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    base = TINY_BASES[name]
    tokenizer = _tokenizer(base)
    sizes = {
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 1024,
        "vocab_size": len(tokenizer) + 5,  # some have spare rows
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": None,
    }
    config = AutoConfig.for_model(base.model_type, **{**sizes, **base.config})
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config)
    model.save_pretrained(folder, safe_serialization=True)
    tokenizer.save_pretrained(folder)
    return folder


def _tokenizer(base: TinyBase) -> Any:
    """A tokenizer of single bytes and the family's special tokens."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    vocabulary = {symbol: number for number, symbol in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    raw = Tokenizer(models.BPE(vocabulary, []))
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    special = dict(base.special)
    extra = special.pop("additional", [])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=raw, model_input_names=["input_ids", "attention_mask"], **special
    )
    tokenizer.add_special_tokens({"additional_special_tokens": extra})
    tokenizer.chat_template = base.template
    return tokenizer


def write_pairs(path: Path) -> Path:
    """A few short pairs of questions and answers."""
    rows = [
        {"prompt": f"What is {noun}?", "terse": f"A {noun}.", "verbose": f"{noun} is a thing that we know, and more."}
        for noun in ("rain", "snow", "wind", "fire", "sand", "gold", "iron", "salt")
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path
