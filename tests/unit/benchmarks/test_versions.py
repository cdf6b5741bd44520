"""The comparison of the dependency sets: what it finds, and that the committed sets agree."""

from __future__ import annotations

import copy
import json
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from benchmarks.versions import SETS, disagreements

ROOT = Path(__file__).resolve().parents[3]
RESULTS = ROOT / "results" / "smollm2-135m" / "versions"
COMPARED = ("torch", "transformers", "peft", "accelerate", "bitsandbytes", "datasets")


def committed(name: str) -> dict[str, Any]:
    document: dict[str, Any] = json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))
    return document


CURRENT, GOLDEN = (committed(name) for name in SETS)


def test_the_committed_sets_agree() -> None:
    assert disagreements(CURRENT, GOLDEN) == []


@pytest.mark.parametrize("name", SETS)
def test_each_was_recorded_on_its_pins_from_a_commit(name: str) -> None:
    document = committed(name)
    pins = dict(
        re.findall(r"^([\w-]+)==(\S+)$", (ROOT / "constraints" / f"{name}.txt").read_text(), flags=re.MULTILINE)
    )
    packages = document["provenance"]["packages"]
    assert {package: packages[package].partition("+")[0] for package in COMPARED} == {
        package: pins[package] for package in COMPARED
    }
    assert document["provenance"]["git_dirty"] is False


def loss(document: dict[str, Any]) -> None:
    document["first_step"]["lean"]["loss"] *= 1.02


def no_number(document: dict[str, Any]) -> None:
    document["first_step"]["lean"]["loss"] = math.nan


def other_examples(document: dict[str, Any]) -> None:
    document["first_step"]["golden"]["token_ids_sha256"] = "0"


def other_base(document: dict[str, Any]) -> None:
    document["first_step"]["golden"]["base_model_sha256"] = "0"


def other_adapter(document: dict[str, Any]) -> None:
    document["adapter"]["sha256"] = "0"


def unlikely_token(document: dict[str, Any]) -> None:
    answer = next(iter(document["answers"]["with the adapter"].values()))
    answer["token_ids"][0], answer["top5"][0][0][0] = 7, 7


def unasked_question(document: dict[str, Any]) -> None:
    document["answers"]["with the adapter"].popitem()


def model_left_out(document: dict[str, Any]) -> None:
    del document["answers"]["without adapter"]


@pytest.mark.parametrize(
    ("change", "reported"),
    [
        (loss, "lean: first loss"),
        (no_number, "lean: first loss"),
        (other_examples, "golden: not the same inputs, token_ids_sha256"),
        (other_base, "golden: not the same inputs, base_model_sha256"),
        (other_adapter, "not the same adapter"),
        (unlikely_token, "with the adapter: 1 of 10 answers differ"),
        (unasked_question, "with the adapter: other questions were asked"),
        (model_left_out, "not the same models answered"),
    ],
)
@pytest.mark.parametrize("which", SETS)
def test_a_disagreement_is_reported(change: Callable[[dict[str, Any]], None], reported: str, which: str) -> None:
    changed = copy.deepcopy(committed(which))
    change(changed)
    pair = (changed, GOLDEN) if which == "current" else (CURRENT, changed)
    assert any(reported in text for text in disagreements(*pair))
