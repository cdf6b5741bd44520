"""Held-out loss and rates: how they are put together."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks.held_out import compare_means, in_turn, report, summarise, to_markdown
from benchmarks.training_variants import HELD_OUT_FILE


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
    assert said in compare_means(summarise(runs([2.0, 2.1], lean)))


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
    with pytest.raises(ValueError, match="the same number of examples"):
        report(folders, tmp_path / "out")


def test_seeds_of_one_preset_are_reported_without_a_comparison(tmp_path: Path) -> None:
    (tmp_path / "seed").mkdir()
    (tmp_path / "seed" / HELD_OUT_FILE).write_text(json.dumps(runs([], [1.0])[0]))
    document = report([tmp_path / "seed"], tmp_path)
    assert [row["variant"] for row in document["rows"]] == ["lean"]
    assert to_markdown(document).strip().splitlines()[-1].startswith("| lean")


def test_two_runs_that_were_made_in_turn_are_compared_by_rate_and_memory() -> None:
    of_golden, of_lean = (
        {
            **run,
            "training_s": 1536 / rate,
            "examples_per_s": rate,
            "peak_memory": {"rss_gib": rss_gib},
            "adapter_bytes": 2**20,
        }
        for run, rate, rss_gib in zip(runs([2.0], [1.0]), (0.5, 1.5), (4.0, 1.0), strict=True)
    )
    cells = [cell.strip() for cell in in_turn([of_lean, of_golden]).splitlines()[-1].split("|")]
    assert cells[1:-1] == ["lean", "17.1 min", "1.50", "3.00", "1.00 GiB", "0.25", "1.0 MiB", "1.000"]
