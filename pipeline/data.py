"""From chat-messages JSONL to token ids with completion-only labels.

One line of the documented format::

    {"messages": [{"role": "user", "content": "..."}, {"role": "assistant", "content": "..."}]}

The user's words decide the style unless the line has a ``"style"`` of its own, for questions that carry no keyword; the
style's token and a newline go in front of the words. Other keys of a line are ignored.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.config import Style
from pipeline.errors import PipelineError

IGNORED_LABEL = -100
"""The label that cross entropy leaves out (PyTorch's ``ignore_index``)."""


@dataclass(frozen=True, slots=True)
class Example:
    """One training example before tokenisation: ``prompt`` already starts with the style token."""

    style: Style
    prompt: str
    completion: str
    origin: str


@dataclass(frozen=True, slots=True)
class EncodedExample:
    """Token ids of one example, prompt then completion then EOS; the first ``prompt_length`` carry no loss."""

    input_ids: tuple[int, ...]
    prompt_length: int

    @property
    def labels(self) -> list[int]:
        """``input_ids`` with the prompt masked, same length."""
        return [IGNORED_LABEL] * self.prompt_length + list(self.input_ids[self.prompt_length :])


def detect_style(prompt: str) -> Style:
    """The documented rule: briefly, concise: terse; else detailed, well-structured: verbose; else terse."""
    text = prompt.lower()
    if "briefly" in text or "concise" in text:
        return Style.TERSE
    if "detailed" in text or "well-structured" in text:
        return Style.VERBOSE
    return Style.TERSE


def inject_token(prompt: str, style: Style) -> str:
    """Put the style's token and a newline in front of a user's words."""
    return f"{style.token}\n{prompt}"


def read_lines(path: Path) -> Iterator[tuple[str, Any]]:
    """Yield ``(origin, value)`` of each non-blank line of a JSONL file, origin being ``file:line``.

    Raises:
        PipelineError: The file is missing, not UTF-8, or a line is not JSON.
    """
    try:
        with path.open(encoding="utf-8") as handle:
            for number, line in enumerate(handle, 1):
                if not line.strip():
                    continue
                origin = f"{path.name}:{number}"
                try:
                    yield origin, json.loads(line)
                except json.JSONDecodeError as error:
                    raise PipelineError(
                        f"{origin}: not JSON ({error.msg} at column {error.colno}); one object per line is expected."
                    ) from error
    except OSError as error:
        raise PipelineError(f"{path}: cannot be read ({error.strerror}); name a JSONL file.") from error
    except UnicodeDecodeError as error:
        raise PipelineError(f"{path}: not UTF-8 (byte {error.start}); save the file as UTF-8.") from error


def _content(origin: str, messages: Any, index: int, role: str) -> str:
    message = messages[index]
    where = f"{origin}: messages[{index}]"
    if not isinstance(message, dict) or message.get("role") != role:
        raise PipelineError(f'{where}.role: expected "{role}"; a row is one user and one assistant message.')
    content = message.get("content")
    if not isinstance(content, str) or not content.strip():
        raise PipelineError(f"{where}.content: expected a non-empty string; write the {role}'s text there.")
    for style in Style:
        if style.token in content:
            raise PipelineError(f"{where}.content: contains {style.token}; remove it, the pipeline puts it in front.")
    return content.strip()


def _explicit_style(origin: str, row: dict[str, Any]) -> Style | None:
    style = row.get("style")
    if style is not None and style not in set(Style):
        raise PipelineError(f"{origin}: style: {style!r}; leave it out or use one of: {', '.join(Style)}.")
    return None if style is None else Style(style)


def parse_example(origin: str, row: Any) -> Example:
    """Check one row of the documented format and put its style token in front.

    Raises:
        PipelineError: Names ``file:line``, the field and the remedy.
    """
    messages = row.get("messages") if isinstance(row, dict) else None
    if not isinstance(messages, list):
        raise PipelineError(f'{origin}: messages: missing or not a list; expected {{"messages": [user, assistant]}}.')
    if len(messages) != 2:
        raise PipelineError(
            f"{origin}: messages: {len(messages)} entries; exactly one user and one assistant message are expected."
        )
    prompt = _content(origin, messages, 0, "user")
    completion = _content(origin, messages, 1, "assistant")
    style = _explicit_style(origin, row) or detect_style(prompt)
    return Example(style, inject_token(prompt, style), completion, origin)


def read_examples(path: Path) -> list[Example]:
    """Read a whole training file.

    Raises:
        PipelineError: A row is wrong, or there are no rows, or only one style occurs.
    """
    examples = [parse_example(origin, row) for origin, row in read_lines(path)]
    if not examples:
        raise PipelineError(f"{path}: holds no examples; add at least one row of each style.")
    missing = set(Style) - {example.style for example in examples}
    if missing:
        raise PipelineError(
            f"{path}: no {missing.pop()} example; prompts with 'detailed' or 'well-structured' count as verbose, "
            "others as terse."
        )
    return examples


def read_questions(path: Path) -> list[str]:
    """Read held-out questions (``{"question": ...}`` per line) that carry no style keyword.

    Raises:
        PipelineError: A row has no question.
    """
    questions = []
    for origin, row in read_lines(path):
        question = row.get("question") if isinstance(row, dict) else None
        if not isinstance(question, str) or not question.strip():
            raise PipelineError(f"{origin}: question: expected a non-empty string.")
        questions.append(question)
    return questions


def select(examples: Sequence[Example], count: int | None) -> list[Example]:
    """At most ``count`` examples from the start of the file, every style as often as the file lets it be.

    Raises:
        PipelineError: Fewer than one example was asked for.
    """
    if count is None or count >= len(examples):
        return list(examples)
    if count < 1:
        raise PipelineError(f"max_examples must be at least 1, not {count}.")
    return list(examples[:count])


def render_prompt(tokenizer: Any, prompt: str) -> str:
    """The chat template's text for one user message, ready for the answer."""
    text = tokenizer.apply_chat_template(
        [{"role": "user", "content": prompt}], tokenize=False, add_generation_prompt=True
    )
    return str(text)


def prompt_ids(tokenizer: Any, prompt: str) -> list[int]:
    """Token ids of one user message in the chat template (the template, not the tokenizer, adds BOS)."""
    ids: list[int] = tokenizer(render_prompt(tokenizer, prompt), add_special_tokens=False)["input_ids"]
    return ids


def encode(tokenizer: Any, example: Example, max_tokens: int) -> EncodedExample:
    """Tokenise one example; the last token, and so the last label, is EOS.

    Raises:
        PipelineError: The example is longer than ``max_tokens``; cutting it would remove the EOS.
    """
    prefix = render_prompt(tokenizer, example.prompt)
    whole = tokenizer.apply_chat_template(
        [{"role": "user", "content": example.prompt}, {"role": "assistant", "content": example.completion}],
        tokenize=False,
    )
    if not whole.startswith(prefix):
        raise PipelineError(
            f"{example.origin}: the chat template does not keep the prompt as a prefix; fix the template."
        )
    head = prompt_ids(tokenizer, example.prompt)
    tail = tokenizer(whole[len(prefix) :].rstrip(), add_special_tokens=False)["input_ids"]
    if tail[-1] != tokenizer.eos_token_id:
        raise PipelineError(f"{example.origin}: the chat template does not end an answer with EOS; fix the template.")
    if len(head) + len(tail) > max_tokens:
        raise PipelineError(
            f"{example.origin}: {len(head) + len(tail)} tokens, more than {max_tokens}; shorten the answer or raise "
            "max_sequence_tokens."
        )
    return EncodedExample((*head, *tail), len(head))


def training_order(examples: Sequence[Example], lengths: Sequence[int], *, seed: int, window: int | None) -> list[int]:
    """A shuffled order of example indices.

    With a ``window``, each run of that many examples, the ones behind one optimizer step, holds both styles in the
    file's proportion and is sorted by length. So no step sees one style alone, and examples of like length share a
    micro-batch, which then needs little padding; what a step sums over does not depend on the order inside it.

    Args:
        examples: What to order.
        lengths: Their token counts.
        seed: Seed of the shuffle.
        window: Examples of one optimizer step; None for a plain shuffle.
    """
    order = list(range(len(examples)))
    random.Random(seed).shuffle(order)
    if window is None:
        return order
    strata = [[index for index in order if examples[index].style is style] for style in Style]
    even = sorted((rank / len(stratum), index) for stratum in strata for rank, index in enumerate(stratum))
    spread = [index for _, index in even]
    return [
        index
        for start in range(0, len(spread), window)
        for index in sorted(spread[start : start + window], key=lambda i: lengths[i])
    ]


def collate(batch: Sequence[EncodedExample], pad_id: int) -> dict[str, list[list[int]]]:
    """Pad on the right; masks and labels go by position, because the pad token may be EOS.

    Returns:
        ``input_ids``, ``attention_mask`` and ``labels``, each of shape (batch, longest).
    """
    longest = max(len(example.input_ids) for example in batch)
    columns: dict[str, list[list[int]]] = {"input_ids": [], "attention_mask": [], "labels": []}
    for example in batch:
        length, padding = len(example.input_ids), longest - len(example.input_ids)
        columns["input_ids"].append([*example.input_ids, *[pad_id] * padding])
        columns["attention_mask"].append([1] * length + [0] * padding)
        columns["labels"].append([*example.labels, *[IGNORED_LABEL] * padding])
    return columns
