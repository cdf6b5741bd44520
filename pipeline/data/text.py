"""What counts as text: one rule for data rows, prompts on the command line and prompts sent to the server."""

from __future__ import annotations

import functools
import re
from typing import Any

from pipeline.config import Style
from pipeline.errors import PipelineError

_BLANK_BMP = (
    r"\u0000-\u0020\u007f-\u00a0\u00ad\u034f\u0600-\u0605\u061c\u06dd\u070f\u0890-\u0891\u08e2\u115f-\u1160\u1680"
    r"\u17b4-\u17b5\u180b-\u180f\u2000-\u200f\u2028-\u202f\u205f-\u206f\u2800\u3000\u3164\ufe00-\ufe0f\ufeff\uffa0"
    r"\ufff0-\ufffb"
)
_BLANK_ASTRAL = (
    r"\U000110bd\U000110cd\U00013430-\U0001343f\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff"
)
SCHEMA_NOT_BLANK = f"[^{_BLANK_BMP}]"
"""A character that shows, as a regular expression of every dialect, so without what lies beyond U+FFFF.

Blank are Unicode's spaces, control and format characters (Z*, Cc, Cf), whatever else is ignorable by default
(``Default_Ignorable_Code_Point``: Hangul fillers, variation selectors and others), and the Braille blank.
"""
_NOT_BLANK = re.compile(f"[^{_BLANK_BMP}{_BLANK_ASTRAL}]")
_SURROGATE = re.compile(r"[\ud800-\udfff]")


class TextError(PipelineError, ValueError):
    """A text that cannot be used; the message is a predicate with the remedy, to stand behind a subject."""


def require_text(text: str, tokenizer: Any = None) -> None:
    """Refuse what is no text, or what would not stay text in the model's input.

    Args:
        text: A prompt or an answer.
        tokenizer: The target's tokenizer, whose control tokens are refused, too; None checks only what holds for all.

    Raises:
        TextError: The text is blank, contains half a surrogate pair or a style token, or spells a control token.
    """
    if _SURROGATE.search(text):
        raise TextError("contains half a surrogate pair (\\ud800-\\udfff); write the complete character.")
    if not _NOT_BLANK.search(text):
        raise TextError("must not be blank; write some visible text.")
    for style in Style:
        if style.token in text:
            raise TextError(f"contains {style.token}, a style token; leave it out and name the style instead.")
    if tokenizer is not None and (found := spelled_control_token(text, tokenizer)):
        raise TextError(f"contains {found}, a control token of the model; remove it.")


def require_prompt(prompt: str, tokenizer: Any = None) -> None:
    """As ``require_text``, with "the prompt" as the message's subject."""
    try:
        require_text(prompt, tokenizer)
    except TextError as error:
        raise TextError(f"the prompt {error}") from None


_HTML_TAG = re.compile(r"</?[a-z]+[1-6]?>")


def spelled_control_token(text: str, tokenizer: Any) -> str | None:
    """The first token in a text that the tokenizer recognises anywhere and would act on; None if there is none."""
    found = [token for token in _control_tokens(tokenizer) if token in text]
    return min(found, key=text.index, default=None)


@functools.lru_cache(maxsize=4)
def _control_tokens(tokenizer: Any) -> frozenset[str]:
    # transformers 4.54 omits most of Mistral's from all_special_tokens, but still tokenises them as special.
    added = {token.content for token in tokenizer.added_tokens_decoder.values() if not _is_text(token, tokenizer)}
    return frozenset({*tokenizer.all_special_tokens, *added} - {style.token for style in Style})


def _is_text(token: Any, tokenizer: Any) -> bool:
    """Whether an added token is text like any other: white space (GPT-NeoX's, Phi's) and HTML tags (Gemma's)."""
    if token.special:
        return False
    tag = _HTML_TAG.fullmatch(token.content) is not None and token.content not in str(tokenizer.chat_template)
    return tag or not token.content.strip(" \n\r\t▁")
