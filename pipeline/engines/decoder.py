"""Decoding a batch of answers step by step: the layers of Mistral's and Llama's architecture over a cache of slots.

The projections are fused and prepared once, so that a layer is some twenty kernels; with plain ``generate()`` it is
over a hundred. On a GPU a step is recorded once for each size as a CUDA graph and then replayed, the choice of tokens
included, and the host waits for nothing but the tokens; a CPU simply calls it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from pipeline.config import GenerationConfig
from pipeline.engines.sampling import Choice, choose
from pipeline.model.fused import FusedProjections, WeightForm, affordable_form

SLOT_TOKENS = {"cpu": 8192, "cuda": 2048}
"""Prompt and answer of one request. A CPU's cache takes memory as it fills, a GPU's at once."""
GRAPH_TOKENS = 256
"""On a GPU a step reads a multiple of so many cached tokens of each answer, so that few graphs are recorded."""
WARMUP_STEPS = 2


@dataclass(frozen=True, slots=True)
class _Tokens:
    """New tokens of neighbouring slots, as many of each, and what they attend to.

    Attributes:
        slots: First slot, and number of slots.
        length: Cached tokens of each slot that are looked at.
        cells: Where the cache takes each token, shape (tokens,), as a slot's number times its size plus the position.
        rotation: Cosine and sine for each token, shape (tokens, 1, head size).
        unseen: Added to the attention's scores, shape (slots, 1, heads per key x tokens of a slot, length).
    """

    slots: tuple[int, int]
    length: int
    cells: Tensor
    rotation: tuple[Tensor, Tensor]
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
        self._keys, self._values = cache  # (slots, tokens of a slot, heads, head size)
        self._cells = self._keys.flatten(0, 1), self._values.flatten(0, 1)
        self._qkv = FusedProjections([attention.q_proj, attention.k_proj, attention.v_proj], cache.dtype, form)
        self._output = FusedProjections([attention.o_proj], cache.dtype, form)
        self._gate_up = FusedProjections([mlp.gate_proj, mlp.up_proj], cache.dtype, form)
        self._down = FusedProjections([mlp.down_proj], cache.dtype, form)

    def __call__(self, hidden: Tensor, tokens: _Tokens) -> Tensor:
        """``hidden`` after the layer, shape (tokens, width)."""
        hidden = hidden + self._output(self._attended(self._qkv(self._norms[0](hidden)), tokens))
        gate, up = self._gate_up(self._norms[1](hidden)).chunk(2, dim=-1)
        return hidden + self._down(functional.silu(gate) * up)

    def _attended(self, vectors: Tensor, tokens: _Tokens) -> Tensor:
        heads, head_size = self._keys.shape[-2:]  # of keys and values
        vectors = torch.unflatten(
            vectors, -1, (-1, head_size)
        )  # (tokens, heads of queries, keys and values, head size)
        rotated = _rotated(vectors[:, :-heads], *tokens.rotation)
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
        attended = functional.scaled_dot_product_attention(queries.flatten(2, 3), keys, values, attn_mask=tokens.unseen)
        return attended.view(queries.shape).permute(0, 3, 1, 2, 4).reshape(len(vectors), -1)


def _rotated(vectors: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
    half = vectors.shape[-1] // 2
    rotated = vectors * cosine
    rotated[..., :half].addcmul_(vectors[..., half:], sine[..., :half], value=-1)
    rotated[..., half:].addcmul_(vectors[..., :half], sine[..., half:])
    return rotated


class Decoder:
    """Answers in slots 0, 1, ... and one further slot in which prompts are read; used by one thread, in inference mode.

    Attributes:
        weights: The form of the base's weights, in words.
        slot_tokens: Maximum of prompt and answer together.
    """

    def __init__(
        self,
        model: Any,
        eos_token_id: int,
        slots: int,
        slot_tokens: int | None = None,
        form: WeightForm | None = None,
    ) -> None:
        """Prepare the weights, reserve the cache and warm up.

        Args:
            model: A model in evaluation mode, with an adapter or without.
            eos_token_id: The token that ends an answer.
            slots: Maximum of answers at once.
            slot_tokens: Tokens of a slot, at most the model's context; by default ``SLOT_TOKENS``.
            form: Form of the base's weights; by default the fastest for which the device has the memory.
        """
        config, decoder, self._eos_token_id = model.config, model.get_decoder(), eos_token_id
        self._device: torch.device = model.device
        self._slots = slots
        self.slot_tokens = min(
            slot_tokens or SLOT_TOKENS[self._device.type],
            config.max_position_embeddings,
            # Within its window, Mistral's sliding attention is plain attention.
            getattr(config, "sliding_window", None) or config.max_position_embeddings,
        )
        self._embed, self._norm = model.get_input_embeddings(), _Norm(decoder.norm)
        dtype = decoder.norm.weight.dtype
        head_size = decoder.layers[0].self_attn.head_dim
        shape = (len(decoder.layers), 2, slots + 1, self.slot_tokens, config.num_key_value_heads, head_size)
        self._cache = torch.zeros(shape, dtype=dtype, device=self._device)
        self._group_size = config.num_attention_heads // config.num_key_value_heads
        form = form or affordable_form(model)
        self.weights = form if form == "nf4" else f"{form} to {dtype}".replace("torch.", "")
        self._layers = [_Layer(*pair, form) for pair in zip(decoder.layers, self._cache, strict=True)]
        self._head = FusedProjections([model.get_output_embeddings()], dtype)
        self._places = torch.arange(self.slot_tokens, device=self._device)
        cosine, sine = decoder.rotary_emb(self._cache, self._places.unsqueeze(0))
        self._rotation = cosine[0].unsqueeze(1), sine[0].unsqueeze(1)
        self._next = torch.zeros(slots, dtype=torch.long, device=self._device)
        self._positions = torch.zeros(slots, dtype=torch.long, device=self._device)
        self._choice = Choice.empty(slots + 1, self._device)
        self._given = torch.zeros(self.slot_tokens, dtype=torch.long, device=self._device)
        self._start, self._last, self._follower = torch.zeros(3, 1, dtype=torch.long, device=self._device)
        self._graphs: dict[tuple[str, int, int], torch.cuda.CUDAGraph] = {}
        for tokens in (32, 64):
            self.read([0] * tokens, 0, GenerationConfig())
        for size in {_graph_size(size, slots) for size in range(1, slots + 1)} if self._on_cuda else ():
            self._run(self._step, size, 1)
            self._run(self._step, size, min(2 * GRAPH_TOKENS, self.slot_tokens))

    @property
    def ahead(self) -> int:
        """Steps to launch before the tokens of the last are asked for, so that the device never waits."""
        return 1 if self._on_cuda else 0

    @property
    def _on_cuda(self) -> bool:
        return self._device.type == "cuda"

    def read(self, ids: Sequence[int], start: int, limits: GenerationConfig) -> int:
        """Read the next part of a prompt, which starts at a position; returns the token that follows it."""
        end = start + len(ids)
        self._choice.set(self._slots, limits, prompt_tokens=end)
        padded = _read_size(len(ids)) if self._on_cuda else len(ids)
        # What stands behind the part is overwritten before anything attends to it.
        self._given[:padded] = torch.tensor([*ids, *[0] * (padded - len(ids))], device=self._device)
        self._start.fill_(start)
        self._last.fill_(len(ids) - 1)
        self._run(self._read, padded, end)
        return int(self._follower)

    def _read(self, tokens: int, length: int) -> None:
        positions = (self._start + self._places[:tokens]).clamp_(max=self.slot_tokens - 1)
        hidden = self._hidden(self._given[:tokens].unsqueeze(0), positions.unsqueeze(0), self._slots, length)
        choice = self._choice.part(self._slots, self._slots + 1)
        logits, position = self._head(hidden[self._last]), positions[self._last]
        self._follower.copy_(choose(logits, position, choice, self._eos_token_id))

    def logits(self, ids: Sequence[int]) -> Tensor:
        """Logits after each token of a text, float32, shape (tokens, vocabulary), to compare with another model's."""
        positions = torch.arange(len(ids), device=self._device).unsqueeze(0)
        hidden = self._hidden(torch.tensor([ids], device=self._device), positions, self._slots, len(ids))
        return self._head(hidden).float()

    def join(self, slot: int, token: int, position: int) -> None:
        """Let the answer whose prompt was read go on in a slot, with its first token at a position."""
        self._copy(self._slots, slot, position)
        self._next[slot], self._positions[slot] = token, position

    def move(self, source: int, target: int, position: int) -> None:
        """Let an answer that has reached a position go on in another slot."""
        self._copy(source, target, position)
        self._next[target], self._positions[target] = self._next[source], self._positions[source]

    def _copy(self, source: int, target: int, length: int) -> None:
        self._cache[:, :, target, :length] = self._cache[:, :, source, :length]
        self._choice.copy(source, target)

    def launch(self, slots: int, length: int) -> Callable[[], list[int]]:
        """Start a step of the first ``slots`` slots, whose tokens are at positions below ``length``.

        Returns:
            A function that waits for the new tokens. A GPU computes in the meantime; a CPU only when it is called.
        """
        if not self._on_cuda:
            return partial(self._computed, slots, length)
        self._run(self._step, _graph_size(slots, self._slots), length)
        chosen = self._next[:slots].to("cpu", non_blocking=True)
        arrived: torch.cuda.Event = torch.cuda.Event()  # type: ignore[no-untyped-call]
        arrived.record()
        return partial(_arrived, chosen, arrived)

    def _computed(self, slots: int, length: int) -> list[int]:
        self._step(slots, length)
        tokens: list[int] = self._next[:slots].tolist()
        return tokens

    def _step(self, slots: int, length: int) -> None:
        positions = self._positions[:slots]
        hidden = self._hidden(self._next[:slots].unsqueeze(1), positions.unsqueeze(1), 0, length)
        self._next[:slots] = choose(self._head(hidden), positions, self._choice.part(0, slots), self._eos_token_id)
        positions.add_(1).clamp_(max=self.slot_tokens - 1)  # a graph's spare slots are never reset

    def _hidden(self, ids: Tensor, positions: Tensor, first_slot: int, length: int) -> Tensor:
        """Last hidden states, shape (tokens, width), of ids and positions of shape (slots, tokens of each)."""
        slots = len(ids)
        numbers = torch.arange(first_slot, first_slot + slots, device=self._device).unsqueeze(1)
        flat = positions.flatten()
        seen = self._places[:length] <= positions.unsqueeze(-1)  # (slots, tokens of each, length)
        unseen = torch.zeros(seen.shape, dtype=self._cache.dtype, device=self._device).masked_fill(~seen, -torch.inf)
        tokens = _Tokens(
            slots=(first_slot, slots),
            length=length,
            cells=(numbers * self.slot_tokens + positions).flatten(),
            rotation=(self._rotation[0][flat], self._rotation[1][flat]),
            unseen=unseen.unsqueeze(1).repeat(1, self._group_size, 1, 1).view(slots, 1, -1, length),
        )
        hidden: Tensor = self._embed(ids).flatten(0, 1).to(self._cache.dtype)
        for layer in self._layers:
            hidden = layer(hidden, tokens)
        return self._norm(hidden)

    def _run(self, work: Callable[[int, int], None], count: int, length: int) -> None:
        """Do work of a size that looks at ``length`` cached tokens; on a GPU record it first, and replay it."""
        if not self._on_cuda:
            work(count, length)
            return
        length = min(-(-length // GRAPH_TOKENS) * GRAPH_TOKENS, self.slot_tokens)
        key = work.__name__, count, length
        if key not in self._graphs:
            self._graphs[key] = self._recorded(partial(work, count, length))
        self._graphs[key].replay()

    def _recorded(self, work: Callable[[], None]) -> torch.cuda.CUDAGraph:
        """Work as a graph; it is done a few times first, and what that changes is put back."""
        before = self._next.clone(), self._positions.clone()
        side: torch.cuda.Stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(WARMUP_STEPS):
                work()
                self._next.copy_(before[0])
                self._positions.copy_(before[1])
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        pool = next(iter(self._graphs.values())).pool() if self._graphs else None
        with torch.cuda.graph(graph, pool=pool, capture_error_mode="thread_local"):
            work()
        return graph


def _arrived(tokens: Tensor, arrived: torch.cuda.Event) -> list[int]:
    arrived.synchronize()
    found: list[int] = tokens.tolist()
    return found


def _read_size(tokens: int) -> int:
    """The next power of two from 32 on."""
    return max(32, 1 << (tokens - 1).bit_length())


def _graph_size(slots: int, limit: int) -> int:
    """The next power of two, or multiple of 8, so that few graphs serve every number of answers."""
    rounded = 1 << (slots - 1).bit_length() if slots <= 8 else -(-slots // 8) * 8
    return min(rounded, limit)
