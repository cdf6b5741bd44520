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
    seconds = by_kind([*operators, ("aten::_softmax", 0.125)], wall_s=5.0)
    assert seconds["matrix products"] == 2.0
    assert seconds["attention's products"] == 1.0
    assert seconds["copies and casts"] == 0.5
    assert seconds["softmax and loss"] == 0.125
    assert seconds["other arithmetic"] == 0.25
    assert seconds[PYTHON] == pytest.approx(1.125)
    assert sum(seconds.values()) == pytest.approx(5.0)


def test_the_longest_stands_first() -> None:
    document = {"wall_s": 4.0, "seconds": {"short": 1.0, "long": 3.0}, "gflop_per_s": 90.4, "matmul_gflop_per_s": 420.0}
    lines = to_markdown(document).splitlines()
    assert [line.split("|")[1].strip() for line in lines[2:4]] == ["long", "short"]
    assert "75%" in lines[2]
    assert lines[-1] == "One core, without the profiler: 90 of 420 GFLOP/s."
