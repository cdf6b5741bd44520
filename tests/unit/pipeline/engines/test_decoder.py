"""The decoder over slots computes what the model does, whichever its architecture."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, GPTNeoXConfig, LlamaConfig, Qwen2Config

from pipeline.config import GenerationConfig
from pipeline.engines.decoder import Decoder, _graph_size, _read_size

SIZES = {"vocab_size": 300, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2}
CONFIGS = {
    "llama, its layers fused": LlamaConfig(**SIZES, num_attention_heads=4, num_key_value_heads=2),
    "qwen2, its own layers": Qwen2Config(**SIZES, num_attention_heads=4, num_key_value_heads=2),
    "gpt-neox, its own layers": GPTNeoXConfig(**SIZES, num_attention_heads=4),
}
PROMPT_TOKENS, ANSWER_TOKENS = 40, 20
EOS = 2


def model_of(config: Any) -> Any:
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(config, attn_implementation="eager").float().eval()


@pytest.mark.parametrize("name", CONFIGS)
def test_answers_are_those_of_generate_in_any_slot(name: str) -> None:
    model, prompt = model_of(CONFIGS[name]), list(range(5, 5 + PROMPT_TOKENS))
    ids = torch.tensor([prompt])
    limits = GenerationConfig(min_new_tokens=ANSWER_TOKENS, max_new_tokens=ANSWER_TOKENS)
    with torch.inference_mode():
        expected = model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            min_new_tokens=ANSWER_TOKENS,
            max_new_tokens=ANSWER_TOKENS,
            do_sample=False,
            eos_token_id=EOS,
            pad_token_id=EOS,
        )[0, PROMPT_TOKENS:].tolist()
        decoder = Decoder(model, EOS, slots=3, slot_tokens=128)
        decoder.read(prompt[:25], 0, limits)
        answers = [decoder.read(prompt[25:], 25, limits)() for _ in range(2)]
        for slot in range(2):
            decoder.join(slot, PROMPT_TOKENS)
        for step in range(1, ANSWER_TOKENS):
            if step == ANSWER_TOKENS // 2:
                decoder.move(1, 2, PROMPT_TOKENS + step - 1)
                decoder.move(0, 1, PROMPT_TOKENS + step - 1)
            tokens = decoder.launch(3, PROMPT_TOKENS + step)()
            for answer, token in zip(answers, tokens[-2:] if step >= ANSWER_TOKENS // 2 else tokens[:2], strict=True):
                answer.append(token)
    assert answers == [expected] * 2


def test_the_form_of_the_weights_is_named() -> None:
    with torch.inference_mode():
        names = [Decoder(model_of(config), EOS, 1, 64).weights for config in CONFIGS.values()]
    assert names == ["merged to float32", "as loaded", "as loaded"]


def answers_of(decoders: Sequence[Decoder], prompts: Sequence[list[int]]) -> list[list[int]]:
    """What each decoder answers to its prompt of ten tokens, one step of each in turn."""
    limits = GenerationConfig(min_new_tokens=9, max_new_tokens=9)
    answers = [each.read(prompt, 0, limits)() for each, prompt in zip(decoders, prompts, strict=True)]
    for each in decoders:
        each.join(0, 10)
    for step in range(1, 9):
        for each, answer in zip(decoders, answers, strict=True):
            answer += each.launch(1, 10 + step)()
    return answers


@pytest.mark.parametrize("name", CONFIGS)
def test_two_decoders_over_the_same_weights_do_not_see_each_others_tokens(name: str) -> None:
    prompts = [list(range(5, 15)), list(range(200, 210))]
    with torch.inference_mode():
        decoder = Decoder(model_of(CONFIGS[name]), EOS, slots=1, slot_tokens=64)
        first, second = [answers_of([decoder], [prompt])[0] for prompt in prompts]
        assert answers_of([decoder, decoder.beside()], prompts) == [first, second]
    assert first != second


def test_few_graphs_serve_every_number_of_answers_and_of_tokens() -> None:
    assert [_graph_size(slots, 20) for slots in (1, 2, 3, 5, 8, 9, 16, 17, 20)] == [1, 2, 4, 8, 8, 16, 16, 20, 20]
    assert [_read_size(tokens) for tokens in (1, 32, 33, 64, 65)] == [32, 32, 64, 64, 128]
