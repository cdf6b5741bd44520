"""Measures of one answer's text and tokens, and of answers that were exchanged."""

from __future__ import annotations

import random

import pytest

from harness.metrics import distinct_n, ends_as_a_sentence, longest_repeated_span, misplaced_answers


def test_distinct_n_is_the_published_ratio() -> None:
    assert distinct_n([1, 2, 1, 2, 1], 1) == pytest.approx(2 / 5)
    assert distinct_n([1, 2, 1, 2, 1], 2) == pytest.approx(2 / 5)  # two different pairs, five tokens
    assert distinct_n([1, 2, 3, 4], 2) == pytest.approx(3 / 4)
    assert distinct_n([1, 2, 3], 3) == pytest.approx(1 / 3)


def test_distinct_n_of_what_has_no_n_gram() -> None:
    assert distinct_n([], 1) == 0.0
    assert distinct_n([1, 2], 3) == 0.0
    with pytest.raises(ValueError, match="n=0"):
        distinct_n([1, 2], 0)


@pytest.mark.parametrize(
    ("token_ids", "expected"),
    [
        ([], 0),
        ([1], 0),
        ([1, 2, 3], 0),
        ([1, 1], 1),
        ([1, 2, 1], 1),
        ([7] * 7, 6),
        ([1, 2, 3] * 3, 6),
        ([9, 1, 2, 3, 8, 1, 2, 3, 7], 3),
        ([1, 2, 3, 4, 9, 1, 2, 8, 3, 4], 2),
        (list(range(100)) * 3, 200),
    ],
)
def test_longest_repeated_span(token_ids: list[int], expected: int) -> None:
    assert longest_repeated_span(token_ids) == expected


def test_longest_repeated_span_is_the_definition() -> None:
    generator = random.Random(0)
    for _ in range(200):
        tokens = [generator.randrange(3) for _ in range(generator.randrange(25))]
        expected = 0
        for length in range(1, len(tokens)):
            spans = [tuple(tokens[start : start + length]) for start in range(len(tokens) - length + 1)]
            if any(span in spans[start + 1 :] for start, span in enumerate(spans)):
                expected = length
        assert longest_repeated_span(tokens) == expected


QUESTIONS = ("What is rate limiting?", "How do tides work?", "Compare stacks and queues.", "Why is it so?")
ANSWERS = (
    "Rate limiting caps requests.",
    "The tide follows the Moon.",
    "A stack is last in, first out; a QUEUE is not.",
    "It is so.",
)


def test_answers_in_place_are_not_counted() -> None:
    assert misplaced_answers(QUESTIONS, ANSWERS) == 0
    assert misplaced_answers([], []) == 0


def test_exchanged_answers_are_counted() -> None:
    assert misplaced_answers(QUESTIONS[:2], ANSWERS[1::-1]) == 2
    exchanged = (ANSWERS[1], ANSWERS[2], ANSWERS[0], ANSWERS[3])
    assert misplaced_answers(QUESTIONS, exchanged) == 3


@pytest.mark.parametrize(
    "answer",
    [
        "",
        "Nothing of the kind.",
        "Limiting is not like the tides.",
        "It is a limit, unlike the tide and unlike stacks and queues.",
        "A queue holds them back.",  # one of two words is not more than half
    ],
)
def test_neither_or_both_subjects_are_not_counted(answer: str) -> None:
    assert misplaced_answers(QUESTIONS[:3], (answer, *ANSWERS[1:3])) == 0


def test_a_question_without_a_subject_is_never_misplaced() -> None:
    assert misplaced_answers(QUESTIONS, (*ANSWERS[:3], ANSWERS[1])) == 0
    assert misplaced_answers(("Why is it so?", "Why is that so?"), ANSWERS[:2]) == 0


def test_what_two_subjects_share_tells_them_not_apart() -> None:
    questions = ("Why are oceans salty?", "How deep are oceans?")
    assert misplaced_answers(questions, ("Rivers bring salt.", "Deep oceans reach 11 km.")) == 0
    assert misplaced_answers(questions, ("Eleven kilometres deep.", "Rivers make it salty.")) == 2


def test_as_many_answers_as_questions() -> None:
    with pytest.raises(ValueError, match="4 questions and 1 answers"):
        misplaced_answers(QUESTIONS, ANSWERS[:1])


@pytest.mark.parametrize(
    "text",
    [
        "Done.",
        "Really?",
        "Yes!\n",
        "And so on…",
        "And so on...",
        'He said "no."',
        "\u201cNo.\u201d",
        "\u00abNo!\u00bb",
        "(See above.)",
        "**Done.**",
        "Call it so:\n```python\nrun()\n```",
        "Twice:\n```\na\n```\nthen\n```\nb\n```\n",
    ],
)
def test_complete_texts_end_as_a_sentence(text: str) -> None:
    assert ends_as_a_sentence(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "  \n",
        '"',
        "It limits the",
        "First, it limits,",
        "Three things:",
        "1. one (two)",
        "Call it so:\n```",
        "Call it so:\n```python\nrun()",
        "Twice:\n```\na\n```\nthen\n```",
        "In a line ```",
    ],
)
def test_cut_texts_do_not(text: str) -> None:
    assert not ends_as_a_sentence(text)
