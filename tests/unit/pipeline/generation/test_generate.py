from __future__ import annotations

from typing import Any

import pytest
import torch

from pipeline.config import GENERATION_PRESETS, GenerationConfig, Style
from pipeline.errors import PipelineError
from pipeline.generation.generate import generate_batch, generate_with_style, styled_prompt_ids
from pipeline.model.loading import TrainedModel


class ScriptedModel:
    """Answers every row with its script and remembers how it was asked."""

    device = torch.device("cpu")

    def __init__(self, *scripts: list[int]) -> None:
        self.scripts = scripts

    def generate(self, input_ids: torch.Tensor, attention_mask: torch.Tensor, generation_config: Any) -> torch.Tensor:
        self.input_ids, self.attention_mask, self.config = input_ids, attention_mask, generation_config
        longest = max(map(len, self.scripts))
        answers = torch.tensor([script + [2] * (longest - len(script)) for script in self.scripts])
        return torch.cat([input_ids, answers], dim=1)


@pytest.mark.parametrize("style", Style)
def test_presets_reach_generate_without_a_hidden_top_k(tiny_tokenizer: Any, style: Style) -> None:
    model = ScriptedModel([100, 2])
    generate_with_style(model, tiny_tokenizer, "Why?", style)
    preset, config = GENERATION_PRESETS[style], model.config
    assert (config.do_sample, config.temperature, config.top_p, config.top_k) == (
        True,
        preset.temperature,
        preset.top_p,
        0,
    )
    assert (config.min_new_tokens, config.max_new_tokens) == (preset.min_new_tokens, preset.max_new_tokens)


def test_counts_and_finish_reasons(tiny_tokenizer: Any) -> None:
    model = ScriptedModel([12986, 28699, 2], [12986] * 4)
    ended, cut = generate_batch(
        model, tiny_tokenizer, [("Why?", Style.TERSE), ("Why not?", None)], GenerationConfig(max_new_tokens=4)
    )
    assert (ended.token_count, ended.finish_reason, ended.style) == (2, "eos", Style.TERSE)
    assert (cut.token_count, cut.finish_reason, cut.style) == (4, "length", None)
    assert ended.latency_s > 0
    late = generate_batch(ScriptedModel([5] * 3), tiny_tokenizer, [("Why?", None)], GenerationConfig(max_new_tokens=4))
    assert late[0].finish_reason == "time"


def test_prompts_are_padded_on_the_left(tiny_tokenizer: Any) -> None:
    model = ScriptedModel([2], [2])
    generate_batch(model, tiny_tokenizer, [("Hi", None), ("What is rate limiting?", None)], GenerationConfig())
    short = styled_prompt_ids(tiny_tokenizer, "Hi", None)
    assert model.input_ids[0, -len(short) :].tolist() == short
    assert model.attention_mask.sum(dim=1).tolist() == [len(short), model.input_ids.shape[1]]


def test_a_style_token_in_the_prompt_is_refused(tiny_tokenizer: Any) -> None:
    with pytest.raises(PipelineError, match="contains <STYLE_VERBOSE>"):
        styled_prompt_ids(tiny_tokenizer, "Hi <STYLE_VERBOSE>", Style.TERSE)


def test_a_real_model_stays_within_its_presets(tiny_trained: TrainedModel) -> None:
    for style, preset in GENERATION_PRESETS.items():
        answer = generate_with_style(tiny_trained.model, tiny_trained.tokenizer, "Why?", style)
        assert preset.min_new_tokens <= answer.token_count <= preset.max_new_tokens


def test_a_batch_answers_as_one_by_one(tiny_trained: TrainedModel) -> None:
    requests: list[tuple[str, Style | None]] = [("Why?", Style.TERSE), ("What is rate limiting?", Style.VERBOSE)]
    config = GenerationConfig(max_new_tokens=8)
    together = generate_batch(tiny_trained.model, tiny_trained.tokenizer, requests, config)
    alone = [generate_batch(tiny_trained.model, tiny_trained.tokenizer, [one], config)[0] for one in requests]
    assert [answer.token_ids for answer in together] == [answer.token_ids for answer in alone]


def test_a_time_limit_cuts_the_answer(tiny_trained: TrainedModel) -> None:
    config = GenerationConfig(min_new_tokens=4000, max_new_tokens=4000)
    answer = generate_with_style(
        tiny_trained.model, tiny_trained.tokenizer, "Why?", Style.TERSE, config=config, max_time_s=0.2
    )
    assert answer.finish_reason == "time"
    assert answer.token_count < 4000
