"""How a style is asked for: the shipped table, one's own, and what is wrong with one."""

from __future__ import annotations

from pathlib import Path

import pytest

from acceptance.styles import TOKEN_IN_FRONT, StyleRequest, read_styles
from pipeline.config import Style
from pipeline.errors import PipelineError

TABLE = """
[terse]
prefix = "<STYLE_TERSE>\\n"

[verbose]
system = "Answer at length."
model = "long"
extra = { min_tokens = 64, chat_template_kwargs = { enable_thinking = false } }
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "styles.toml"


def test_without_a_table_the_token_stands_in_front() -> None:
    assert TOKEN_IN_FRONT[Style.TERSE] == StyleRequest(prefix="<STYLE_TERSE>\n")
    assert TOKEN_IN_FRONT[Style.VERBOSE] == StyleRequest(prefix="<STYLE_VERBOSE>\n")


def test_a_table_is_read(file: Path) -> None:
    file.write_text(TABLE, encoding="utf-8")
    table = read_styles(file)
    assert table[Style.TERSE] == TOKEN_IN_FRONT[Style.TERSE]
    extra = {"min_tokens": 64, "chat_template_kwargs": {"enable_thinking": False}}
    assert table[Style.VERBOSE] == StyleRequest("", "Answer at length.", "long", extra)


@pytest.mark.parametrize(
    ("old", "new", "complaint"),
    [
        ("[terse]", "[terse", r"styles\.toml: no table of styles"),
        ("[verbose]", "[long]", r"styles\.toml: has terse, long; write the tables terse, verbose"),
        ("system =", "sytem =", r"styles\.toml: verbose: has an unknown field; the fields are prefix, system, model"),
        ('"long"', "7", r"styles\.toml: verbose\.model: is text"),
        ("min_tokens = 64", "max_tokens = 64", r"styles\.toml: verbose\.extra: is a table without max_tokens"),
        ("min_tokens = 64", "since = 2020-01-01", r"verbose\.extra: cannot be sent as JSON"),
        (TABLE, '[terse]\nprefix = "a"\n[verbose]\nprefix = "a"\n', "asks for both styles in the same way"),
        (TABLE, 'terse = "a"\n[verbose]\nprefix = "a"\n', r"styles\.toml: terse: has an unknown field"),
    ],
)
def test_a_wrong_table_is_refused(old: str, new: str, complaint: str, file: Path) -> None:
    file.write_text(TABLE.replace(old, new), encoding="utf-8")
    with pytest.raises(PipelineError, match=complaint):
        read_styles(file)


def test_a_missing_table_is_refused(file: Path) -> None:
    with pytest.raises(PipelineError, match=r"styles\.toml: no table of styles"):
        read_styles(file)
