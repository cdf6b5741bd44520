"""What training must know of a base model, read from its folder without loading it; and what cannot be a base."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from math import prod
from pathlib import Path
from typing import Any

from pipeline.config import AdapterConfig, Preset
from pipeline.errors import PipelineError
from pipeline.model.shapes import MistralShape, model_config

_IN_LAYER = re.compile(r"\.\d+\.(?:.*\.)?(?P<module>[^.]+)\.weight")
_HEADS = ("lm_head", "embed_out")
_DOCUMENTED = AdapterConfig().target_modules


@dataclass(frozen=True, slots=True)
class Architecture:
    """A decoder-only model's parts, by the names of their modules.

    Attributes:
        projections: Every kind of matrix in a decoder layer; LoRA is put around each.
        embeddings: The token embeddings.
        head: The output head, whether it is tied to the embeddings or not.
        packs: Whether the padding-free path computes this architecture.
    """

    projections: tuple[str, ...]
    embeddings: str
    head: str
    packs: bool

    @classmethod
    def of_folder(cls, folder: Path) -> Architecture:
        """Read it from ``config.json`` and the names of the weights; without weights it is taken for Mistral's.

        Raises:
            PipelineError: The weights have no matrix in a layer, or no token embeddings.
        """
        config, tensors = model_config(folder), tensor_shapes(folder)
        packs = _packs(config)
        if not tensors:
            return cls(_DOCUMENTED, "embed_tokens", "lm_head", packs)
        found = {match["module"] for name in layer_matrices(tensors) if (match := _IN_LAYER.search(name))}
        outside = [name.split(".")[-2] for name in vocabulary_matrices(tensors, config)]
        embeddings = [name for name in outside if name not in _HEADS]
        if not found or not embeddings:
            raise PipelineError(
                f"{folder}: its weights have no layers of matrices or no token embeddings; name a decoder."
            )
        # In the documented order, which is the recorded one, and then by name.
        order = {name: place for place, name in enumerate(_DOCUMENTED)}
        projections = tuple(sorted(found, key=lambda name: (order.get(name, len(order)), name)))
        head = next((name for name in outside if name in _HEADS), "lm_head")
        return cls(projections, embeddings[0], head, packs and set(projections) == set(_DOCUMENTED))

    def fit(self, preset: Preset) -> Preset:
        """The preset with this architecture's names, and padded micro-batches where rows cannot be packed."""
        whole = (self.embeddings, self.head) if preset.adapter.modules_to_save else ()
        adapter = dataclasses.replace(preset.adapter, target_modules=self.projections, modules_to_save=whole)
        padding_free = preset.training.padding_free and self.packs
        training = dataclasses.replace(preset.training, padding_free=padding_free)
        return dataclasses.replace(preset, adapter=adapter, training=training)


@dataclass(frozen=True, slots=True)
class FolderShape(MistralShape):
    """The shape of another architecture, as its folder's weights have it.

    Attributes:
        tensors: Rows and columns of each tensor, by name; 0 columns mark what is no matrix.
        vocabulary: Names of the matrices with a row for each token.
    """

    tensors: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    vocabulary: frozenset[str] = frozenset()

    def shards(self) -> Iterator[dict[str, tuple[int, int]]]:
        """Yield all tensors; those of the vocabulary have grown to its size."""
        yield {
            name: (max(rows, self.vocabulary_size), columns) if name in self.vocabulary else (rows, columns)
            for name, (rows, columns) in self.tensors.items()
        }

    def projections(self) -> dict[str, tuple[int, int]]:
        """Rows and columns of each matrix of the decoder's layers, by tensor name."""
        return layer_matrices(self.tensors)


def shape_of(folder: Path) -> MistralShape:
    """The shape of a base model: Mistral's and Llama's by formula, others from the headers of their weights.

    Raises:
        PipelineError: The folder has no ``config.json`` of a language model, or other weights than it says.
    """
    config = model_config(folder)
    width = (config.get("head_dim") or 0) * config.get("num_attention_heads", 0)
    by_formula = config["model_type"] in ("mistral", "llama") and width in (0, config.get("hidden_size"))
    tensors = {} if by_formula else tensor_shapes(folder)
    if not tensors:
        return MistralShape.of_folder(folder)
    from transformers import AutoConfig

    sizes = AutoConfig.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
    hidden: int = sizes.hidden_size
    return FolderShape(
        hidden,
        getattr(sizes, "intermediate_size", None) or 4 * hidden,
        sizes.num_hidden_layers,
        sizes.num_attention_heads,
        getattr(sizes, "num_key_value_heads", None) or sizes.num_attention_heads,
        sizes.vocab_size,
        tied_head=len(vocabulary_matrices(tensors, config)) == 1,
        tensors={
            name: (shape[0], shape[1]) if len(shape) == 2 else (prod(shape), 0) for name, shape in tensors.items()
        },
        vocabulary=frozenset(vocabulary_matrices(tensors, config)),
    )


def tensor_shapes(folder: Path) -> dict[str, tuple[int, ...]]:
    """The shape of each tensor in a folder's safetensors files, by name, from their headers.

    Raises:
        PipelineError: A file is damaged.
    """
    from safetensors import SafetensorError, safe_open

    shapes: dict[str, tuple[int, ...]] = {}
    for file in sorted(folder.glob("*.safetensors")):
        try:
            with safe_open(file, framework="numpy") as weights:
                shapes.update({name: tuple(weights.get_slice(name).get_shape()) for name in weights.keys()})  # noqa: SIM118
        except (OSError, SafetensorError) as error:
            raise PipelineError(f"{file}: damaged ({error}); copy the weights again.") from error
    return shapes


def layer_matrices(tensors: Mapping[str, tuple[int, ...]]) -> dict[str, tuple[int, int]]:
    """The matrices of the decoder's layers, which are loaded in 4 bits."""
    return {
        name: (shape[0], shape[1])
        for name, shape in tensors.items()
        if len(shape) == 2 and shape[1] and _IN_LAYER.search(name)
    }


def vocabulary_matrices(
    tensors: Mapping[str, tuple[int, ...]], config: Mapping[str, Any]
) -> dict[str, tuple[int, int]]:
    """The matrices with a row for each token: embeddings and, where it is not tied to them, head."""
    rows = config.get("vocab_size", 0)
    inside = layer_matrices(tensors)
    return {
        name: (shape[0], shape[1])
        for name, shape in tensors.items()
        if len(shape) == 2 and shape[0] >= rows and name not in inside and not re.search("position|wpe", name)
    }


def _packs(config: Mapping[str, Any]) -> bool:
    """Whether the layers are exactly those that ``pipeline.training.packed_model`` runs."""
    biased = config.get("attention_bias") or config.get("mlp_bias")
    windowed = config.get("sliding_window") is not None
    plain = config["model_type"] in ("mistral", "llama") and config.get("hidden_act", "silu") == "silu"
    return plain and not biased and not windowed


def require_usable(folder: Path) -> None:
    """Check that a folder holds a base that this pipeline can train.

    Raises:
        PipelineError: It does not; one line says why and what to do.
    """
    config = model_config(folder)
    refuse = partial(_refusal, folder)
    if "quantization_config" in config:
        method = config["quantization_config"].get("quant_method", "unknown")
        raise refuse(f"its weights are quantised already ({method}); name the folder of the unquantised model.")
    if any(part in config for part in ("vision_config", "audio_config")):
        raise refuse("it reads images or sound, too; name a text-only model.")
    if config.get("is_encoder_decoder"):
        raise refuse("it has an encoder and a decoder; name a decoder-only model.")
    if max(config.get(count) or 0 for count in ("num_experts", "num_local_experts", "n_routed_experts")) > 1:
        raise refuse("it is a mixture of experts, which would not be loaded in 4 bits; name a dense model.")
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES as CAUSAL

    kind = config["model_type"]
    if kind not in CAUSAL:
        if "auto_map" in config:
            raise refuse(f"{kind} needs the folder's own code, which is never run; name a model of transformers' own.")
        raise refuse(
            f"{kind} is no decoder-only language model of the installed transformers; name another or update it."
        )
    names = config.get("architectures") or []
    if names and not set(names) & {
        name for entry in CAUSAL.values() for name in (entry if isinstance(entry, tuple) else (entry,))
    }:
        raise refuse(f"{names[0]} does not generate text; name a decoder-only language model.")


def _refusal(folder: Path, reason: str) -> PipelineError:
    return PipelineError(f"{folder}: cannot be a base: {reason}")
