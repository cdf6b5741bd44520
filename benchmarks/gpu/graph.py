"""Decoding with a static cache, one step of it recorded as a CUDA graph.

Replaying the graph launches its kernels at once, where plain ``generate()`` launches each from Python. On a CPU the
same step is simply called.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from transformers import StaticCache


class GraphDecoder:
    """Greedy decoding of one answer at a time; the graph is made once and serves every prompt."""

    def __init__(self, model: Any, slots: int) -> None:
        """Record the step of a model in evaluation mode; prompt and answer fit ``slots`` positions."""
        self._model, device = model, model.device
        self._cache = StaticCache(
            config=model.config, max_cache_len=slots, max_batch_size=1, dtype=model.dtype, device=device
        )
        self._token = torch.zeros(1, 1, dtype=torch.long, device=device)
        self._position = torch.zeros(1, dtype=torch.long, device=device)
        self._slots = torch.arange(slots, device=device)
        with torch.inference_mode():
            self._prefill(torch.ones(1, 2, dtype=torch.long, device=device))
            self._next = self._recorded() if device.type == "cuda" else self._step

    def generate(self, ids: Tensor, tokens: int) -> list[int]:
        """Answer a prompt, ids of shape (1, length), with exactly ``tokens`` tokens; each is looked at as it comes."""
        with torch.inference_mode():
            self._prefill(ids)
            answer = [int(self._token)]
            while len(answer) < tokens:
                self._next()
                answer.append(int(self._token))
        return answer

    def _recorded(self) -> Callable[[], None]:
        side: torch.cuda.Stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(3):
                self._step()
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            self._step()
        return graph.replay

    def _prefill(self, ids: Tensor) -> None:
        self._cache.reset()
        output = self._model(input_ids=ids, past_key_values=self._cache, use_cache=True, logits_to_keep=1)
        self._token.copy_(output.logits[:, -1].argmax(dim=-1, keepdim=True))
        self._position.fill_(ids.shape[1])

    def _step(self) -> None:
        seen = (self._slots <= self._position).view(1, 1, 1, -1)
        if self._model.config._attn_implementation == "eager":  # adds its mask
            seen = torch.zeros_like(seen, dtype=self._model.dtype).masked_fill(~seen, float("-inf"))
        output = self._model(
            input_ids=self._token,
            attention_mask=seen,
            position_ids=self._position.view(1, 1),
            past_key_values=self._cache,
            use_cache=True,
            logits_to_keep=1,
        )
        self._token.copy_(output.logits[:, -1].argmax(dim=-1, keepdim=True))
        self._position.add_(1)
