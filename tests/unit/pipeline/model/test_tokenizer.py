"""The tokenizer facts of both model families, Mistral's against ``mistral_common`` as the independent reference."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from mistral_common.protocol.instruct.messages import AssistantMessage, UserMessage
from mistral_common.protocol.instruct.request import ChatCompletionRequest
from mistral_common.tokens.tokenizers.mistral import MistralTokenizer

from pipeline.config import TARGETS, Style
from pipeline.data.encoding import encode, prompt_ids
from pipeline.data.formats import Example, read_examples
from pipeline.data.source import Problems
from pipeline.files import TRAINING_DATA
from pipeline.model.base_models import (
    write_embedded_tokenizer,
    write_mistral_tokenizer,
)
from pipeline.model.tokenizer import chat_template, load_tokenizer

EMBEDDED = TARGETS["smollm2-135m"]


@pytest.fixture(scope="module")
def reference() -> Any:
    return MistralTokenizer.v3()


def test_the_documented_prompt_has_the_documented_ids(tiny_tokenizer: Any) -> None:
    assert prompt_ids(tiny_tokenizer, "What is rate limiting?") == [1, 3, 2592, 1117, 5106, 28699, 29572, 4]


def test_shipped_prompts_and_answers_have_the_reference_ids(tiny_tokenizer: Any, reference: Any) -> None:
    for example in read_examples(TRAINING_DATA)[:40]:
        request = ChatCompletionRequest(messages=[UserMessage(content=example.words)])
        expected = reference.encode_chat_completion(request).tokens
        assert prompt_ids(tiny_tokenizer, example.words) == expected
        (encoded,) = encode(tiny_tokenizer, [example], 2048, Problems())
        answer = reference.instruct_tokenizer.encode_assistant_message(
            AssistantMessage(content=example.completion), is_before_last_user_message=False
        )
        assert encoded["input_ids"][encoded["prompt_length"] :] == answer


def test_mistral_prompts_start_with_exactly_one_bos(tiny_tokenizer: Any) -> None:
    ids = prompt_ids(tiny_tokenizer, "<STYLE_TERSE>\nHi")
    assert ids.count(tiny_tokenizer.bos_token_id) == 1
    assert ids[0] == tiny_tokenizer.bos_token_id


def test_a_tokenizer_without_a_template_gets_the_official_one(tmp_path: Path) -> None:
    target = TARGETS["mistral-7b-v0.3"]
    write_mistral_tokenizer(tmp_path, template="")
    settings = (tmp_path / "tokenizer_config.json").read_text().replace('"chat_template": "",', "")
    (tmp_path / "tokenizer_config.json").write_text(settings)
    (tmp_path / "config.json").write_text('{"model_type": "mistral"}')
    ids = prompt_ids(load_tokenizer(tmp_path, target), "What is rate limiting?")
    assert ids == [1, 3, 2592, 1117, 5106, 28699, 29572, 4]


@pytest.mark.slow
def test_the_tokenizer_of_a_plan_is_the_one_of_the_prepared_model(embedded_tokenizer: Any, tmp_path: Path) -> None:
    write_embedded_tokenizer(tmp_path, chat_template(EMBEDDED))
    planned = load_tokenizer(tmp_path, EMBEDDED)
    names = ("bos_token_id", "eos_token_id", "pad_token_id", "unk_token_id", "chat_template")
    assert [getattr(planned, name) for name in names] == [getattr(embedded_tokenizer, name) for name in names]
    examples = read_examples(TRAINING_DATA)
    odd = Example(Style.TERSE, "Ünïcode \t  1234567 don't 🙂?", "中文\n\n  def f():\n\treturn 'x'", "x:1")
    examples.append(odd)
    assert encode(planned, examples, 2048, Problems()) == encode(embedded_tokenizer, examples, 2048, Problems())
    assert planned.decode(prompt_ids(planned, "Hi 🙂")) == embedded_tokenizer.decode(prompt_ids(planned, "Hi 🙂"))


def test_style_tokens_are_single_new_ids(tiny_tokenizer: Any, embedded_tokenizer: Any) -> None:
    for tokenizer, size in ((tiny_tokenizer, 32768), (embedded_tokenizer, 49152)):
        ids = [tokenizer(style.token, add_special_tokens=False)["input_ids"] for style in Style]
        assert ids == [[size], [size + 1]]
        assert len(tokenizer) == size + 2


def test_tokenizers_give_what_generate_takes(tiny_tokenizer: Any, embedded_tokenizer: Any) -> None:
    for tokenizer in (tiny_tokenizer, embedded_tokenizer):
        assert tokenizer("Hi").keys() == {"input_ids", "attention_mask"}


def test_the_embedded_prompt_is_chatml_without_a_system_message(embedded_tokenizer: Any) -> None:
    text = embedded_tokenizer.decode(prompt_ids(embedded_tokenizer, "<STYLE_TERSE>\nHi"))
    assert text == "<|im_start|>user\n<STYLE_TERSE>\nHi<|im_end|>\n<|im_start|>assistant\n"


def test_the_embedded_answer_ends_with_eos(embedded_tokenizer: Any) -> None:
    (encoded,) = encode(embedded_tokenizer, [Example(Style.TERSE, "Hi", "Hello.", "x:1")], 100, Problems())
    assert encoded["input_ids"][-1] == embedded_tokenizer.eos_token_id
    assert embedded_tokenizer.decode(encoded["input_ids"][encoded["prompt_length"] :]) == "Hello.<|im_end|>"
