"""A target's tokenizer with chat template and style tokens; works without torch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pipeline.config import Style, Target
from pipeline.errors import PipelineError
from pipeline.files import ASSETS
from pipeline.target_file import SHIPPED_TEMPLATES, TARGET_FILE

_FIXED = "{% set enable_thinking = false %}{% macro strftime_now(format) %}01 Jan 2025{% endmacro %}"
"""In front of templates that ask for it: no reasoning before the answer, and a prompt that is the same on every day."""
_CHANGING = ("enable_thinking", "strftime_now")
_PROBE = "probe-of-an-answer"


def chat_template(target: Target) -> str:
    """The Jinja chat template for a tokenizer of this target that has none.

    Raises:
        PipelineError: There is none.
    """
    if target.template is None:
        raise PipelineError(
            f"{target.folder or target.name}: the tokenizer has no chat template; put one into {TARGET_FILE}, such as "
            'template = "plain".'
        )
    if target.template not in SHIPPED_TEMPLATES:
        return target.template
    return (ASSETS / "templates" / f"{target.template}.jinja").read_text(encoding="utf-8")


def open_tokenizer(folder: Path) -> Any:
    """Open a tokenizer as it is.

    Raises:
        PipelineError: The folder has no usable tokenizer.
    """
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
    except (OSError, ValueError) as error:
        raise PipelineError(
            f"{folder}: no usable tokenizer ({error}); put the model's tokenizer files there."
        ) from error


def load_tokenizer(folder: Path, target: Target) -> Any:
    """Load a tokenizer and add what it lacks: chat template, pad token and the two style tokens.

    Raises:
        PipelineError: The folder has no usable tokenizer, or a style token is split into several ids.
    """
    from transformers import AddedToken

    tokenizer = open_tokenizer(folder)
    if tokenizer.chat_template is None:
        tokenizer.chat_template = chat_template(target)
    if target.folder is not None:
        _settle_template(tokenizer, folder)
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    tokenizer.add_tokens(
        [AddedToken(style.token, special=True, normalized=False) for style in Style], special_tokens=True
    )
    for style in Style:
        if tokenizer(style.token, add_special_tokens=False)["input_ids"] != [
            tokenizer.convert_tokens_to_ids(style.token)
        ]:
            raise PipelineError(
                f"{folder}: the tokenizer splits {style.token}; use a tokenizer that does not split added tokens."
            )
    return tokenizer


def _settle_template(tokenizer: Any, folder: Path) -> None:
    """Let the chat template render the same on every day, and let EOS be the token with which it ends an answer.

    Templates of some models (Gemma, Phi) end an answer with another token than the tokenizer's EOS.
    """
    template = tokenizer.get_chat_template()
    tokenizer.chat_template = _FIXED + template if any(name in template for name in _CHANGING) else template
    messages = [{"role": "user", "content": "question"}, {"role": "assistant", "content": _PROBE}]
    try:
        rendered = str(tokenizer.apply_chat_template(messages, tokenize=False))
    except Exception as error:  # Jinja's errors, and whatever a template raises itself
        raise PipelineError(f"{folder}: the chat template cannot be used ({error}); correct it.") from error
    end = rendered.rpartition(_PROBE)[2].strip()
    ids = tokenizer(end, add_special_tokens=False)["input_ids"]
    token = tokenizer.convert_ids_to_tokens(ids[0]) if ids else ""
    if token not in {*tokenizer.all_special_tokens, *tokenizer.get_added_vocab()}:
        raise PipelineError(
            f"{folder}: the chat template ends an answer with {end!r}, which is no special token; correct the template."
        )
    tokenizer.eos_token = token


def style_token_ids(tokenizer: Any) -> list[int]:
    """Ids of the two style tokens, in the order of ``Style``."""
    return [tokenizer.convert_tokens_to_ids(style.token) for style in Style]
