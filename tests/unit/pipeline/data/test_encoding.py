from __future__ import annotations

from typing import Any

import pytest

from pipeline.config import Style
from pipeline.data.batches import IGNORED_LABEL, collate
from pipeline.data.encoding import encode
from pipeline.data.formats import Example
from pipeline.data.source import Problems
from pipeline.errors import PipelineError

PLAIN = (
    "{{ bos_token }}{% for m in messages %}{{ m['content'] }}"
    "{% if m['role'] == 'assistant' %}{{ eos_token }}{% else %}[/INST]{% endif %}{% endfor %}"
)


def example(completion: str, origin: str = "rows.jsonl:7") -> Example:
    return Example(Style.TERSE, "Why?", completion, origin)


def test_labels_cover_the_completion_and_its_eos_only(tiny_tokenizer: Any) -> None:
    (encoded,) = encode(tiny_tokenizer, [example("Because.")], 100, Problems())
    (labels,) = collate([encoded], pad_id=0)["labels"]
    assert labels[: encoded["prompt_length"]] == [IGNORED_LABEL] * encoded["prompt_length"]
    answer = labels[encoded["prompt_length"] :]
    assert answer[-1] == tiny_tokenizer.eos_token_id
    assert tiny_tokenizer.decode(answer[:-1]).strip() == "Because."
    style_id = tiny_tokenizer.convert_tokens_to_ids("<STYLE_TERSE>")
    assert style_id in encoded["input_ids"][: encoded["prompt_length"]]
    assert style_id not in answer


def test_many_examples_are_encoded_as_each_alone(tiny_tokenizer: Any) -> None:
    examples = [example("Because."), example("It was late, and dark."), example("No.")]
    together = encode(tiny_tokenizer, examples, 100, Problems())
    assert together == [encode(tiny_tokenizer, [each], 100, Problems())[0] for each in examples]


def test_an_answer_that_does_not_fit_is_refused_not_cut(tiny_tokenizer: Any) -> None:
    problems = Problems()
    assert encode(tiny_tokenizer, [example("Because of it.")], 12, problems) == []
    (shown,) = problems.shown
    assert shown.startswith("rows.jsonl:7: ")
    assert "tokens, more than 12" in shown


@pytest.mark.parametrize("spelled", ["</s>", "[INST]", "[/INST]"])
def test_a_text_that_spells_a_control_token_is_refused(tiny_tokenizer: Any, spelled: str) -> None:
    problems = Problems()
    assert encode(tiny_tokenizer, [example(f"Use {spelled} here.")], 100, problems) == []
    assert problems.shown == [f"rows.jsonl:7: contains {spelled}, a control token of the model; remove it."]


@pytest.mark.parametrize(
    ("before", "after", "complaint"),
    [
        ("{{ eos_token }}", "", "does not end an answer with EOS; fix the template"),
        ("{{ bos_token }}", "{{ bos_token * messages | length }}", "does not keep the prompt as a prefix; fix the"),
    ],
    ids=["no end", "another beginning"],
)
def test_a_template_that_cannot_be_trained_is_refused(
    before: str, after: str, complaint: str, tiny_tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tiny_tokenizer, "chat_template", PLAIN)
    assert len(encode(tiny_tokenizer, [example("Because.")], 100, Problems())) == 1
    assert before in PLAIN
    monkeypatch.setattr(tiny_tokenizer, "chat_template", PLAIN.replace(before, after))
    with pytest.raises(PipelineError, match=rf"^rows\.jsonl:7: the chat template {complaint}"):
        encode(tiny_tokenizer, [example("Because.")], 100, Problems())
