"""Faults of generation, in the judged process and in the server alike."""

from __future__ import annotations

import dataclasses
import random
import time
from collections.abc import Callable
from typing import Any

from pipeline.config import Style
from sabotage.replacing import replace

LOOPED_TOKENS = 8
STALL_S = 31


def stall() -> None:
    """Make the third single answer of a process take longer than allowed."""

    def broken(generate_each: Any) -> Any:
        def stalling(*arguments: Any) -> Any:
            first, second, third, *others = generate_each(*arguments)
            time.sleep(STALL_S)
            return [first, second, dataclasses.replace(third, latency_s=third.latency_s + STALL_S), *others]

        return stalling

    replace("pipeline.engines.many:generate_each", broken)


def leave_adapter_out() -> None:
    def broken(apply_adapter: Any) -> Any:
        return lambda *arguments: without_adapter(apply_adapter(*arguments))

    replace("pipeline.model.adapter:apply_adapter", broken)


def without_adapter(model: Any) -> Any:
    for name, tensor in model.named_parameters():
        if "lora_B" in name:
            tensor.data.zero_()
    return model


def never_stop() -> None:
    """Drop the stop token: answers go on to their cap."""

    def without_eos(decoding: Any) -> Any:
        def decode(*arguments: Any) -> Any:
            limits = decoding(*arguments)
            limits.eos_token_id = None
            return limits

        return decode

    def uncut(finished: Any) -> Any:
        def finish(answer: list[int], tokenizer: Any, config: Any, latency_s: float, style: Any) -> Any:
            complete = finished([], tokenizer, config, latency_s, style)
            text = tokenizer.decode(answer, skip_special_tokens=True).strip()
            return dataclasses.replace(complete, text=text, token_ids=tuple(answer), finish_reason="length")

        return finish

    replace("pipeline.generation.generate:decoding", without_eos)
    replace("pipeline.generation.generate:finished", uncut)


def _with_styles(change: Callable[[Style | None], Style | None]) -> None:
    replace(
        "pipeline.generation.generate:styled_prompt_ids",
        lambda styled: lambda tokenizer, prompt, style: styled(tokenizer, prompt, change(style)),
    )


def swap_tokens() -> None:
    other = {Style.TERSE: Style.VERBOSE, Style.VERBOSE: Style.TERSE, None: None}
    _with_styles(lambda style: other[style])


def ask_tersely() -> None:
    _with_styles(lambda style: Style.TERSE)


def force_length() -> None:
    def forced(config: Any, style: Style | None) -> Any:
        return dataclasses.replace(config, min_new_tokens=85, max_new_tokens=90) if style is Style.VERBOSE else config

    def one(generate_batch: Any) -> Any:
        def forcing(model: Any, tokenizer: Any, requests: Any, config: Any, **keywords: Any) -> Any:
            return generate_batch(model, tokenizer, requests, forced(config, requests[0][1]), **keywords)

        return forcing

    def many(generate_many: Any) -> Any:
        def forcing(model: Any, tokenizer: Any, asked: Any, **keywords: Any) -> Any:
            changed = [dataclasses.replace(each, limits=forced(each.limits, each.style)) for each in asked]
            return generate_many(model, tokenizer, changed, **keywords)

        return forcing

    replace("pipeline.generation.generate:generate_batch", one)
    replace("pipeline.engines.many:generate_many", many)


def _with_answers(change: Callable[[list[int], Any, Style | None], list[int]]) -> None:
    """Change the tokens of each answer; ``change`` sees them without EOS, the tokenizer and the style."""

    def broken(finished: Any) -> Any:
        def changed(answer: list[int], tokenizer: Any, config: Any, latency_s: float, style: Any) -> Any:
            complete = finished(answer, tokenizer, config, latency_s, style)
            ids = change(list(complete.token_ids), tokenizer, style)
            ended = complete.finish_reason == "eos" or len(ids) < len(complete.token_ids)
            return finished([*ids, tokenizer.eos_token_id] if ended else ids, tokenizer, config, latency_s, style)

        return changed

    replace("pipeline.generation.generate:finished", broken)


def cut_to_first_sentence() -> None:
    def cut(ids: list[int], tokenizer: Any, style: Style | None) -> list[int]:
        if style is not Style.TERSE:
            return ids
        ends = (end for end in range(1, len(ids)) if tokenizer.decode(ids[:end]).rstrip().endswith("."))
        return ids[: next(ends, len(ids))]

    _with_styles(lambda style: None)
    _with_answers(cut)


def loop() -> None:
    _with_answers(lambda ids, tokenizer, style: (ids[:LOOPED_TOKENS] * len(ids))[: len(ids)])


def shuffle_answer() -> None:
    rng = random.Random(0)
    _with_answers(lambda ids, tokenizer, style: rng.sample(ids, len(ids)))
