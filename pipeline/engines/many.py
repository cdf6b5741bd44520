"""Any number of answers in one go: one that ends makes room for the next. Or one after the other, to time each."""

from __future__ import annotations

import time
from collections.abc import Sequence
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


def generate_many(model: Any, tokenizer: Any, asked: Sequence[Asked], *, at_once: int) -> list[Generation]:
    """Answer any number of prompts.

    Args:
        model: A model in evaluation mode.
        tokenizer: Its tokenizer, style tokens added.
        asked: The prompts; sampled ones of one seed are answered together, and greedy ones beside any of them.
        at_once: Answers that are decoded at the same time.

    Returns:
        The answers in the order of the prompts; each has the latency of all.

    Raises:
        TextError: As ``styled_prompt_ids``.
    """
    started = time.perf_counter()
    rows = [_Row(styled_prompt_ids(tokenizer, one.prompt, one.style), one.limits) for one in asked]
    with torch.inference_mode():
        decoder = Decoder(model, tokenizer.eos_token_id, min(at_once, len(rows)), _slot_tokens(rows))
        for seed, together in _by_seed(list(zip(asked, rows, strict=True))):
            torch.manual_seed(seed)
            _decode(decoder, together, min(at_once, len(rows)), tokenizer.eos_token_id)
    latency_s = time.perf_counter() - started
    return [
        finished(row.answer, tokenizer, row.limits, latency_s, one.style) for row, one in zip(rows, asked, strict=True)
    ]


def generate_each(model: Any, tokenizer: Any, asked: Sequence[Asked]) -> list[Generation]:
    """Answer prompts one after the other, as a server with a single client does.

    Args:
        model: A model in evaluation mode.
        tokenizer: Its tokenizer, style tokens added.
        asked: The prompts.

    Returns:
        The answers in the order of the prompts; each has its own latency, without the preparation of the weights.

    Raises:
        TextError: As ``styled_prompt_ids``.
    """
    rows = [_Row(styled_prompt_ids(tokenizer, one.prompt, one.style), one.limits) for one in asked]
    answers = []
    with torch.inference_mode():
        decoder = Decoder(model, tokenizer.eos_token_id, 1, _slot_tokens(rows))
        for one, row in zip(asked, rows, strict=True):
            started = time.perf_counter()
            torch.manual_seed(one.seed)
            _decode(decoder, [row], 1, tokenizer.eos_token_id)
            latency_s = time.perf_counter() - started
            answers.append(finished(row.answer, tokenizer, row.limits, latency_s, one.style))
    return answers


def _slot_tokens(rows: Sequence[_Row]) -> int:
    return max(LEAST_SLOT_TOKENS, *(len(row.prompt) + row.limits.max_new_tokens for row in rows))


def _by_seed(pairs: Sequence[tuple[Asked, _Row]]) -> list[tuple[int, list[_Row]]]:
    """What is decoded together, with its seed: greedy answers draw nothing, so they fill the places beside all seeds.

    The longest answers stand first, so that few places are empty at the end.
    """
    sampled = [pair for pair in pairs if pair[0].limits.temperature > 0]
    greedy = [pair for pair in pairs if pair[0].limits.temperature == 0]
    seeds = list(dict.fromkeys(one.seed for one, _ in sampled)) or [0]
    groups = []
    for number, seed in enumerate(seeds):
        together = [pair for pair in sampled if pair[0].seed == seed] + greedy[number :: len(seeds)]
        together.sort(key=lambda pair: pair[0].style is Style.TERSE)
        groups.append((seed, [row for _, row in together]))
    return groups


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
