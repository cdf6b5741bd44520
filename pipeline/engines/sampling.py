"""Choosing the next token of each answer in a batch under its own temperature, nucleus and minimum length."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from pipeline.config import GenerationConfig

Generators = Sequence[torch.Generator | None]
"""What the tokens of each answer are drawn from; None is torch's own."""
NUCLEUS_CANDIDATES = 256
"""Likeliest tokens among which a CPU looks for a nucleus before it sorts the vocabulary, which takes as long as a step
of a small model; a GPU always sorts, since asking whether they suffice would make it wait."""


@dataclass(frozen=True, slots=True)
class Choice:
    """How the tokens of each answer are chosen, shape (answers,).

    Attributes:
        temperature: Divides the logits, float32.
        top_p: Mass of the nucleus, float32; 0 is greedy.
        ends_from: First position after which the answer may end.
    """

    temperature: Tensor
    top_p: Tensor
    ends_from: Tensor

    @classmethod
    def empty(cls, answers: int, device: torch.device) -> Choice:
        """Greedy choices without a minimum length."""
        return cls(
            torch.ones(answers, device=device),
            torch.zeros(answers, device=device),
            torch.zeros(answers, dtype=torch.long, device=device),
        )

    def set(self, index: int, limits: GenerationConfig, prompt_tokens: int) -> None:
        """Choose one answer's tokens by its limits."""
        greedy = limits.temperature == 0
        self.temperature[index] = 1.0 if greedy else limits.temperature
        self.top_p[index] = 0.0 if greedy else limits.top_p
        self.ends_from[index] = prompt_tokens + limits.min_new_tokens - 1

    def copy(self, source: int, target: int) -> None:
        """Give an answer the choice of another."""
        for values in (self.temperature, self.top_p, self.ends_from):
            values[target] = values[source]

    def part(self, start: int, end: int) -> Choice:
        """The choices of some answers, sharing their memory."""
        return Choice(self.temperature[start:end], self.top_p[start:end], self.ends_from[start:end])


def choose(
    logits: Tensor, positions: Tensor, choice: Choice, eos_token_id: int, generators: Generators | None = None
) -> Tensor:
    """The tokens that follow, shape (answers,).

    Args:
        logits: Shape (answers, vocabulary).
        positions: Position of the last token of each answer, shape (answers,).
        choice: How each is chosen.
        eos_token_id: The token that ends an answer.
        generators: What each is drawn from on a CPU; None draws from torch's own of the device.
    """
    scores = logits.float()
    must_go_on = positions < choice.ends_from
    scores[:, eos_token_id] = scores[:, eos_token_id].masked_fill(must_go_on, -torch.inf)
    best = scores.argmax(-1)
    if scores.is_cuda:  # asking who samples would make it wait
        drawn = _drawn(scores / choice.temperature.unsqueeze(-1), choice.top_p.unsqueeze(-1))
        return torch.where(choice.top_p == 0, best, drawn)
    (sampled,) = choice.top_p.nonzero(as_tuple=True)
    if len(sampled):
        temperature, top_p = (values[sampled].unsqueeze(-1) for values in (choice.temperature, choice.top_p))
        drawn_from = generators and [generators[index] for index in sampled.tolist()]
        best[sampled] = _drawn(scores[sampled] / temperature, top_p, drawn_from)
    return best


def _drawn(scores: Tensor, top_p: Tensor, generators: Generators | None = None) -> Tensor:
    """A token of each row's nucleus, by its probability."""
    candidates, tokens, mass = _likeliest(scores, top_p)
    # As in transformers, the token at which the mass is reached still belongs to the nucleus.
    inside = candidates.masked_fill(mass - candidates >= top_p, 0.0)
    noise = torch.empty_like(inside)
    for row, generator in zip(noise, generators, strict=True) if generators else ((noise, None),):
        row.exponential_(generator=generator)
    # The largest ratio of probability and exponential noise falls on each token with its probability.
    drawn = (inside / noise).argmax(-1, keepdim=True)
    return tokens.gather(-1, drawn).squeeze(-1)


def _likeliest(scores: Tensor, top_p: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Probabilities of the likeliest tokens, descending, their ids, and the mass up to each."""
    normaliser = scores.logsumexp(-1, keepdim=True)
    if not scores.is_cuda:
        candidates, tokens = scores.topk(min(NUCLEUS_CANDIDATES, scores.shape[-1]))
        candidates = (candidates - normaliser).exp()
        mass = candidates.cumsum(-1)
        if (mass[:, -1:] >= top_p).all():
            return candidates, tokens, mass
    candidates, tokens = scores.sort(descending=True)
    candidates = (candidates - normaliser).exp()
    return candidates, tokens, candidates.cumsum(-1)
