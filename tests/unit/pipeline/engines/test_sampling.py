"""Each answer's tokens are drawn from its own distribution."""

from __future__ import annotations

import pytest
import torch
from transformers import TemperatureLogitsWarper, TopPLogitsWarper

from pipeline.config import GENERATION_PRESETS, GenerationConfig
from pipeline.engines.sampling import NUCLEUS_CANDIDATES, Choice, choose

EOS = 2
DRAWS = 20_000
VOCABULARY = 4 * NUCLEUS_CANDIDATES


def choices(*limits: GenerationConfig, prompt_tokens: int = 5) -> Choice:
    choice = Choice.empty(len(limits), torch.device("cpu"))
    for index, limit in enumerate(limits):
        choice.set(index, limit, prompt_tokens)
    return choice


def test_greedy_answers_take_the_likeliest_token_beside_sampled_ones() -> None:
    torch.manual_seed(0)
    logits = torch.randn(3, VOCABULARY)
    mixed = choices(GenerationConfig(), GenerationConfig(2.0, 1.0), GenerationConfig())
    drawn = {tuple(choose(logits, torch.zeros(3), mixed, EOS).tolist()) for _ in range(20)}
    assert {(first, last) for first, _, last in drawn} == {(int(logits[0].argmax()), int(logits[2].argmax()))}
    assert len(drawn) > 1
    alone = choices(GenerationConfig())
    assert choose(logits[:1], torch.zeros(1), alone, EOS).tolist() == [int(logits[0].argmax())]


@pytest.mark.parametrize("spread", [4.0, 0.01], ids=["peaked", "flat"])
@pytest.mark.parametrize(
    "limits", [*GENERATION_PRESETS.values(), GenerationConfig(1.0, 1.0), GenerationConfig(0.7, 0.5)], ids=str
)
def test_tokens_are_drawn_as_transformers_would(limits: GenerationConfig, spread: float) -> None:
    torch.manual_seed(0)
    scores = spread * torch.randn(1, VOCABULARY)
    warped = TemperatureLogitsWarper(limits.temperature)(torch.empty(0), scores)
    if limits.top_p < 1:
        warped = TopPLogitsWarper(limits.top_p)(torch.empty(0), warped)
    expected = warped.softmax(-1)[0]
    rows = scores.expand(500, -1)
    choice = choices(*[limits] * 500)
    positions = torch.full((500,), 100_000)
    drawn = [choose(rows.clone(), positions, choice, EOS) for _ in range(DRAWS // 500)]
    counts = torch.cat(drawn).bincount(minlength=VOCABULARY)
    assert not counts[expected == 0].any()
    error = (expected * (1 - expected) / DRAWS).sqrt()
    # Of a thousand tokens, none is further off than five standard errors but one time in two thousand.
    assert ((counts / DRAWS - expected).abs() <= 5 * error + 5 / DRAWS).all()


def test_an_answer_goes_on_until_its_minimum_and_may_then_end() -> None:
    logits = torch.zeros(3, VOCABULARY)
    logits[:, EOS] = 100
    limits = GenerationConfig(min_new_tokens=4, max_new_tokens=8)
    choice = choices(limits, limits, GenerationConfig(0.7, 0.9, min_new_tokens=4, max_new_tokens=8), prompt_tokens=10)
    # After a prompt of 10 tokens and an answer of 3, the last token is at position 12.
    ends = choose(logits.clone(), torch.tensor([12, 13, 13]), choice, EOS) == EOS
    assert ends.tolist() == [False, True, True]
