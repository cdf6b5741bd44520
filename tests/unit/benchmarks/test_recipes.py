"""Counts of bad answers of several recipes, put together."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks.recipes import RESULT, choose, report, to_markdown

OLD, NEW = "two passes", "three passes, twice the rate"


def result(recipe: str, seed: int, out_of_bound: tuple[int, int], unvaried: int, commit: str = "c") -> dict[str, Any]:
    return {
        "recipe": recipe,
        "seed": seed,
        "prompt_counts": {"terse": 50, "verbose": 50},
        "out_of_bound_counts": dict(zip(("terse", "verbose"), out_of_bound, strict=True)),
        "unvaried_count": unvaried,
        "provenance": {"git_commit": commit},
    }


def written(folder: Path, *results: dict[str, Any]) -> list[Path]:
    folders = [folder / str(number) for number in range(len(results))]
    for place, one in zip(folders, results, strict=True):
        place.mkdir()
        (place / RESULT).write_text(json.dumps(one))
    return folders


def test_the_seeds_of_a_recipe_count_together_in_the_order_of_the_recipes(tmp_path: Path) -> None:
    runs = written(tmp_path, result(NEW, 2, (0, 1), 1), result(OLD, 3, (2, 4), 5), result(OLD, 2, (1, 3), 3))
    report(runs, tmp_path)
    document = json.loads((tmp_path / "recipes.json").read_text())
    assert document["provenance"] == {"git_commit": "c"}
    *_, old, new = ([cell.strip() for cell in row.split("|")[1:-1]] for row in to_markdown(document).splitlines())
    assert old == [OLD, "640, 2, 0.001", "2, 3", "3 of 100 (3.0%)", "7 of 100 (7.0%)", "8 of 200 (4.0%)"]
    assert new == [NEW, "426, 3, 0.002", "2", "0 of 50 (0.0%)", "1 of 50 (2.0%)", "1 of 100 (1.0%)"]


def test_runs_of_several_commits_are_not_put_together(tmp_path: Path) -> None:
    runs = written(tmp_path, result(NEW, 2, (0, 0), 0), result(OLD, 2, (0, 0), 0, commit="d"))
    with pytest.raises(ValueError, match="several commits"):
        report(runs, tmp_path)


def test_the_recipe_with_the_lowest_worst_share_is_chosen() -> None:
    even, uneven = result(OLD, 2, (2, 2), 3), result(NEW, 2, (0, 4), 0)
    assert choose([even, uneven]) == OLD
    assert choose([even, uneven, *(result(NEW, seed, (0, 0), 0) for seed in (3, 4))]) == NEW
