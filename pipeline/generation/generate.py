"""Generating answers in a style: with the documented presets, for one prompt or a batch."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from transformers import GenerationConfig as HFGenerationConfig
from transformers import StoppingCriteriaList

from pipeline.config import GENERATION_PRESETS, UNCONSTRAINED, GenerationConfig, Style
from pipeline.data.encoding import prompt_ids
from pipeline.data.style import inject_token
from pipeline.data.text import require_prompt
from pipeline.generation.pool import Pool, Row

FinishReason = Literal["eos", "length", "time"]


@dataclass(frozen=True, slots=True)
class Generation:
    """One answer.

    Attributes:
        text: The answer without special tokens.
        token_ids: Ids of the answer, without EOS.
        finish_reason: ``eos`` (ended by itself), ``length`` (cut at the cap) or ``time`` (cut at the time limit).
        latency_s: Seconds from the call to the complete answer; in a batch, to the complete batch. Engines count from
            ``submit``.
        style: The requested style; None if the prompt had no style token.
        first_token_s: Seconds from an engine's ``submit`` to the first token; None if unknown.
    """

    text: str
    token_ids: tuple[int, ...]
    finish_reason: FinishReason
    latency_s: float
    style: Style | None
    first_token_s: float | None = None

    @property
    def token_count(self) -> int:
        """Tokens of the answer, without EOS."""
        return len(self.token_ids)


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


Watch = Callable[[list[int]], bool]
"""Called with an answer's token ids after each token; generation stops when it returns False."""


def _watching(watch: Watch, prompt_tokens: int) -> StoppingCriteriaList:
    def stops(input_ids: torch.Tensor, scores: Any, **keywords: Any) -> torch.Tensor:
        stop = not watch(input_ids[0, prompt_tokens:].tolist())
        return torch.full((input_ids.shape[0],), stop, device=input_ids.device)

    return StoppingCriteriaList([stops])


def styled_prompt_ids(tokenizer: Any, prompt: str, style: Style | None) -> list[int]:
    """Token ids of a user's prompt with the style token in front (none for None).

    Raises:
        TextError: The prompt is blank or spells a style token or a control token, which would not stay text.
    """
    require_prompt(prompt, tokenizer)
    return prompt_ids(tokenizer, prompt if style is None else inject_token(prompt, style))


def generate_with_style(
    model: Any,
    tokenizer: Any,
    prompt: str,
    style: Style,
    *,
    config: GenerationConfig | None = None,
    max_time_s: float | None = None,
    watch: Watch | None = None,
) -> Generation:
    """Answer one prompt.

    Args:
        model: A trained model in evaluation mode.
        tokenizer: Its tokenizer, style tokens added.
        prompt: The user's prompt, without a style token.
        style: The requested style.
        config: Decoding limits; None takes the style's documented preset.
        max_time_s: Seconds after which generation stops.
        watch: Called after each token; may stop the generation.

    Raises:
        TextError: As ``styled_prompt_ids``.
    """
    chosen = config or GENERATION_PRESETS[style]
    return generate_batch(model, tokenizer, [(prompt, style)], chosen, max_time_s=max_time_s, watch=watch)[0]


def generate_batch(
    model: Any,
    tokenizer: Any,
    requests: Sequence[tuple[str, Style | None]],
    config: GenerationConfig,
    *,
    max_time_s: float | None = None,
    watch: Watch | None = None,
) -> list[Generation]:
    """Answer several prompts in one batch, padded on the left.

    Args:
        model: A model in evaluation mode.
        tokenizer: Its tokenizer, style tokens added.
        requests: Prompt and style of each; None adds no style token.
        config: Decoding limits of all.
        max_time_s: Seconds after which generation stops.
        watch: As for ``generate_with_style``; called for the first row only.

    Raises:
        TextError: As ``styled_prompt_ids``.
    """
    started = time.perf_counter()
    rows = [styled_prompt_ids(tokenizer, prompt, style) for prompt, style in requests]
    longest = max(map(len, rows))
    input_ids = torch.tensor([[tokenizer.pad_token_id] * (longest - len(row)) + row for row in rows])
    attention_mask = torch.tensor([[0] * (longest - len(row)) + [1] * len(row) for row in rows])
    with torch.inference_mode():
        output = model.generate(
            input_ids=input_ids.to(model.device),
            attention_mask=attention_mask.to(model.device),
            generation_config=decoding(config, tokenizer, max_time_s),
            **({"stopping_criteria": _watching(watch, longest)} if watch else {}),
        )
    answers = output[:, longest:].tolist()
    latency_s = time.perf_counter() - started
    return [
        finished(answer, tokenizer, config, latency_s, style)
        for answer, (_, style) in zip(answers, requests, strict=True)
    ]


def generate_many(model: Any, tokenizer: Any, asked: Sequence[Asked], *, at_once: int) -> list[Generation]:
    """Answer any number of prompts: on a CPU in one pool, on a GPU in batches of ``generate_batch``.

    Args:
        model: A model in evaluation mode.
        tokenizer: Its tokenizer, style tokens added.
        asked: The prompts; the longest answers are begun first, so that few places are empty at the end.
        at_once: Answers that are decoded at the same time.

    Raises:
        TextError: As ``styled_prompt_ids``.
    """
    order = sorted(range(len(asked)), key=lambda index: asked[index].style is Style.TERSE)
    decode = _in_pool if model.device.type == "cpu" else _in_batches
    answers = dict(zip(order, decode(model, tokenizer, [asked[index] for index in order], at_once), strict=True))
    return [answers[index] for index in range(len(asked))]


def _in_pool(model: Any, tokenizer: Any, asked: Sequence[Asked], at_once: int) -> list[Generation]:
    started = time.perf_counter()
    prompts = [styled_prompt_ids(tokenizer, one.prompt, one.style) for one in asked]
    generators = {one.seed: torch.Generator().manual_seed(one.seed) for one in asked}
    draws = [torch.rand(one.limits.max_new_tokens, generator=generators[one.seed]).tolist() for one in asked]
    pool = Pool(model, tokenizer.eos_token_id)
    rows = [Row(*row) for row in zip(prompts, (one.limits for one in asked), draws, strict=True)]
    pool.decode(rows, at_once)
    latency_s = time.perf_counter() - started
    return [
        finished(row.answer, tokenizer, row.limits, latency_s, one.style) for row, one in zip(rows, asked, strict=True)
    ]


def _in_batches(model: Any, tokenizer: Any, asked: Sequence[Asked], at_once: int) -> list[Generation]:
    answers: dict[int, Generation] = {}
    for limits, seed in dict.fromkeys((one.limits, one.seed) for one in asked):
        torch.manual_seed(seed)
        alike = [index for index, one in enumerate(asked) if (one.limits, one.seed) == (limits, seed)]
        for start in range(0, len(alike), at_once):
            batch = alike[start : start + at_once]
            requests = [(asked[index].prompt, asked[index].style) for index in batch]
            answers.update(zip(batch, generate_batch(model, tokenizer, requests, limits), strict=True))
    return [answers[index] for index in range(len(asked))]


def decoding(config: GenerationConfig, tokenizer: Any, max_time_s: float | None = None) -> HFGenerationConfig:
    """The arguments of ``generate()``: only the limits and the tokenizer's special tokens, no defaults."""
    sampling = (
        {"do_sample": True, "temperature": config.temperature, "top_p": config.top_p, "top_k": config.top_k}
        if config.temperature > 0
        else {"do_sample": False}
    )
    return HFGenerationConfig(
        **sampling,
        min_new_tokens=config.min_new_tokens,
        max_new_tokens=config.max_new_tokens,
        max_time=max_time_s,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
    )


def finished(
    answer: list[int], tokenizer: Any, config: GenerationConfig, latency_s: float, style: Style | None
) -> Generation:
    """Build the result from the token ids that ``generate()`` appended; everything after the first EOS is padding."""
    reason: FinishReason
    if tokenizer.eos_token_id in answer:
        answer, reason = answer[: answer.index(tokenizer.eos_token_id)], "eos"
    else:
        reason = "length" if len(answer) >= config.max_new_tokens else "time"
    return Generation(answer_text(answer, tokenizer), tuple(answer), reason, latency_s, style)


def answer_text(answer: Sequence[int], tokenizer: Any) -> str:
    """Decode an answer, without special tokens and surrounding white space."""
    text: str = tokenizer.decode(answer, skip_special_tokens=True)
    return text.strip()
