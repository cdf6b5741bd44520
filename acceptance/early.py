"""Which answers are asked first, and the plan by which they may reject a model without the others."""

from __future__ import annotations

from collections.abc import Sequence

from harness.answers import Answer
from harness.sequential import EarlyRejection
from pipeline.config import Style
from pipeline.data.style import length_fits

IN_BOUND = {style: f"{style}_in_bound_share" for style in Style}
"""The measure that counts the answers on their style's side."""
EARLY = EarlyRejection(tuple(IN_BOUND.values()), good_share=0.9, level=0.0009, look_count=24, seed=22)
"""Project: a model half of whose answers are wrong is rejected after 9 answers in the median and asked 35 in the mean.
To decode the first ones alone takes as long for 24 as for 12: as long as the longest of them."""


def asking_order(questions: Sequence[str]) -> list[tuple[Style, str]]:
    """Every question in either style, those of the plan first."""
    styles = {measure: style for style, measure in IN_BOUND.items()}
    return [(styles[measure], text) for measure, text in EARLY.order(dict.fromkeys(IN_BOUND.values(), questions))]


def in_bound(answer: Answer) -> bool:
    """Whether an answer ended by itself on its style's side."""
    return answer["finish_reason"] == "eos" and length_fits(Style(answer["style"]), len(answer["token_ids"]))


def look(answers: Sequence[Answer]) -> dict[str, int]:
    """What the plan sees of greedy answers, whatever their order."""
    given = {(IN_BOUND[Style(answer["style"])], answer["question"]): answer for answer in answers}
    cases = {measure: [case for of, case in given if of == measure] for measure in EARLY.measures}
    return EARLY.look(in_bound(given[pair]) for pair in EARLY.order(cases))
