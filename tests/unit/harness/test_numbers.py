"""Statistics, measures, comparisons."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest

from harness.metrics import loss_trend, sequence_repetition
from harness.recorder import Recorder
from harness.snapshots.compare import TrajectoryDelta, token_divergence, trajectory_delta
from harness.statistics import Proportion, median, median_interval, quantile, share, share_interval


def test_statistics() -> None:
    assert median([3, 1, 2]) == 2.0
    assert median([1, 2]) == 1.5
    assert quantile([0.0, 10.0], 0.95) == pytest.approx(9.5)
    assert share([True, False, True, True]) == 0.75
    assert share(list(np.array([True, True]))) == 1.0


@pytest.mark.parametrize("values", [[], [1.0, math.nan], [math.inf], [[1.0]]])
def test_statistics_refuse_what_has_no_answer(values: list[float]) -> None:
    with pytest.raises(ValueError, match="sample"):
        median(values)
    with pytest.raises(ValueError, match="sample"):
        quantile(values, 0.5)


@pytest.mark.parametrize("flags", [[], [math.nan], [1, 0]])
def test_share_refuses_what_is_no_flag(flags: list[bool]) -> None:
    with pytest.raises(ValueError, match=r"share|sample"):
        share(flags)


def test_intervals_have_the_published_values() -> None:
    low, high = share_interval([True] * 15 + [False] * 5)  # Newcombe 1998 gives Wilson's interval by this formula
    z, n, p = 1.959963984540054, 20, 0.75
    centre, half = p + z * z / (2 * n), z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    assert (low, high) == pytest.approx(((centre - half) / (1 + z * z / n), (centre + half) / (1 + z * z / n)))
    assert share_interval([True] * 20)[0] == pytest.approx(0.8389, abs=1e-4)  # never the degenerate (1, 1)
    assert median_interval(list(range(1, 21))) == (6.0, 15.0)  # tabulated order statistics of n = 20


def test_intervals_refuse_what_has_no_answer() -> None:
    with pytest.raises(ValueError, match=r"sample|share"):
        share_interval([])
    with pytest.raises(ValueError, match="sample"):
        median_interval([1.0, math.nan])


def test_sequence_repetition() -> None:
    assert sequence_repetition([1, 2, 3]) == 0.0
    assert sequence_repetition([]) == 0.0
    assert sequence_repetition(range(50)) == 0.0
    assert sequence_repetition([7] * 13) == pytest.approx(0.9)
    assert sequence_repetition([1, 2, 1, 2, 1], n=2) == 0.5
    with pytest.raises(ValueError, match="n=0"):
        sequence_repetition([1], n=0)


def test_loss_trend_of_a_falling_loss() -> None:
    trend = loss_trend([5.0, 4.0, 3.0, 2.0, 1.0])
    assert trend.non_finite_loss_count == 0
    assert trend.last_to_first_fifth_loss_ratio == pytest.approx(0.2)
    assert trend.loss_kendall_tau == pytest.approx(-1.0)
    assert trend.loss_kendall_p_value == pytest.approx(1 / 120)


def test_loss_trend_is_one_sided() -> None:
    assert loss_trend([1.0, 2.0, 3.0, 4.0, 5.0]).loss_kendall_p_value == pytest.approx(1.0)


def test_loss_trend_uses_whole_fifths() -> None:
    losses = [4.0, 2.0, *[9.0] * 6, 1.0, 2.0]
    assert loss_trend(losses).last_to_first_fifth_loss_ratio == pytest.approx(0.5)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_loss_trend_of_a_non_finite_loss(bad: float) -> None:
    trend = loss_trend([5.0, bad, 3.0, bad, 1.0])
    assert trend.non_finite_loss_count == 2
    assert math.isnan(trend.last_to_first_fifth_loss_ratio)
    assert math.isnan(trend.loss_kendall_tau)
    assert math.isnan(trend.loss_kendall_p_value)


def test_loss_trend_edge_cases() -> None:
    assert math.isnan(loss_trend([1.0] * 6).loss_kendall_tau)
    assert math.isnan(loss_trend([0.0] * 6).last_to_first_fifth_loss_ratio)
    with pytest.raises(ValueError, match="at least 5"):
        loss_trend([4.0, 3.0, 2.0, 1.0])


def test_trajectory_delta() -> None:
    delta = trajectory_delta([1.0, 2.0], [1.5, 1.75])
    assert delta == TrajectoryDelta(True, 0.5, 0.125)
    assert delta.within(0.5, 0.125)
    assert not delta.within(0.4, 0.125)
    assert not delta.within(0.5, 0.1)
    assert not trajectory_delta([1.0, 2.0], [0.5, 1.5]).within(0.5, 0.4)


@pytest.mark.parametrize("observed", [[1.0], [1.0, 2.0, 3.0], [], [1.0, math.nan], [1.0, math.inf]])
def test_broken_trajectories_are_never_within(observed: list[float]) -> None:
    assert not trajectory_delta([1.0, 2.0], observed).within(math.inf, math.inf)


def test_infinite_trajectories_do_not_agree() -> None:
    assert not trajectory_delta([math.inf], [math.inf]).within(1.0, 1.0)


def test_empty_reference_is_refused() -> None:
    with pytest.raises(ValueError, match="empty"):
        trajectory_delta([], [])


@pytest.mark.parametrize(
    ("recorded", "observed", "index"),
    [
        ([1, 2], [1, 2], None),
        ([1, 2], [1, 3], 1),
        ([1, 2], [1], 1),
        ([1], [1, 2], 1),
        ([], [1], 0),
        ([], [], None),
    ],
)
def test_token_divergence(recorded: list[int], observed: list[int], index: int | None) -> None:
    assert token_divergence(recorded, observed) == index


def test_measured_converts_numpy_scalars() -> None:
    measured = Recorder()
    measured.record(flag=np.bool_(True), count=np.int64(3), value=np.float32(0.5))
    assert measured.measurements == {"flag": True, "count": 3, "value": 0.5}
    assert [type(value) for value in measured.measurements.values()] == [bool, int, float]


def test_attachments_are_validated() -> None:
    measured = Recorder()
    measured.attach("loss", kind="series", values=[1.0], unit="nats", label="training")
    changes: list[dict[str, Any]] = [
        {"kind": "pie"},
        {"values": []},
        {},
        {"label": "other", "unit": "s"},
        {"label": "other", "kind": "latency"},
    ]
    for change in changes:
        arguments: dict[str, Any] = {"kind": "series", "values": [1.0], "unit": "nats", "label": "training", **change}
        with pytest.raises(ValueError, match=r"kind|no values|twice"):
            measured.attach("loss", **arguments)
    measured.attach("loss", kind="series", values=[2.0], unit="nats", label="evaluation")
    assert len(measured.attachments) == 2


def test_only_scalars_and_samples_are_recorded() -> None:
    measured = Recorder()
    measured.record(share=Proportion(1, 2), name="terse")
    assert measured.measurements == {"share": Proportion(1, 2), "name": "terse"}
    for value in (None, [1.0], {"a": 1}, np.array([1.0, 2.0]), object()):
        with pytest.raises(TypeError, match="other: a measured value is a scalar"):
            measured.record(other=value)
    with pytest.raises(ValueError, match="share was recorded twice"):
        measured.record(share=Proportion(1, 2))


def test_flags_by_case_are_recorded_as_a_share() -> None:
    measured = Recorder()
    measured.record(share={"first": True, "second": np.bool_(False)})
    assert measured.measurements == {"share": Proportion(1, 2)}
    assert measured.cases == {"share": {"first": True, "second": False}}
    for value in ({}, {1: True}, {"first": 1}):
        with pytest.raises(TypeError, match="other: a measured value is a scalar"):
            measured.record(other=value)
    assert list(measured.cases) == ["share"]


def test_tables_are_shown_as_plain_values() -> None:
    measured = Recorder()
    rows: list[Any] = [["Why?", np.int64(7)], ("How?", 2.5)]
    measured.show("answers", ["question", "tokens"], rows)
    [table] = measured.tables
    assert table == {"name": "answers", "columns": ["question", "tokens"], "rows": [["Why?", 7], ["How?", 2.5]]}
    assert json.loads(json.dumps(table)) == table


def test_tables_are_validated() -> None:
    measured = Recorder()
    measured.show("answers", ["question"], [["Why?"]])
    faults: list[tuple[str, list[list[str]]]] = [
        ("answers", [["How?"]]),
        ("other", []),
        ("other", [["How?", "more"]]),
        ("other", [[]]),
    ]
    for name, rows in faults:
        with pytest.raises(ValueError, match=r"shown twice|a table has rows, each with 1 cells"):
            measured.show(name, ["question"], rows)
    wrong: list[Any] = [None, ["How?"], np.array([1, 2])]
    for cell in wrong:
        with pytest.raises(TypeError, match=r"other: a cell is text or a number, got \w+ under question"):
            measured.show("other", ["question"], [[cell]])
    assert len(measured.tables) == 1
