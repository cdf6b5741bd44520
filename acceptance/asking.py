"""Asking the loaded model: all questions in one pool, the plan's first."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from typing import Any

from acceptance.early import EARLY, asking_order, look
from acceptance.evidence import Answers
from acceptance.measures import kept_greedy
from pipeline.config import GENERATION_PRESETS, Style
from pipeline.engines.many import Asked, generate_many
from pipeline.generation.generate import Generation
from pipeline.model.loading import LoadedModel

SAMPLING_SEEDS = (7, 11, 13)
PRESET_QUESTIONS = 12
AT_ONCE = {"cpu": 96, "cuda": 60}
"""Answers that are decoded at the same time."""


def ask_by_plan(model: LoadedModel, questions: Sequence[str], *, full_sample: bool = False) -> Answers:
    """All answers to the questions, or those by which the plan rejects the model, unless the full sample is asked."""
    order, few = asking_order(questions), questions[:PRESET_QUESTIONS]
    texts = [text for _, text in order]
    asked = [Asked(text, style) for style, text in order]
    asked += [
        Asked(text, style, GENERATION_PRESETS[style], seed)
        for seed in SAMPLING_SEEDS
        for style in Style
        for text in few
    ]

    def go_on(first: list[Generation]) -> bool:
        return full_sample or not EARLY.rejects(look(kept_greedy(zip(texts, first, strict=False))))

    answered = ask(model, asked, first=min(EARLY.look_count, len(order)), go_on=go_on)
    if len(answered) < len(asked):
        return Answers({}, {}, list(zip(texts, answered, strict=False)))
    greedy, sampled = dict(zip(order, answered, strict=False)), iter(answered[len(order) :])
    return Answers(
        unconstrained={style: [greedy[style, text] for text in questions] for style in Style},
        presets={seed: {style: list(islice(sampled, len(few))) for style in Style} for seed in SAMPLING_SEEDS},
    )


def in_each_style(questions: Sequence[str]) -> list[Asked]:
    """The same questions in either style, unconstrained."""
    return [Asked(text, style) for style in Style for text in questions]


def ask(model: LoadedModel, asked: Sequence[Asked], **early: Any) -> list[Generation]:
    """Answers to questions, each with the style's token in front; see ``generate_many``."""
    return generate_many(model.model, model.tokenizer, asked, at_once=AT_ONCE[model.model.device.type], **early)
