"""A model's layers over a cache of slots: fused ones for Mistral's and Llama's architecture, else the model's own."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn import functional
from transformers import Cache

from pipeline.model.fused import FusedProjections, WeightForm, affordable_form
from pipeline.model.heads import decoder_of

FUSED = ("mistral", "llama")
"""``model_type`` of the architectures whose layers are computed here."""


class Layers(Protocol):
    """A model's computation from token ids to logits.

    Attributes:
        weights: How the base's weights are held, in words.
    """

    weights: str

    def __call__(self, tokens: Tokens, kept: Tensor) -> Tensor:
        """Logits after some of the tokens of each slot, those of index ``kept``, shape (slots x kept, vocabulary)."""

    def over(self, cache: Tensor) -> Layers:
        """The same weights over another cache."""


@dataclass(frozen=True, slots=True)
class Tokens:
    """New tokens of neighbouring slots, as many of each, and what they attend to.

    Attributes:
        slots: First slot, and number of slots.
        ids: Shape (slots, tokens of each), like positions.
        positions: Where each stands in its slot.
        length: Cached tokens of each slot that are looked at.
        cells: Where the cache takes each token, shape (tokens,), as a slot's number times its size plus the position.
        unseen: Added to the attention's scores, shape (slots, 1, tokens of each, length).
    """

    slots: tuple[int, int]
    ids: Tensor
    positions: Tensor
    length: int
    cells: Tensor
    unseen: Tensor


class _Norm:
    """Root mean square normalisation in one kernel."""

    def __init__(self, norm: Any) -> None:
        self._weight, self._epsilon = norm.weight.detach(), norm.variance_epsilon

    def __call__(self, hidden: Tensor) -> Tensor:
        return functional.rms_norm(hidden, self._weight.shape, self._weight, self._epsilon)


class _Layer:
    """One decoder layer with its projections prepared, and its part of the cache."""

    def __init__(self, layer: Any, cache: Tensor, form: WeightForm) -> None:
        attention, mlp = layer.self_attn, layer.mlp
        self._norms = _Norm(layer.input_layernorm), _Norm(layer.post_attention_layernorm)
        self._look_at(cache)
        self._qkv = FusedProjections([attention.q_proj, attention.k_proj, attention.v_proj], cache.dtype, form)
        self._output = FusedProjections([attention.o_proj], cache.dtype, form)
        self._gate_up = FusedProjections([mlp.gate_proj, mlp.up_proj], cache.dtype, form)
        self._down = FusedProjections([mlp.down_proj], cache.dtype, form)

    def _look_at(self, cache: Tensor) -> None:
        self._keys, self._values = cache  # (slots, tokens of a slot, heads, head size)
        self._cells = self._keys.flatten(0, 1), self._values.flatten(0, 1)

    def over(self, cache: Tensor) -> _Layer:
        """The same weights over another layer's part of a cache."""
        other = copy.copy(self)
        other._look_at(cache)
        return other

    def __call__(self, hidden: Tensor, tokens: Tokens, rotation: tuple[Tensor, Tensor], unseen: Tensor) -> Tensor:
        """``hidden`` after the layer, shape (tokens, width)."""
        vectors = self._qkv(self._norms[0](hidden))
        hidden = hidden + self._output(self._attended(vectors, tokens, rotation, unseen))
        gate, up = self._gate_up(self._norms[1](hidden)).chunk(2, dim=-1)
        return hidden + self._down(functional.silu(gate) * up)

    def _attended(self, vectors: Tensor, tokens: Tokens, rotation: tuple[Tensor, Tensor], unseen: Tensor) -> Tensor:
        heads, head_size = self._keys.shape[-2:]  # of keys and values
        vectors = torch.unflatten(
            vectors, -1, (-1, head_size)
        )  # (tokens, heads of queries, keys and values, head size)
        rotated = _rotated(vectors[:, :-heads], *rotation)
        self._cells[0].index_copy_(0, tokens.cells, rotated[:, -heads:])
        self._cells[1].index_copy_(0, tokens.cells, vectors[:, -heads:])
        first, slots = tokens.slots
        keys, values = (
            cache[first : first + slots, : tokens.length].transpose(1, 2) for cache in (self._keys, self._values)
        )
        # The queries that share a key stand below each other, so that no key is repeated.
        queries = torch.unflatten(torch.unflatten(rotated[:, :-heads], 1, (heads, -1)), 0, (slots, -1)).permute(
            0, 2, 3, 1, 4
        )
        attended = functional.scaled_dot_product_attention(queries.flatten(2, 3), keys, values, attn_mask=unseen)
        return attended.view(queries.shape).permute(0, 3, 1, 2, 4).reshape(len(vectors), -1)


def _rotated(vectors: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
    half = vectors.shape[-1] // 2
    rotated = vectors * cosine
    rotated[..., :half].addcmul_(vectors[..., half:], sine[..., :half], value=-1)
    rotated[..., half:].addcmul_(vectors[..., :half], sine[..., half:])
    return rotated


class FusedLayers:
    """Layers whose projections were prepared once; some twenty kernels each."""

    def __init__(self, model: Any, cache: Tensor, form: WeightForm | None) -> None:
        """Prepare the weights in a form; None takes the fastest for which the device has the memory."""
        form = form or affordable_form(model)
        decoder = decoder_of(model)
        self.weights = form if form == "nf4" else f"{form} to {cache.dtype}".replace("torch.", "")
        self._embed, self._norm = model.get_input_embeddings(), _Norm(decoder.norm)
        self._layers = [_Layer(*pair, form) for pair in zip(decoder.layers, cache, strict=True)]
        self._head = FusedProjections([model.get_output_embeddings()], cache.dtype)
        self._group_size = model.config.num_attention_heads // model.config.num_key_value_heads
        places = torch.arange(cache.shape[3], device=cache.device)
        self._rotation = tuple(part[0].unsqueeze(1) for part in decoder.rotary_emb(cache, places.unsqueeze(0)))

    def over(self, cache: Tensor) -> FusedLayers:
        """As the protocol says."""
        other = copy.copy(self)
        other._layers = [layer.over(part) for layer, part in zip(self._layers, cache, strict=True)]
        return other

    def __call__(self, tokens: Tokens, kept: Tensor) -> Tensor:
        """As the protocol says."""
        cosine, sine = (part[tokens.positions.flatten()] for part in self._rotation)
        slots = tokens.slots[1]
        # Queries that share a key stand below each other, and so do their rows here.
        unseen = tokens.unseen.repeat(1, self._group_size, 1, 1).view(slots, 1, -1, tokens.length)
        hidden: Tensor = self._embed(tokens.ids).flatten(0, 1).to(unseen.dtype)
        for layer in self._layers:
            hidden = layer(hidden, tokens, (cosine, sine), unseen)
        return self._head(self._norm(torch.unflatten(hidden, 0, (slots, -1))[:, kept].flatten(0, 1)))


class ModelLayers:
    """The model's own forward pass over the slots, for every other architecture."""

    weights = "as loaded"

    def __init__(self, model: Any, cache: Tensor) -> None:
        """Compute with a model as it is."""
        self._model, self._cache = model, cache

    def over(self, cache: Tensor) -> ModelLayers:
        """As the protocol says."""
        return ModelLayers(self._model, cache)

    def __call__(self, tokens: Tokens, kept: Tensor) -> Tensor:
        """As the protocol says."""
        logits: Tensor = self._model(
            input_ids=tokens.ids,
            position_ids=tokens.positions,
            attention_mask=tokens.unseen,
            past_key_values=_SlotCache(self._cache, tokens),
            use_cache=True,
            logits_to_keep=kept,
        ).logits
        return logits.flatten(0, 1)


class _SlotCache(Cache):  # type: ignore[misc]
    """What a model's attention asks of a cache, for one pass."""

    def __init__(self, cache: Tensor, tokens: Tokens) -> None:
        # Without the base's constructor, which differs between releases: nothing of it is used.
        self.layers: list[Any] = []
        self._slots, self._tokens = cache, tokens

    def update(self, key: Tensor, value: Tensor, layer_idx: int, *others: Any, **more: Any) -> tuple[Tensor, Tensor]:
        first, slots = self._tokens.slots
        seen = []
        for cached, new in zip(self._slots[layer_idx], (key, value), strict=True):
            cached.flatten(0, 1).index_copy_(0, self._tokens.cells, new.transpose(1, 2).flatten(0, 1).to(cached.dtype))
            seen.append(cached[first : first + slots, : self._tokens.length].transpose(1, 2))
        return seen[0], seen[1]

    def get_seq_length(self, *others: Any, **more: Any) -> int:
        return 0
