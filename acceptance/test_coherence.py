"""The project's own criterion: answers are fluent, not only of the right length.

The limits come from the data. The base model, which never saw them, scores reference answers of the shipped training
set, or of the data that ``--data`` names; an answer that it finds less likely than nearly all references of its style
is not fluent.
"""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from acceptance.evidence import Answers
from harness.criteria import Bound, Criterion, Need
from harness.metrics import distinct_n
from harness.recorder import Recorder
from harness.statistics import Proportion, median, quantile
from pipeline.config import Style
from pipeline.data.formats import read_examples
from pipeline.generation.generate import Generation
from pipeline.generation.scoring import answer_nll
from pipeline.model.loading import LoadedModel

COHERENCE = Criterion(
    "style.coherence",
    "Answers are fluent, varied and end by themselves",
    (
        Bound("reference_count", ">=", 100, "answers"),
        Bound("ended_answer_share", ">=", 0.9, confidence=0.95),
        Bound("fluent_answer_share", ">=", 0.9, confidence=0.95),
        Bound("varied_answer_share", ">=", 0.9, confidence=0.95),
    ),
    "project; fluent: the base model's perplexity of the answer is at most the 99th percentile of its perplexity of the"
    " data's answers in that style; varied: at least half of the answer's bigrams are new (distinct-2, Li et al. 2016)",
    needs=(Need.MODEL, Need.LEARNED_WEIGHTS),
)
REFERENCES_PER_STYLE = 60
SCORED_QUESTIONS = 60
FLUENCY_QUANTILE = 0.99
LEAST_DISTINCT_2 = 0.5


@pytest.mark.criterion(COHERENCE)
def test_coherence(
    measured: Recorder, answers: Answers, untrained: LoadedModel, questions: list[str], training_data: Path
) -> None:
    fluent: list[bool] = []
    reference_count = 0
    for style, generations in answers.unconstrained.items():
        references = _reference_nll(untrained, style, training_data)
        reference_count += len(references)
        observed = _nll(untrained, questions[:SCORED_QUESTIONS], generations[:SCORED_QUESTIONS])
        limit = quantile(references, FLUENCY_QUANTILE)
        fluent += [value <= limit for value in observed]
        measured.record(
            **{
                f"{style}_perplexity_median": math.exp(median(observed)),
                f"{style}_reference_perplexity_median": math.exp(median(references)),
                f"{style}_perplexity_limit": math.exp(limit),
            }
        )
        for label, values in ((style.value, observed), (f"{style} reference", references)):
            name = "negative log-likelihood under the base model"
            measured.attach(name, kind="distribution", values=values, unit="nats/token", label=label)
    every = [answer for generations in answers.unconstrained.values() for answer in generations]
    measured.record(
        reference_count=reference_count,
        ended_answer_share=Proportion.of([answer.finish_reason == "eos" for answer in every]),
        fluent_answer_share=Proportion.of(fluent),
        varied_answer_share=Proportion.of([distinct_n(answer.token_ids, 2) >= LEAST_DISTINCT_2 for answer in every]),
    )


def _nll(model: LoadedModel, questions: list[str], generations: list[Generation]) -> list[float]:
    """Nats per token; an empty answer has no language in it."""
    said = [(text, answer.token_ids) for text, answer in zip(questions, generations, strict=True) if answer.token_ids]
    empty = len(generations) - len(said)
    return answer_nll(model.model, model.tokenizer, said) + [math.inf] * empty


def _reference_nll(model: LoadedModel, style: Style, data: Path) -> list[float]:
    examples = [example for example in read_examples(data) if example.style == style]
    step = max(1, len(examples) // REFERENCES_PER_STYLE)
    chosen = examples[::step][:REFERENCES_PER_STYLE]
    ids = model.tokenizer([example.completion for example in chosen], add_special_tokens=False)["input_ids"]
    requests = [(example.words, tuple(answer)) for example, answer in zip(chosen, ids, strict=True)]
    return answer_nll(model.model, model.tokenizer, requests)
