"""The gate of the wheel, in an empty folder without a checkout."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from acceptance.crowd import QUESTIONS
from acceptance.test_deployment import AT_ONCE
from pipeline.config import TARGETS
from pipeline.data.formats import read_questions
from pipeline.files import HELD_OUT_QUESTIONS
from pipeline.model.base_models import open_for_planning
from pipeline.run_folder import RunFolder
from tests.chat_server import MODEL, ChatServer
from tests.chat_server import listening as listening_to
from tests.smoke.gate import results
from tests.smoke.wheel import installed
from tests.unit.pipeline.service.fakes import Served, listening

OF_THE_CROWD = {*QUESTIONS, *(text for text, _ in AT_ONCE)}
"""Shipped questions of the deployment criteria, whose answers show whether one went to another question."""


@pytest.mark.slow
def test_a_running_server_is_judged(site: Path, tmp_path: Path) -> None:
    with listening(Served().app) as url:
        judged = installed(site, tmp_path, "pipeline.cli", "accept", "--endpoint", url, "--target", "tiny-mistral")
    assert judged.returncode == 10, judged.stdout + judged.stderr
    found = results(tmp_path / "acceptance-results", url.removeprefix("http://"))
    assert len(found) == 8
    # Its errors are those of a real server, its answers are not.
    assert found["deployment.error_handling"]["outcome"] == "PASS"
    assert found["style.token_separation"]["outcome"] == "FAIL"
    assert "snapshots: not compared" in judged.stdout


@pytest.mark.slow
def test_a_server_is_judged_on_questions_of_ones_own(site: Path, tmp_path: Path) -> None:
    data, out = tmp_path / "own.jsonl", tmp_path / "split"
    rows = [{"prompt": f"What is part{n}?", "terse": f"{n}.", "verbose": f"{n}, and more."} for n in range(100)]
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert (
        installed(
            site, tmp_path, "pipeline.cli", "data", "split", str(data), "--share=0.4", "--output=split"
        ).returncode
        == 0
    )
    own = {json.loads(line)["question"] for line in (out / "questions.jsonl").read_text().splitlines()}
    with open_for_planning(TARGETS["tiny-mistral"]) as files:
        tokenizer = files.tokenizer
    server = ChatServer(lambda text: len(tokenizer(text, add_special_tokens=False)["input_ids"]))
    accept = ("pipeline.cli", "accept", "--protocol", "openai", "--model", MODEL, "--target", "tiny-mistral")
    named = ("--questions", "split/questions.jsonl", "--data", "split/train.jsonl")
    with listening_to(server) as url:
        judged = installed(site, tmp_path, *accept, "--endpoint", url, *named)
    assert judged.returncode == 0, judged.stdout + judged.stderr
    document = json.loads((tmp_path / "acceptance-results" / "acceptance.json").read_text())
    assert document["provenance"]["questions"]["count"] == len(own)
    assert document["provenance"]["questions"]["split"] == {"seed": 42, "share": 0.4}
    (subject,) = document["subjects"]
    (separation,) = [entry for entry in subject["criteria"] if entry["id"] == "style.token_separation"]
    assert separation["measurements"]["question_count"] == min(len(own), 48)
    asked = {server.style_and_question(body)[1] for body in server.bodies}
    assert len(asked & own) == min(len(own), 48)
    assert not asked & {question.text for question in read_questions(HELD_OUT_QUESTIONS)} - OF_THE_CROWD
    report = (tmp_path / "acceptance-results" / "report.md").read_text()
    words = f"asked questions of the user's own ({len(own)}, sha256 "
    assert words in report
    assert words in judged.stdout
    assert "held out of the data by seed 42)" in report
    assert "questions.data_sha256" in report


def test_a_folder_that_is_no_run_is_one_line(site: Path, tmp_path: Path) -> None:
    refused = installed(site, tmp_path, "pipeline.cli", "accept", "--run", str(tmp_path))
    assert refused.returncode == 1
    assert "verbosity accept: " in refused.stderr
    assert "no run here" in refused.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_recorded_outputs_that_are_not_there_are_no_match(site: Path, tiny_run: RunFolder, tmp_path: Path) -> None:
    options = ("--target", "tiny-mistral", "--run-dir", str(tiny_run.path), "-p", "no:cacheprovider")
    compared = installed(site, tmp_path, "pytest", "--pyargs", "acceptance", "-m", "embedded and snapshot", *options)
    assert "2 NO_GOLDEN" in compared.stdout, compared.stdout + compared.stderr
    assert "2 skipped" in compared.stdout
