"""Random weights of an exact Mistral shape, written shard by shard so that memory stays bounded."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file
from tqdm import tqdm
from transformers import GenerationConfig, MistralConfig

from pipeline.files import write_json

INITIALIZER_STD = 0.02
"""Standard deviation of the normal distribution that Mistral's own initialisation uses."""


@dataclass(frozen=True, slots=True)
class MistralShape:
    """Sizes of a Mistral model, in units of features, layers, heads and tokens."""

    hidden_size: int
    intermediate_size: int
    layers: int
    attention_heads: int
    key_value_heads: int
    vocabulary_size: int = 32768

    @property
    def head_size(self) -> int:
        """Features of one attention head."""
        return self.hidden_size // self.attention_heads

    @property
    def parameter_count(self) -> int:
        """All parameters, embeddings and the untied head included."""
        return sum(rows * max(columns, 1) for shard in self.shards() for rows, columns in shard.values())

    def shards(self) -> Iterator[dict[str, tuple[int, int]]]:
        """Tensor names and (rows, columns) of each shard; columns 0 marks a vector."""
        hidden, inner, keys = self.hidden_size, self.intermediate_size, self.key_value_heads * self.head_size
        for layer in range(self.layers):
            prefix = f"model.layers.{layer}."
            yield {
                f"{prefix}self_attn.q_proj.weight": (hidden, hidden),
                f"{prefix}self_attn.k_proj.weight": (keys, hidden),
                f"{prefix}self_attn.v_proj.weight": (keys, hidden),
                f"{prefix}self_attn.o_proj.weight": (hidden, hidden),
                f"{prefix}mlp.gate_proj.weight": (inner, hidden),
                f"{prefix}mlp.up_proj.weight": (inner, hidden),
                f"{prefix}mlp.down_proj.weight": (hidden, inner),
                f"{prefix}input_layernorm.weight": (hidden, 0),
                f"{prefix}post_attention_layernorm.weight": (hidden, 0),
            }
        yield {
            "model.embed_tokens.weight": (self.vocabulary_size, hidden),
            "lm_head.weight": (self.vocabulary_size, hidden),
            "model.norm.weight": (hidden, 0),
        }

    def config(self) -> MistralConfig:
        """The transformers configuration of this shape (Mistral v0.3: no sliding window, rope base 1e6)."""
        return MistralConfig(
            vocab_size=self.vocabulary_size,
            hidden_size=self.hidden_size,
            intermediate_size=self.intermediate_size,
            num_hidden_layers=self.layers,
            num_attention_heads=self.attention_heads,
            num_key_value_heads=self.key_value_heads,
            head_dim=self.head_size,
            max_position_embeddings=32768,
            sliding_window=None,
            rope_theta=1e6,
            rms_norm_eps=1e-5,
            bos_token_id=1,
            eos_token_id=2,
            tie_word_embeddings=False,
            architectures=["MistralForCausalLM"],
        )


SHAPES = {
    "mistral-7b-v0.3-synthetic": MistralShape(4096, 14336, 32, 32, 8),
    "tiny-mistral": MistralShape(64, 128, 2, 4, 2),
}


def write_random_mistral(folder: Path, shape: MistralShape, seed: int = 0) -> None:
    """Write config, bfloat16 safetensors shards (one layer each) and their index."""
    shape.config().save_pretrained(folder)
    GenerationConfig(bos_token_id=1, eos_token_id=2).save_pretrained(folder)
    generator = torch.Generator().manual_seed(seed)
    count = shape.layers + 1
    weight_map: dict[str, str] = {}
    size_bytes = 0
    for number, shard in enumerate(tqdm(shape.shards(), total=count, desc="random weights", unit="shard"), 1):
        name = f"model-{number:05d}-of-{count:05d}.safetensors"
        tensors = {}
        for tensor_name, (rows, columns) in shard.items():
            if columns:
                tensor = torch.empty(rows, columns, dtype=torch.bfloat16)
                tensors[tensor_name] = tensor.normal_(0.0, INITIALIZER_STD, generator=generator)
            else:
                tensors[tensor_name] = torch.ones(rows, dtype=torch.bfloat16)
            size_bytes += tensors[tensor_name].nbytes
            weight_map[tensor_name] = name
        save_file(tensors, folder / name, metadata={"format": "pt"})
    write_json(
        folder / "model.safetensors.index.json",
        {"metadata": {"total_size": size_bytes}, "weight_map": weight_map},
    )
