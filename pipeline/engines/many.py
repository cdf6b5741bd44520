"""Any number of answers in one go: one that ends makes room for the next. Or one after the other, to time each."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from queue import SimpleQueue
from typing import Any

import torch

from pipeline.config import UNCONSTRAINED, GenerationConfig, Style
from pipeline.engines.decoder import Decoder
from pipeline.generation.generate import Generation, finished, styled_prompt_ids
from pipeline.model.openmp import map_on_cores

LEAST_SLOT_TOKENS = 64
"""What a decoder reads to warm up."""
ROWS_OF_A_CORE = 32
"""Fewer answers than this are not worth a thread of their own: each streams all weights at every step."""


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
    generator: torch.Generator | None = None
    answer: list[int] = field(default_factory=list)

    @property
    def length(self) -> int:
        return len(self.prompt) + len(self.answer)


_Pair = tuple[Asked, _Row]


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
        asked: The prompts. On a CPU what an answer draws depends on its seed and its place here alone.
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
    rows = [
        _Row(styled_prompt_ids(tokenizer, one.prompt, one.style), one.limits, _generator(one, number))
        for number, one in enumerate(asked)
    ]
    pairs, slots = list(zip(asked, rows, strict=True)), min(at_once, len(rows))

    def answers(of: Sequence[_Pair]) -> list[Generation]:
        latency_s = time.perf_counter() - started
        return [finished(row.answer, tokenizer, row.limits, latency_s, one.style) for one, row in of]

    with torch.inference_mode():
        # One for all: to prepare its weights takes longer than a few answers.
        decoder = Decoder(model, tokenizer.eos_token_id, slots, _slot_tokens(rows))
        if first:
            _answer(decoder, pairs[:first], slots, tokenizer.eos_token_id)
            if not go_on(answers(pairs[:first])):
                return answers(pairs[:first])
        _answer(decoder, pairs[first:], slots, tokenizer.eos_token_id)
    return answers(pairs)


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


def _answer(decoder: Decoder, pairs: Sequence[_Pair], slots: int, eos_id: int) -> None:
    """Answer all, on a CPU in a thread for each core: alone it need not wait for the others at every step."""
    workers = max(1, min(_cores(), len(pairs) // ROWS_OF_A_CORE)) if decoder.on_cpu else 1
    if not decoder.on_cpu:
        torch.manual_seed(max(one.seed for one, _ in pairs))  # a recorded step draws from torch's own numbers
    groups = _groups(pairs, workers)
    free = SimpleQueue[Decoder]()
    for each in (decoder, *(decoder.beside() for _ in range(workers - 1))):
        free.put(each)

    def work(group: list[_Row]) -> None:
        taken = free.get()
        try:
            with torch.inference_mode():
                _decode(taken, group, slots, eos_id)
        finally:
            free.put(taken)

    map_on_cores(work, groups, workers)


def _cores() -> int:
    return torch.get_num_threads()


def _generator(one: Asked, number: int) -> torch.Generator | None:
    """What a sampled answer draws from on a CPU; a GPU's recorded steps draw from torch's own numbers."""
    # Of a seed torch takes the lower 32 bits.
    return torch.Generator().manual_seed(one.seed * 1_000_003 + number) if one.limits.temperature > 0 else None


def _groups(pairs: Sequence[_Pair], workers: int) -> list[list[_Row]]:
    """What each worker decodes, as much for each; the longest first, so that few places are empty at the end."""
    groups: list[list[_Pair]] = [[] for _ in range(workers)]
    for pair in sorted(pairs, key=lambda pair: pair[0].style is Style.TERSE):
        min(groups, key=_work).append(pair)
    return [[row for _, row in group] for group in groups]


def _work(group: Sequence[_Pair]) -> tuple[int, int]:
    return sum(one.style is not Style.TERSE for one, _ in group), len(group)


def _decode(decoder: Decoder, rows: Sequence[_Row], slots: int, eos_id: int) -> None:
    def is_complete(row: _Row) -> bool:
        return row.answer[-1] == eos_id or len(row.answer) >= row.limits.max_new_tokens

    def leave(first: int) -> None:
        """Let the last answer take the place of each complete one among those from ``first`` on."""
        for slot in reversed(range(first, len(running))):
            if is_complete(running[slot]):
                last = running.pop()
                if slot < len(running):
                    decoder.move(len(running), slot, last.length - 1)
                    running[slot] = last

    waiting, running = list(reversed(rows)), list[_Row]()
    while waiting or running:
        while waiting and len(running) < slots:
            new = [waiting.pop() for _ in range(min(decoder.starts_at_once, len(waiting), slots - len(running)))]
            tokens = decoder.start([(row.prompt, row.limits, row.generator) for row in new], len(running))
            for row, token in zip(new, tokens, strict=True):
                row.answer.append(token)
            running += new
            leave(len(running) - len(new))
        if running:
            tokens = decoder.launch(len(running), max(row.length for row in running))()
            for row, token in zip(running, tokens, strict=True):
                row.answer.append(token)
        leave(0)
