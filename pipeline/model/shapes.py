"""The shape of a Mistral or Llama model: its sizes, its tensors and its configuration."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.errors import PipelineError

if TYPE_CHECKING:
    from transformers import MistralConfig


def model_config(folder: Path) -> dict[str, Any]:
    """A model folder's ``config.json``.

    Raises:
        PipelineError: It is missing, unreadable or says no ``model_type``.
    """
    file = folder / "config.json"
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise PipelineError(f"{file}: cannot be read ({error}); name a model's folder.") from error
    if not isinstance(config, dict) or not isinstance(config.get("model_type"), str):
        raise PipelineError(f"{file}: lacks 'model_type'; restore the model's own config.json.")
    return config


@dataclass(frozen=True, slots=True)
class MistralShape:
    """Sizes of a Mistral model, in units of features, layers, heads and tokens."""

    hidden_size: int
    intermediate_size: int
    layers: int
    attention_heads: int
    key_value_heads: int
    vocabulary_size: int = 32768
    tied_head: bool = False

    @classmethod
    def of_folder(cls, folder: Path) -> MistralShape:
        """Read the shape from a model folder's ``config.json``, without its weights.

        Raises:
            PipelineError: ``config.json`` is missing, unreadable or of another architecture than Mistral or Llama.
        """
        file, config = folder / "config.json", model_config(folder)
        try:
            if config["model_type"] not in ("mistral", "llama"):
                raise PipelineError(f"{file}: model_type {config['model_type']!r}; use mistral or llama.")
            shape = cls(
                config["hidden_size"],
                config["intermediate_size"],
                config["num_hidden_layers"],
                config["num_attention_heads"],
                config["num_key_value_heads"],
                config["vocab_size"],
                config.get("tie_word_embeddings", False),
            )
        except KeyError as error:
            raise PipelineError(f"{file}: lacks {error}; restore the model's own config.json.") from None
        if (config.get("head_dim") or shape.head_size) != shape.head_size:  # null in some configurations
            raise PipelineError(f"{file}: head_dim is not hidden_size / num_attention_heads; this is not supported.")
        return shape

    @property
    def head_size(self) -> int:
        """Features of one attention head."""
        return self.hidden_size // self.attention_heads

    @property
    def parameter_count(self) -> int:
        """Number of parameters, including embeddings and an untied head."""
        return sum(rows * max(columns, 1) for shard in self.shards() for rows, columns in shard.values())

    def shards(self) -> Iterator[dict[str, tuple[int, int]]]:
        """Yield each shard as tensor names with (rows, columns); 0 columns mark a vector."""
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
        head = {} if self.tied_head else {"lm_head.weight": (self.vocabulary_size, hidden)}
        yield {
            "model.embed_tokens.weight": (self.vocabulary_size, hidden),
            **head,
            "model.norm.weight": (hidden, 0),
        }

    def projections(self) -> dict[str, tuple[int, int]]:
        """Rows and columns of each matrix of the decoder's layers, by tensor name."""
        return {name: size for shard in self.shards() for name, size in shard.items() if name.endswith("_proj.weight")}

    def config(self) -> MistralConfig:
        """The transformers configuration of this shape (Mistral v0.3: no sliding window, rope base 1e6)."""
        from transformers import MistralConfig

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
            tie_word_embeddings=self.tied_head,
            architectures=["MistralForCausalLM"],
        )


MISTRAL_7B = MistralShape(4096, 14336, 32, 32, 8)


SHAPES = {
    "mistral-7b-v0.3": MISTRAL_7B,
    "mistral-7b-v0.3-synthetic": MISTRAL_7B,
    "tiny-mistral": MistralShape(64, 128, 2, 4, 2),
    "smollm2-135m": MistralShape(576, 1536, 30, 9, 3, 49152, tied_head=True),
}
"""Shapes by target; targets with real weights use them for planning only."""
