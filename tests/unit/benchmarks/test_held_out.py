from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.benchmarks.held_out import report, summarise, to_markdown, verdict
from tests.benchmarks.training_variants import HELD_OUT_FILE


def runs(golden: list[float], lean: list[float]) -> list[dict[str, Any]]:
    return [
        {
            "variant": variant,
            "seed": 42 + number,
            "held_out_nats_per_token": loss,
            "examples": 1536,
            "data_sha256": "d",
        }
        for variant, losses in (("golden", golden), ("lean", lean))
        for number, loss in reversed(list(enumerate(losses)))
    ]


def test_a_row_holds_the_seeds_in_order_their_mean_and_their_spread() -> None:
    golden, lean = summarise(runs([2.0, 2.2, 2.1], [1.0, 1.0, 1.3]))
    assert golden["seeds"] == [42, 43, 44]
    assert golden["held_out_nats_per_token"] == [2.0, 2.2, 2.1]
    assert golden["mean"] == pytest.approx(2.1)
    assert golden["spread"] == pytest.approx(0.2)
    assert lean["mean"] == pytest.approx(1.1)


@pytest.mark.parametrize(
    ("lean", "said"),
    [
        ([1.0, 1.1], "no worse than golden's beyond the spread: 1.0000 nats per token below"),
        ([2.1, 2.1], "no worse than golden's beyond the spread: 0.0500 nats per token above"),
        ([2.3, 2.3], "worse than golden's: 0.2500 nats per token above"),
    ],
)
def test_worse_means_worse_by_more_than_the_spread(lean: list[float], said: str) -> None:
    assert said in verdict(summarise(runs([2.0, 2.1], lean)))


def test_the_report_holds_every_run_and_refuses_unlike_ones(tmp_path: Path) -> None:
    results = runs([2.0, 2.1], [1.0, 1.1])
    folders = []
    for number, run in enumerate(results):
        folders.append(tmp_path / str(number))
        folders[-1].mkdir()
        (folders[-1] / HELD_OUT_FILE).write_text(json.dumps(run))
    document = report(folders, tmp_path / "out")
    assert document["runs"] == results
    assert (tmp_path / "out" / "held_out.md").read_text() == to_markdown(document)
    (folders[0] / HELD_OUT_FILE).write_text(json.dumps({**results[0], "examples": 64}))
    with pytest.raises(ValueError, match="as many examples"):
        report(folders, tmp_path / "out")
