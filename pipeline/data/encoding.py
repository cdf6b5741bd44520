"""From examples to token ids: prompt, answer and EOS, rendered by the chat template."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypedDict

from pipeline.data.formats import Example
from pipeline.data.source import Problems
from pipeline.data.text import spelled_control_token
from pipeline.errors import PipelineError


class EncodedExample(TypedDict):
    """Token ids of prompt, completion and EOS; the first ``prompt_length`` are masked in the loss."""

    input_ids: list[int]
    prompt_length: int


def render_prompt(tokenizer: Any, prompt: str) -> str:
    """Render one user message with the chat template, up to where the answer starts."""
    text = tokenizer.apply_chat_template(
        [{"role": "user", "content": prompt}], tokenize=False, add_generation_prompt=True
    )
    return str(text)


def prompt_ids(tokenizer: Any, prompt: str) -> list[int]:
    """Token ids of one user message in the chat template; BOS comes from the template, not from the tokenizer."""
    ids: list[int] = tokenizer(render_prompt(tokenizer, prompt), add_special_tokens=False)["input_ids"]
    return ids


def encode(tokenizer: Any, examples: Sequence[Example], max_tokens: int, problems: Problems) -> list[EncodedExample]:
    """Tokenise examples in one call; the last token of each, and thus its last label, is EOS.

    Args:
        tokenizer: The target's tokenizer, with its chat template.
        examples: The examples.
        max_tokens: Longest example in tokens; longer ones are refused, since truncation would remove EOS.
        problems: Collects examples that are too long or contain the model's control tokens.

    Raises:
        PipelineError: The chat template is unsuitable for training.
    """
    heads = [render_prompt(tokenizer, example.prompt) for example in examples]
    tails = [_answer_text(tokenizer, example, head) for example, head in zip(examples, heads, strict=True)]
    ids = tokenizer([*heads, *tails], add_special_tokens=False)["input_ids"]
    encoded = []
    for example, head, tail in zip(examples, ids[: len(heads)], ids[len(heads) :], strict=True):
        if found := spelled_control_token(f"{example.words} {example.completion}", tokenizer):
            problems.add(example.origin, f"contains {found}, a control token of the model; remove it.")
        elif len(head) + len(tail) > max_tokens:
            problems.add(
                example.origin,
                f"{len(head) + len(tail)} tokens, more than {max_tokens}; shorten the answer or raise "
                "max_sequence_tokens.",
            )
        elif tail[-1] != tokenizer.eos_token_id:
            raise PipelineError(
                f"{example.origin}: the chat template does not end an answer with EOS; fix the template."
            )
        else:
            encoded.append(EncodedExample(input_ids=[*head, *tail], prompt_length=len(head)))
    return encoded


def _answer_text(tokenizer: Any, example: Example, head: str) -> str:
    whole = tokenizer.apply_chat_template(
        [{"role": "user", "content": example.prompt}, {"role": "assistant", "content": example.completion}],
        tokenize=False,
    )
    if not whole.startswith(head):
        raise PipelineError(
            f"{example.origin}: the chat template does not keep the prompt as a prefix; fix the template."
        )
    answer, end, _ = str(whole[len(head) :]).partition(tokenizer.eos_token)
    return (answer + end).rstrip()  # what a template adds behind EOS, nothing ever generates


def answer_lengths(tokenizer: Any, max_tokens: int, examples: Sequence[Example], problems: Problems) -> list[int]:
    """Tokens of each answer as encoded for training, without EOS; ``encode`` says what is refused."""
    encoded = encode(tokenizer, examples, max_tokens, problems)
    return [len(row["input_ids"]) - row["prompt_length"] - 1 for row in encoded]
