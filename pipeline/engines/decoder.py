"""Decoding a batch of answers step by step, over a cache of slots.

On a GPU a step is recorded once for each size as a CUDA graph and then replayed, the choice of tokens included, and
the host waits for nothing but the tokens; a CPU simply calls it.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from functools import partial
from mmap import mmap
from typing import Any

import torch
from torch import Tensor

from pipeline.config import GenerationConfig
from pipeline.engines.layers import FUSED, FusedLayers, Layers, ModelLayers, Tokens
from pipeline.engines.sampling import Choice, choose
from pipeline.model.fused import WeightForm

SLOT_TOKENS = {"cpu": 8192, "cuda": 2048}
"""Prompt and answer of one request. A CPU's cache takes memory as it fills, a GPU's at once."""
GRAPH_TOKENS = 256
"""On a GPU a step reads a multiple of so many cached tokens of each answer, so that few graphs are recorded."""
WARMUP_STEPS = 2
READ_TOGETHER = 16
"""Prompts that a CPU reads in one pass."""


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
        config, self._eos_token_id = model.config, eos_token_id
        self._device: torch.device = model.device
        self._slots = slots
        self.slot_tokens = min(
            slot_tokens or SLOT_TOKENS[self._device.type],
            config.max_position_embeddings,
            # Within its window, sliding attention is plain attention.
            getattr(config, "sliding_window", None) or config.max_position_embeddings,
        )
        heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
        head_size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        self._shape = (config.num_hidden_layers, 2, slots + 1, self.slot_tokens, heads, head_size)
        self._dtype = model.dtype
        self._reserve()
        is_fused = config.model_type in FUSED
        self._layers: Layers = FusedLayers(model, self._cache, form) if is_fused else ModelLayers(model, self._cache)
        self.weights = self._layers.weights
        for tokens in (32, 64):
            self.read([0] * tokens, 0, GenerationConfig())
        for size in {_graph_size(size, slots) for size in range(1, slots + 1)} if self._on_cuda else ():
            self._run(self._step, size, 1)
            self._run(self._step, size, min(2 * GRAPH_TOKENS, self.slot_tokens))

    def _reserve(self) -> None:
        """Make what belongs to the slots and not to the model."""
        self._cache = _zeros(self._shape, self._dtype, self._device)
        self._places = torch.arange(self.slot_tokens, device=self._device)
        self._next = torch.zeros(self._slots, dtype=torch.long, device=self._device)
        self._positions = torch.zeros(self._slots, dtype=torch.long, device=self._device)
        self._choice = Choice.empty(self._slots + 1, self._device)
        self._given = torch.zeros(self.slot_tokens, dtype=torch.long, device=self._device)
        self._start, self._last, self._follower = torch.zeros(3, 1, dtype=torch.long, device=self._device)
        self._graphs: dict[tuple[str, int, int], torch.cuda.CUDAGraph] = {}
        self._generators: list[torch.Generator | None] = [None] * (self._slots + 1)

    def beside(self) -> Decoder:
        """Another decoder over the same weights, for another thread; only on a CPU, where nothing was recorded."""
        other = copy.copy(self)
        other._reserve()
        other._layers = self._layers.over(other._cache)
        return other

    @property
    def ahead(self) -> int:
        """Steps to launch before the tokens of the last are asked for, so that the device never waits."""
        return 1 if self._on_cuda else 0

    @property
    def on_cpu(self) -> bool:
        """Whether several may compute at the same time, each in a thread of its own."""
        return not self._on_cuda

    @property
    def _on_cuda(self) -> bool:
        return self._device.type == "cuda"

    def read(self, ids: Sequence[int], start: int, limits: GenerationConfig) -> Callable[[], list[int]]:
        """Read the next part of a prompt, from a position on; returns a function that waits for the token after it."""
        end = start + len(ids)
        self._choice.set(self._slots, limits, prompt_tokens=end)
        padded = _read_size(len(ids)) if self._on_cuda else len(ids)
        # What stands behind the part is overwritten before anything attends to it.
        given = torch.tensor([*ids, *[0] * (padded - len(ids))])
        self._given[:padded].copy_(given.pin_memory() if self._on_cuda else given, non_blocking=True)
        self._start.fill_(start)
        self._last.fill_(len(ids) - 1)
        self._run(self._read, padded, end)
        return self._on_host(self._follower)

    @property
    def starts_at_once(self) -> int:
        """Prompts that ``start`` reads in one pass: on a CPU several, since each pass streams all weights."""
        return 1 if self._on_cuda else READ_TOGETHER

    def start(
        self, asked: Sequence[tuple[Sequence[int], GenerationConfig, torch.Generator | None]], first_slot: int
    ) -> list[int]:
        """Read entire prompts, and let their answers go on in neighbouring slots; returns the tokens after them.

        Args:
            asked: Token ids of each prompt, limits of its answer, and what that draws from on a CPU; None is torch's
                own. At most ``starts_at_once``.
            first_slot: The slot of the first.
        """
        if self._on_cuda:
            ((prompt, limits, _),) = asked
            follower = self.read(prompt, 0, limits)
            self.join(first_slot, len(prompt))
            return follower()
        prompts = [prompt for prompt, _, _ in asked]
        slots, longest = len(prompts), max(map(len, prompts))
        # Shorter ones end where the longest does. What stands before them goes into a cell that is overwritten before
        # anything attends to it.
        ids = torch.zeros(slots, longest, dtype=torch.long)
        positions = torch.full_like(ids, self.slot_tokens - 1)
        for row, (prompt, limits, generator) in enumerate(asked):
            ids[row, -len(prompt) :], positions[row, -len(prompt) :] = torch.tensor(prompt), self._places[: len(prompt)]
            self._choice.set(first_slot + row, limits, prompt_tokens=len(prompt))
            self._generators[first_slot + row] = generator
            self._positions[first_slot + row] = len(prompt)
        logits = self._layers(self._tokens(ids, positions, first_slot, longest), self._places[longest - 1 : longest])
        choice = self._choice.part(first_slot, first_slot + slots)
        generators = self._generators[first_slot : first_slot + slots]
        followers = choose(logits, positions[:, -1], choice, self._eos_token_id, generators)
        self._next[first_slot : first_slot + slots] = followers
        found: list[int] = followers.tolist()
        return found

    def _read(self, tokens: int, length: int) -> None:
        positions = (self._start + self._places[:tokens]).clamp_(max=self.slot_tokens - 1)
        given = self._tokens(self._given[:tokens].unsqueeze(0), positions.unsqueeze(0), self._slots, length)
        choice = self._choice.part(self._slots, self._slots + 1)
        logits = self._layers(given, self._last)
        self._follower.copy_(choose(logits, positions[self._last], choice, self._eos_token_id))

    def logits(self, ids: Sequence[int]) -> Tensor:
        """Logits after each token of a text, float32, shape (tokens, vocabulary), to compare with another model's."""
        given, places = torch.tensor([ids], device=self._device), self._places[: len(ids)]
        return self._layers(self._tokens(given, places.unsqueeze(0), self._slots, len(ids)), places).float()

    def join(self, slot: int, position: int) -> None:
        """Let the answer whose prompt was read go on in a slot, with its first token at a position."""
        self._copy(self._slots, slot, position)
        self._next[slot : slot + 1] = self._follower
        self._positions[slot] = position

    def move(self, source: int, target: int, position: int) -> None:
        """Let an answer that has reached a position go on in another slot."""
        self._copy(source, target, position)
        self._next[target], self._positions[target] = self._next[source], self._positions[source]

    def _copy(self, source: int, target: int, length: int) -> None:
        self._cache[:, :, target, :length] = self._cache[:, :, source, :length]
        self._choice.copy(source, target)
        self._generators[target] = self._generators[source]

    def launch(self, slots: int, length: int) -> Callable[[], list[int]]:
        """Start a step of the first ``slots`` slots, whose tokens are at positions below ``length``.

        Returns:
            A function that waits for the new tokens. A GPU computes in the meantime; a CPU only when it is called.
        """
        if not self._on_cuda:
            return partial(self._computed, slots, length)
        self._run(self._step, _graph_size(slots, self._slots), length)
        return self._on_host(self._next[:slots])

    def _on_host(self, tokens: Tensor) -> Callable[[], list[int]]:
        """A function that waits until the tokens as they will be by now have arrived."""
        copied = tokens.to("cpu", copy=True, non_blocking=self._on_cuda)
        if not self._on_cuda:
            return copied.tolist
        arrived: torch.cuda.Event = torch.cuda.Event()  # type: ignore[no-untyped-call]
        arrived.record()
        return partial(_arrived, copied, arrived)

    def _computed(self, slots: int, length: int) -> list[int]:
        self._step(slots, length)
        tokens: list[int] = self._next[:slots].tolist()
        return tokens

    def _step(self, slots: int, length: int) -> None:
        positions = self._positions[:slots]
        logits = self._layers(
            self._tokens(self._next[:slots].unsqueeze(1), positions.unsqueeze(1), 0, length), self._places[:1]
        )
        choice, generators = self._choice.part(0, slots), None if self._on_cuda else self._generators[:slots]
        self._next[:slots] = choose(logits, positions, choice, self._eos_token_id, generators)
        positions.add_(1).clamp_(max=self.slot_tokens - 1)  # a graph's spare slots are never reset

    def _tokens(self, ids: Tensor, positions: Tensor, first_slot: int, length: int) -> Tokens:
        """New tokens of slots, ids and positions of shape (slots, tokens of each)."""
        slots = len(ids)
        numbers = torch.arange(first_slot, first_slot + slots, device=self._device).unsqueeze(1)
        seen = self._places[:length] <= positions.unsqueeze(-1)
        unseen = torch.zeros(seen.shape, dtype=self._cache.dtype, device=self._device).masked_fill(~seen, -torch.inf)
        cells = (numbers * self.slot_tokens + positions).flatten()
        return Tokens((first_slot, slots), ids, positions, length, cells, unseen.unsqueeze(1))

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


def _zeros(shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    if device.type != "cpu":
        return torch.zeros(shape, dtype=dtype, device=device)
    # torch writes its zeros, and numpy asks for huge pages; the system's own take memory page by page as they are used.
    return torch.frombuffer(mmap(-1, math.prod(shape) * dtype.itemsize), dtype=dtype).view(shape)


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
