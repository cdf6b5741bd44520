"""Any number of answers in one go: one that ends makes room for the next."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from pipeline.config import UNCONSTRAINED, GenerationConfig, Style
from pipeline.engines.decoder import Decoder
from pipeline.generation.generate import Generation, finished, styled_prompt_ids

LEAST_SLOT_TOKENS = 64
"""What a decoder reads to warm up."""


@dataclass(frozen=True, slots=True)
class Asked:
    """A prompt among many.

    Attributes:
        prompt: The user's prompt, without a style token.
        style: The requested style; None adds no style token.
        limits: Decoding limits.
        seed: Of the random numbers that the sampled answers of one seed draw.
    """

    prompt: str
    style: Style | None
    limits: GenerationConfig = UNCONSTRAINED
    seed: int = 0


@dataclass(slots=True)
class _Row:
    """An answer in the making."""

    prompt: list[int]
    limits: GenerationConfig
    answer: list[int] = field(default_factory=list)

    @property
    def length(self) -> int:
        return len(self.prompt) + len(self.answer)


def generate_many(
    model: Any,
    tokenizer: Any,
    asked: Sequence[Asked],
    *,
    at_once: int,
    first: int = 0,
    go_on: Callable[[list[Generation]], bool] = bool,
) -> list[Generation]:
    """Answer any number of prompts.

    Args:
        model: A model in evaluation mode.
        tokenizer: Its tokenizer, style tokens added.
        asked: The prompts; those of one seed are answered together.
        at_once: Answers that are decoded at the same time.
        first: Prompts that are answered before the others.
        go_on: Whether the others are answered too, given the answers to the first.

    Returns:
        The answers in the order of the prompts, those of the first alone where ``go_on`` says no; each has the latency
        of all.

    Raises:
        TextError: As ``styled_prompt_ids``.
    """
    started = time.perf_counter()
    rows = [_Row(styled_prompt_ids(tokenizer, one.prompt, one.style), one.limits) for one in asked]
    slot_tokens = max(LEAST_SLOT_TOKENS, *(len(row.prompt) + row.limits.max_new_tokens for row in rows))
    pairs, slots = list(zip(asked, rows, strict=True)), min(at_once, len(rows))

    def answers(of: Sequence[tuple[Asked, _Row]]) -> list[Generation]:
        latency_s = time.perf_counter() - started
        return [finished(row.answer, tokenizer, row.limits, latency_s, one.style) for one, row in of]

    with torch.inference_mode():
        # One for all: to prepare its weights takes longer than a few answers.
        decoder = Decoder(model, tokenizer.eos_token_id, slots, slot_tokens)
        _answer(decoder, pairs[:first], slots, tokenizer.eos_token_id)
        if first and not go_on(answers(pairs[:first])):
            return answers(pairs[:first])
        _answer(decoder, pairs[first:], slots, tokenizer.eos_token_id)
    return answers(pairs)


def _answer(decoder: Decoder, pairs: Sequence[tuple[Asked, _Row]], slots: int, eos_id: int) -> None:
    for seed in dict.fromkeys(one.seed for one, _ in pairs):
        torch.manual_seed(seed)
        # The longest answers first, so that few places are empty at the end.
        chosen = [pair for pair in pairs if pair[0].seed == seed]
        chosen.sort(key=lambda pair: pair[0].style is Style.TERSE)
        _decode(decoder, [row for _, row in chosen], slots, eos_id)


def _decode(decoder: Decoder, rows: Sequence[_Row], slots: int, eos_id: int) -> None:
    def is_complete(row: _Row) -> bool:
        return row.answer[-1] == eos_id or len(row.answer) >= row.limits.max_new_tokens

    waiting, running = list(reversed(rows)), list[_Row]()
    while waiting or running:
        while waiting and len(running) < slots:
            row = waiting.pop()
            row.answer += decoder.read(row.prompt, 0, row.limits)()
            if not is_complete(row):
                decoder.join(len(running), len(row.prompt))
                running.append(row)
        if running:
            tokens = decoder.launch(len(running), max(row.length for row in running))()
            for row, token in zip(running, tokens, strict=True):
                row.answer.append(token)
        for slot in reversed(range(len(running))):
            if is_complete(running[slot]):
                last = running.pop()
                if slot < len(running):
                    decoder.move(len(running), slot, last.length - 1)
                    running[slot] = last
