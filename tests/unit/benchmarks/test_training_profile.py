"""The profile's kinds."""

from __future__ import annotations

import pytest

from benchmarks.training_profile import PYTHON, by_kind, to_markdown


def test_every_operator_counts_once_and_python_is_the_rest() -> None:
    operators = [
        ("aten::mm", 2.0),
        ("aten::bmm", 1.0),
        ("aten::copy_", 0.5),
        ("aten::mul", 0.25),
        ("MulBackward0", 9.0),
    ]
    seconds = by_kind([*operators, ("bitsandbytes::dequantize_4bit", 0.125)], wall_s=5.0)
    assert seconds["matrix products"] == 2.0
    assert seconds["attention's products"] == 1.0
    assert seconds["copies and casts"] == 0.5
    assert seconds["unpacking 4-bit weights"] == 0.125
    assert seconds["other arithmetic"] == 0.25
    assert seconds[PYTHON] == pytest.approx(1.125)
    assert sum(seconds.values()) == pytest.approx(5.0)


def test_the_longest_stands_first() -> None:
    lines = to_markdown({"wall_s": 4.0, "seconds": {"short": 1.0, "long": 3.0}}).splitlines()
    assert [line.split("|")[1].strip() for line in lines[2:]] == ["long", "short"]
    assert "75%" in lines[2]
