"""Logits processors that transformers' continuous batching lacks; they need transformers 5."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from transformers.generation.continuous_batching.cb_logits_processors import (
    ContinuousBatchingLogitsProcessor,
    ContinuousBatchingTopPLogitsWarper,
)

NUCLEUS_CANDIDATES = 256
"""Likeliest tokens among which a nucleus is searched before the full vocabulary is sorted."""


class MinNewTokens(ContinuousBatchingLogitsProcessor):
    """Masks EOS until a request has its ``min_new_tokens``.

    It must come first: after top-p, a nucleus of EOS alone would leave no token at all, which ends the engine's thread.
    """

    supported_kwargs: ClassVar[dict[str, type]] = {"min_new_tokens": int}
    ignored_kwargs: ClassVar[tuple[str, ...]] = ()

    def __init__(self, eos_token_id: int) -> None:
        """``eos_token_id`` is the token to mask."""
        self._eos_token_id = eos_token_id

    def fill_defaults(self, int32_tensor: torch.Tensor) -> None:
        """Mask nothing."""
        int32_tensor.zero_()

    def prepare_tensor_args(self, requests_with_new_token: Sequence[Any]) -> torch.Tensor:
        """1 for each request below its minimum, shape [requests]."""
        states = [request.state for request in requests_with_new_token]
        goes_on = [generated_tokens(state) < state.logit_processor_kwargs.get("min_new_tokens", 0) for state in states]
        return torch.tensor(goes_on, dtype=torch.int32)

    def __call__(self, scores: torch.Tensor, tensor_arg: torch.Tensor) -> torch.Tensor:
        """Scores, shape [requests, vocabulary], with EOS masked where ``tensor_arg`` is 1."""
        goes_on = tensor_arg[: scores.size(0)].bool()
        scores[:, self._eos_token_id] = scores[:, self._eos_token_id].masked_fill(goes_on, -torch.inf)
        return scores


def generated_tokens(state: Any) -> int:
    """Generated tokens of a request; after a restart for lack of cache the earlier ones are in its prompt."""
    before = len(state.initial_tokens) - state._true_initial_tokens if state._true_initial_tokens else 0
    return before + int(state.generated_len())


class Greedy(ContinuousBatchingLogitsProcessor):
    """Keeps only the likeliest token of greedy requests, in a batch that otherwise samples."""

    supported_kwargs: ClassVar[dict[str, type]] = {"greedy": bool}
    ignored_kwargs: ClassVar[tuple[str, ...]] = ()

    def fill_defaults(self, int32_tensor: torch.Tensor) -> None:
        """Sample."""
        int32_tensor.zero_()

    def prepare_tensor_args(self, requests_with_new_token: Sequence[Any]) -> torch.Tensor:
        """1 for each greedy request, shape [requests]."""
        chosen = [request.state.logit_processor_kwargs.get("greedy", False) for request in requests_with_new_token]
        return torch.tensor(chosen, dtype=torch.int32)

    def __call__(self, scores: torch.Tensor, tensor_arg: torch.Tensor) -> torch.Tensor:
        """Scores, shape [requests, vocabulary]; only the best is finite where ``tensor_arg`` is 1."""
        greedy = tensor_arg[: scores.size(0)].bool()
        # On a GPU this check would synchronise, which a CUDA graph cannot.
        if not scores.is_cuda and not greedy.any():
            return scores
        best = torch.full_like(scores, -torch.inf).scatter(-1, scores.argmax(-1, keepdim=True), 0.0)
        return torch.where(greedy.unsqueeze(-1), best, scores)


class QuickTopP(ContinuousBatchingTopPLogitsWarper):
    """Top-p by a partial sort; on a CPU, sorting the full vocabulary takes as long as a step of a small model."""

    def __call__(self, scores: torch.Tensor, tensor_arg: torch.Tensor) -> torch.Tensor:
        """Scores, shape [requests, vocabulary], minus infinity outside each row's nucleus of mass ``tensor_arg``."""
        if scores.is_cuda:
            return self._of_all(scores, tensor_arg)
        top_p = tensor_arg[: scores.size(0)].view(dtype=torch.float32).unsqueeze(-1)
        candidates, tokens = scores.topk(min(NUCLEUS_CANDIDATES, scores.size(-1)))
        probabilities = (candidates - scores.logsumexp(-1, keepdim=True)).exp()
        mass = probabilities.cumsum(-1)
        if ((mass[:, -1:] < top_p) & (top_p < 1)).any():
            return self._of_all(scores, tensor_arg)
        outside = mass - probabilities >= top_p
        outside[:, 0] = False
        nucleus = torch.full_like(scores, -torch.inf).scatter(-1, tokens, candidates.masked_fill(outside, -torch.inf))
        return torch.where(top_p < 1, nucleus, scores)

    def _of_all(self, scores: torch.Tensor, tensor_arg: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = super().__call__(scores, tensor_arg)
        return found
