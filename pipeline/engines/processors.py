"""What transformers' continuous batching lacks in its choice of the next token.

Importable with transformers 5 only.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from transformers.generation.continuous_batching.cb_logits_processors import (
    ContinuousBatchingLogitsProcessor,
    ContinuousBatchingTopPLogitsWarper,
)

NUCLEUS_CANDIDATES = 256
"""Tokens among which a nucleus is looked for before the whole vocabulary is sorted."""


class MinNewTokens(ContinuousBatchingLogitsProcessor):
    """Forbids the end until a request has its ``min_new_tokens``.

    It has to stand first: after top-p, a nucleus that holds nothing but the end would leave no token at all, which
    ends the engine's thread.
    """

    supported_kwargs: ClassVar[dict[str, type]] = {"min_new_tokens": int}
    ignored_kwargs: ClassVar[tuple[str, ...]] = ()

    def __init__(self, eos_token_id: int) -> None:
        """``eos_token_id`` is the token that is forbidden."""
        self._eos_token_id = eos_token_id

    def fill_defaults(self, int32_tensor: torch.Tensor) -> None:
        """Forbid nothing."""
        int32_tensor.zero_()

    def prepare_tensor_args(self, requests_with_new_token: Sequence[Any]) -> torch.Tensor:
        """1 for each request that must go on."""
        states = [request.state for request in requests_with_new_token]
        goes_on = [generated_tokens(state) < state.logit_processor_kwargs.get("min_new_tokens", 0) for state in states]
        return torch.tensor(goes_on, dtype=torch.int32)

    def __call__(self, scores: torch.Tensor, tensor_arg: torch.Tensor) -> torch.Tensor:
        """Scores, shape [requests, vocabulary], with the end forbidden where ``tensor_arg`` is 1."""
        goes_on = tensor_arg[: scores.size(0)].bool()
        scores[:, self._eos_token_id] = scores[:, self._eos_token_id].masked_fill(goes_on, -torch.inf)
        return scores


def generated_tokens(state: Any) -> int:
    """Tokens that a request has; those from before the cache was full and it had to start again are in its prompt."""
    before = len(state.initial_tokens) - state._true_initial_tokens if state._true_initial_tokens else 0
    return before + int(state.generated_len())


class Greedy(ContinuousBatchingLogitsProcessor):
    """Leaves the likeliest token alone where a request asks for it; the batch as a whole samples."""

    supported_kwargs: ClassVar[dict[str, type]] = {"greedy": bool}
    ignored_kwargs: ClassVar[tuple[str, ...]] = ()

    def fill_defaults(self, int32_tensor: torch.Tensor) -> None:
        """Sample."""
        int32_tensor.zero_()

    def prepare_tensor_args(self, requests_with_new_token: Sequence[Any]) -> torch.Tensor:
        """1 for each greedy request."""
        chosen = [request.state.logit_processor_kwargs.get("greedy", False) for request in requests_with_new_token]
        return torch.tensor(chosen, dtype=torch.int32)

    def __call__(self, scores: torch.Tensor, tensor_arg: torch.Tensor) -> torch.Tensor:
        """Scores, shape [requests, vocabulary], minus infinity but for the best where ``tensor_arg`` is 1."""
        greedy = tensor_arg[: scores.size(0)].bool()
        # Asking a GPU would make it wait for the answer, which a recorded CUDA graph cannot.
        if not scores.is_cuda and not greedy.any():
            return scores
        best = torch.full_like(scores, -torch.inf).scatter(-1, scores.argmax(-1, keepdim=True), 0.0)
        return torch.where(greedy.unsqueeze(-1), best, scores)


class QuickTopP(ContinuousBatchingTopPLogitsWarper):
    """The same nucleus from a partial sort: sorting a vocabulary on a CPU takes as long as a small model's step."""

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
