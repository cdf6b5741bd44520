"""Many answers in one go: each is the one that ``generate()`` gives to its prompt alone."""

from __future__ import annotations

import pytest
import torch

from pipeline.config import GENERATION_PRESETS, GenerationConfig, Style
from pipeline.engines import many
from pipeline.engines.many import Asked, generate_each, generate_many
from pipeline.generation.generate import Generation, generate_batch
from pipeline.model.loading import LoadedModel, TrainedModel

PROMPTS = ("Why?", "What is rate limiting?", "How do whales sing in the deep, and why?", "Hi", "Name one geyser.")
STYLES = (*Style, None)


@pytest.mark.parametrize("at_once", [1, 4, 64])
def test_places_do_not_change_an_answer(exact: LoadedModel, at_once: int) -> None:
    asked = [
        Asked(prompt, style, GenerationConfig(max_new_tokens=3 + number))
        for number, prompt in enumerate(PROMPTS)
        for style in STYLES
    ]
    together = generate_many(exact.model, exact.tokenizer, asked, at_once=at_once)
    for one, answer in zip(asked, together, strict=True):
        (alone,) = generate_batch(exact.model, exact.tokenizer, [(one.prompt, one.style)], one.limits)
        assert (answer.token_ids, answer.finish_reason) == (alone.token_ids, alone.finish_reason)


def test_an_answer_that_ends_makes_room(exact: LoadedModel) -> None:
    limits = GenerationConfig(max_new_tokens=8)
    (endless,) = generate_batch(exact.model, exact.tokenizer, [("Why?", Style.TERSE)], limits)
    ends = exact.tokenizer.eos_token_id
    exact.tokenizer.eos_token_id = endless.token_ids[2]
    try:
        asked = [Asked("Why?", Style.TERSE, limits), Asked("Hi", Style.VERBOSE, limits), Asked("Hi", None, limits)]
        answers = generate_many(exact.model, exact.tokenizer, asked, at_once=2)
    finally:
        exact.tokenizer.eos_token_id = ends
    assert answers[0].token_ids == endless.token_ids[:2]
    assert answers[0].finish_reason == "eos"
    assert all(answer.token_count == 8 for answer in answers[1:])


def test_the_first_answers_decide_whether_the_others_are_given(exact: LoadedModel) -> None:
    limits = GenerationConfig(max_new_tokens=4)
    asked = [Asked(prompt, style, limits) for prompt in PROMPTS for style in STYLES]
    all_at_once = generate_many(exact.model, exact.tokenizer, asked, at_once=4)
    seen: list[list[Generation]] = []

    def answers(go_on: bool) -> list[tuple[int, ...]]:
        def decide(first: list[Generation]) -> bool:
            seen.append(first)
            return go_on

        given = generate_many(exact.model, exact.tokenizer, asked, at_once=4, first=5, go_on=decide)
        return [answer.token_ids for answer in given]

    assert answers(go_on=True) == [answer.token_ids for answer in all_at_once]
    assert answers(go_on=False) == [answer.token_ids for answer in all_at_once[:5]]
    assert [[answer.token_ids for answer in first] for first in seen] == [answers(go_on=False)] * 2


@pytest.mark.slow
def test_sampled_answers_follow_their_presets_and_seeds(tiny_trained: TrainedModel) -> None:
    def sampled(seed: int, at_once: int) -> list[tuple[int, ...]]:
        asked = [Asked(prompt, style, GENERATION_PRESETS[style], seed) for prompt in PROMPTS[:2] for style in Style]
        answers = generate_many(tiny_trained.model, tiny_trained.tokenizer, asked, at_once=at_once)
        for one, answer in zip(asked, answers, strict=True):
            assert one.limits.min_new_tokens <= answer.token_count <= one.limits.max_new_tokens
        return [answer.token_ids for answer in answers]

    assert sampled(7, at_once=4) == sampled(7, at_once=4)
    assert sampled(7, at_once=4) != sampled(8, at_once=4)


def test_greedy_answers_beside_sampled_ones_are_those_of_the_prompt_alone(exact: LoadedModel) -> None:
    limits = GenerationConfig(max_new_tokens=6)
    greedy = [Asked(prompt, style, limits) for prompt in PROMPTS for style in STYLES]
    sampled = [Asked("Hi", style, GENERATION_PRESETS[style], seed) for seed in (7, 11) for style in Style]
    answers = generate_many(exact.model, exact.tokenizer, [*sampled[:2], *greedy, *sampled[2:]], at_once=4)
    alone = generate_many(exact.model, exact.tokenizer, greedy, at_once=1)
    assert [answer.token_ids for answer in answers[2:-2]] == [answer.token_ids for answer in alone]
    assert answers[0].token_ids != answers[-2].token_ids


@pytest.mark.slow
def test_threads_do_not_change_an_answer(exact: LoadedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    limits = GenerationConfig(max_new_tokens=6)
    asked = [Asked(prompt, style, limits) for prompt in PROMPTS for style in STYLES]
    asked += [Asked("Hi", Style.VERBOSE, GENERATION_PRESETS[Style.VERBOSE], seed) for seed in (7, 11, 13)]

    def token_ids(cores: int) -> list[tuple[int, ...]]:
        monkeypatch.setattr(many, "_cores", lambda: cores)
        return [answer.token_ids for answer in generate_many(exact.model, exact.tokenizer, asked, at_once=8)]

    alone, threads = token_ids(1), torch.get_num_threads()
    monkeypatch.setattr(many, "ROWS_OF_A_CORE", 4)
    together = token_ids(3)
    assert together == token_ids(3)
    assert together[:-3] == token_ids(2)[:-3] == alone[:-3], "the random weights put many tokens on the nucleus' edge"
    assert torch.get_num_threads() == threads
    assert len(set(together[-3:])) == 3


def test_an_error_in_a_thread_is_raised(exact: LoadedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(many, "_cores", lambda: 2)
    monkeypatch.setattr(many, "ROWS_OF_A_CORE", 1)
    monkeypatch.setattr(many, "_decode", lambda *arguments: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        generate_many(exact.model, exact.tokenizer, [Asked("Hi", style) for style in STYLES], at_once=8)


def test_answers_one_after_the_other_have_a_latency_each(tiny_trained: TrainedModel) -> None:
    few, many = GenerationConfig(max_new_tokens=2), GenerationConfig(max_new_tokens=60)
    asked = [Asked("Why?", Style.TERSE, limits) for limits in (few, many, few)]
    short, long, again = generate_each(tiny_trained.model, tiny_trained.tokenizer, asked)
    together = generate_many(tiny_trained.model, tiny_trained.tokenizer, asked, at_once=3)
    assert [one.token_ids for one in (short, long, again)] == [one.token_ids for one in together]
    assert len({one.latency_s for one in (short, long, again)}) == 3
