"""A target's tokenizer with chat template and style tokens; works without torch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pipeline.config import Style, Target
from pipeline.errors import PipelineError
from pipeline.files import ASSETS


def chat_template(target: Target) -> str:
    """The Jinja chat template that the project ships for a target."""
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


def style_token_ids(tokenizer: Any) -> list[int]:
    """Ids of the two style tokens, in the order of ``Style``."""
    return [tokenizer.convert_tokens_to_ids(style.token) for style in Style]
