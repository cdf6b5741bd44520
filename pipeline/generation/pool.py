"""Decoding many answers at once on a CPU: an answer that ends makes room for the next one.

Runs the layers of Mistral's and Llama's architecture with the values of the loaded model, which is not changed:
4-bit weights are dequantised once, since a large batch multiplies faster with bfloat16 values than with packed ones;
projections of one input share a product, and an adapter stays unmerged. Every answer has a place in a cache that is
allocated once, so that nothing is copied from token to token.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from peft.tuners.lora import LoraLayer
from torch import Tensor
from torch.nn import functional

from pipeline.config import GenerationConfig
from pipeline.model.adapter import ADAPTER
from pipeline.model.dequantize import plain_weight

PROMPTS_AT_ONCE = 8
"""Answers join when as many places are free, so that a pass over the weights reads several prompts."""
NUCLEUS_CANDIDATES = 256
"""Likeliest tokens among which a nucleus is searched before the full vocabulary is sorted."""


class _Projections:
    """Projections of one input: their values in one matrix, and LoRA's factors around them."""

    def __init__(self, layers: Sequence[Any], dtype: torch.dtype) -> None:
        bases = [layer.get_base_layer() if isinstance(layer, LoraLayer) else layer for layer in layers]
        weights = [plain_weight(base) for base in bases]
        self._weight, self._sizes = torch.cat(weights).to(dtype), [weight.shape[0] for weight in weights]
        factors = [_factors(layer, weight) for layer, weight in zip(layers, weights, strict=True)]
        self._a = torch.cat([a for a, _ in factors]).to(dtype)
        self._b = torch.block_diag(*[b for _, b in factors]).to(dtype)  # type: ignore[no-untyped-call]

    def __call__(self, inputs: Tensor) -> tuple[Tensor, ...]:
        """The output of each, for ``inputs`` of shape (tokens, width)."""
        output = functional.linear(inputs, self._weight)
        if len(self._a):
            output.addmm_(functional.linear(inputs, self._a), self._b.t())
        return torch.split(output, self._sizes, dim=-1)


def _factors(layer: Any, weight: Tensor) -> tuple[Tensor, Tensor]:
    """LoRA's A and scaled B in float32; without an adapter both are empty."""
    if not isinstance(layer, LoraLayer):
        return weight.new_zeros(0, weight.shape[1]), weight.new_zeros(weight.shape[0], 0)
    a, b = layer.lora_A[ADAPTER].weight, layer.lora_B[ADAPTER].weight
    return a.detach().float(), b.detach().float() * layer.scaling[ADAPTER]


class _Layer:
    """One decoder layer."""

    def __init__(self, layer: Any, dtype: torch.dtype) -> None:
        attention, mlp = layer.self_attn, layer.mlp
        self._norms, self._head_size = (layer.input_layernorm, layer.post_attention_layernorm), attention.head_dim
        self._qkv = _Projections([attention.q_proj, attention.k_proj, attention.v_proj], dtype)
        self._output = _Projections([attention.o_proj], dtype)
        self._gate_up, self._down = (
            _Projections([mlp.gate_proj, mlp.up_proj], dtype),
            _Projections([mlp.down_proj], dtype),
        )

    def heads(self, hidden: Tensor, cosine: Tensor, sine: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Rotated queries, rotated keys, and values of (tokens, width): each (tokens, heads, size)."""
        parts = self._qkv(_normalized(hidden, self._norms[0]))
        query, key, value = (torch.unflatten(part, -1, (-1, self._head_size)) for part in parts)
        return _rotated(query, cosine, sine), _rotated(key, cosine, sine), value

    def rest(self, hidden: Tensor, attended: Tensor) -> Tensor:
        """``hidden`` after the layer, of what attention gave, both of shape (tokens, width)."""
        hidden = hidden + self._output(attended)[0]
        gate, up = self._gate_up(_normalized(hidden, self._norms[1]))
        return hidden + self._down(functional.silu(gate) * up)[0]


def _normalized(hidden: Tensor, norm: Any) -> Tensor:
    return functional.rms_norm(hidden, hidden.shape[-1:], norm.weight, norm.variance_epsilon)


def _rotated(vectors: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
    first, second = vectors.chunk(2, dim=-1)
    return vectors * cosine + torch.cat((-second, first), dim=-1) * sine


@dataclass(slots=True)
class Row:
    """An answer in the making.

    Attributes:
        prompt: Token ids of the prompt.
        limits: Decoding limits.
        draws: A number from 0 to 1 for each token of the answer, if it is sampled.
        answer: The token ids generated so far.
    """

    prompt: Sequence[int]
    limits: GenerationConfig
    draws: Sequence[float]
    answer: list[int] = field(default_factory=list)

    def has_ended(self, eos_id: int) -> bool:
        """Whether the limit is reached or the last token was EOS."""
        return len(self.answer) >= self.limits.max_new_tokens or self.answer[-1] == eos_id


class _Cache:
    """Keys and values of the rows that are being decoded; the rows take the first places."""

    def __init__(self, keys_values: Tensor) -> None:
        """``keys_values`` has the shape (2, layers, places, heads, tokens, size)."""
        self.rows: list[Row] = []
        self.keys_values = keys_values
        self.places = keys_values.shape[2]

    def drop_ended(self, eos_id: int) -> None:
        """Let the rows that have ended go; the last ones move to their places."""
        for place in reversed(range(len(self.rows))):
            if self.rows[place].has_ended(eos_id):
                last = self.rows.pop()
                if place < len(self.rows):
                    self.rows[place] = last
                    self.keys_values[:, :, place].copy_(self.keys_values[:, :, len(self.rows)])


class Pool:
    """Decodes with one model; the embeddings are read from the model at every call, the other weights once."""

    def __init__(self, model: Any, eos_id: int) -> None:
        """Prepare the weights.

        Args:
            model: Mistral's or Llama's architecture on a CPU, 4-bit or not, with LoRA or not.
            eos_id: The token that ends an answer.
        """
        decoder = model.get_decoder()
        self._embed, self._rotary, self._norm = decoder.embed_tokens, decoder.rotary_emb, decoder.norm
        self._head, self._eos_id = model.get_output_embeddings(), eos_id
        self._dtype: torch.dtype = decoder.norm.weight.dtype
        self._layers = [_Layer(layer, self._dtype) for layer in decoder.layers]
        self._heads, self._head_size = decoder.config.num_key_value_heads, decoder.layers[0].self_attn.head_dim

    @torch.inference_mode()
    def decode(self, rows: Sequence[Row], places: int) -> None:
        """Complete answers, the first ones first.

        Args:
            rows: What is asked; each gets its ``answer``, with the EOS that ended it.
            places: Answers that are decoded at the same time.
        """
        waiting = list(reversed(rows))
        longest = max(len(row.prompt) + row.limits.max_new_tokens for row in rows)
        shape = (2, len(self._layers), min(places, len(rows)), self._heads, longest, self._head_size)
        cache = _Cache(torch.zeros(shape, dtype=self._dtype))
        while waiting or cache.rows:
            room = min(cache.places - len(cache.rows), len(waiting), PROMPTS_AT_ONCE)
            if room and (room == min(len(waiting), PROMPTS_AT_ONCE) or not cache.rows):
                self._read(cache, [waiting.pop() for _ in range(room)])
            else:
                self._step(cache)
            cache.drop_ended(self._eos_id)

    def _read(self, cache: _Cache, joining: list[Row]) -> None:
        """Read the prompts of rows, padded on the right, put them into the cache and choose their first tokens."""
        count, first = len(joining), len(cache.rows)
        lengths = [len(row.prompt) for row in joining]
        width = max(lengths)
        ids = torch.tensor([[*row.prompt, *[self._eos_id] * (width - len(row.prompt))] for row in joining])

        def attend(index: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
            query, key, value = (
                torch.unflatten(part, 0, (count, width)).transpose(1, 2) for part in (query, key, value)
            )
            cache.keys_values[0, index, first : first + count, :, :width] = key
            cache.keys_values[1, index, first : first + count, :, :width] = value
            attended = functional.scaled_dot_product_attention(query, key, value, is_causal=True, enable_gqa=True)
            return attended.transpose(1, 2).flatten(0, 1)

        hidden = torch.unflatten(
            self._hidden(ids.flatten(), torch.arange(width).repeat(count), attend), 0, (count, width)
        )
        cache.rows += joining
        self._choose(hidden[torch.arange(count), torch.tensor(lengths) - 1], joining)

    def _step(self, cache: _Cache) -> None:
        """Give every row one more token."""
        count, ids = len(cache.rows), torch.tensor([row.answer[-1] for row in cache.rows])
        positions = torch.tensor([len(row.prompt) + len(row.answer) - 1 for row in cache.rows])
        places, width = torch.arange(count), int(positions.max()) + 1
        seen = (torch.arange(width) <= positions.unsqueeze(1))[:, None, None]  # (rows, 1, 1, tokens)

        def attend(index: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
            keys, values = (part[:count] for part in cache.keys_values[:, index].unbind())
            keys[places, :, positions], values[places, :, positions] = key, value
            # The queries that share a key stand where others have a sequence: no key is copied.
            grouped = torch.unflatten(query, 1, (self._heads, -1))
            attended = functional.scaled_dot_product_attention(
                grouped, keys[:, :, :width], values[:, :, :width], attn_mask=seen
            )
            return attended.flatten(1, 2)

        self._choose(self._hidden(ids, positions, attend), cache.rows)

    def _hidden(self, ids: Tensor, positions: Tensor, attend: Callable[..., Tensor]) -> Tensor:
        """The decoder's normalised output, shape (tokens, width), of ids and positions of shape (tokens)."""
        hidden = self._embed(ids.unsqueeze(0))
        cosine, sine = (part[0].unsqueeze(1) for part in self._rotary(hidden, positions.unsqueeze(0)))
        hidden = hidden[0].to(self._dtype)
        for index, layer in enumerate(self._layers):
            attended = attend(index, *layer.heads(hidden, cosine, sine))
            hidden = layer.rest(hidden, attended.flatten(-2))
        return _normalized(hidden, self._norm)

    def _choose(self, hidden: Tensor, rows: Sequence[Row]) -> None:
        """Append each row's next token."""
        scores = self._head(hidden).float()
        early = [place for place, row in enumerate(rows) if len(row.answer) < row.limits.min_new_tokens]
        scores[early, self._eos_id] = -torch.inf
        tokens = scores.argmax(dim=-1)
        sampled = [place for place, row in enumerate(rows) if row.limits.temperature > 0]
        if sampled:
            tokens[sampled] = _drawn(scores[sampled], [rows[place] for place in sampled])
        for row, token in zip(rows, tokens.tolist(), strict=True):
            row.answer.append(token)


def _drawn(scores: Tensor, rows: Sequence[Row]) -> Tensor:
    """A token of each row's nucleus: the first whose probability, with those of likelier ones, reaches the draw."""
    temperature, top_p, draw = (
        torch.tensor(values).unsqueeze(1)
        for values in zip(
            *((row.limits.temperature, row.limits.top_p, row.draws[len(row.answer)]) for row in rows), strict=True
        )
    )
    scores = scores / temperature
    total = scores.logsumexp(dim=-1, keepdim=True)
    candidates, tokens = scores.topk(min(NUCLEUS_CANDIDATES, scores.shape[-1]))
    if ((candidates - total).exp().sum(dim=-1, keepdim=True) < top_p).any():
        candidates, tokens = scores.sort(dim=-1, descending=True)
    probabilities = (candidates - total).exp()
    before = probabilities.cumsum(dim=-1) - probabilities
    nucleus = probabilities.where(before < top_p, 0).cumsum(dim=-1)
    chosen = torch.searchsorted(nucleus, draw * nucleus[:, -1:])
    return tokens.gather(1, chosen).squeeze(1)
