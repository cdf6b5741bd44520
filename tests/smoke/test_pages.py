"""Pages that lead from an empty folder to a verdict: what they show is written and run, with the wheel alone."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pipeline.config import TARGETS, Style
from pipeline.model.base_models import open_for_planning
from pipeline.run_folder import RunFolder
from tests.chat_server import ChatServer, Response, listening
from tests.smoke.gate import results
from tests.smoke.pages import blocks, commands
from tests.smoke.wheel import installed
from tests.tiny_bases import write_pairs, write_tiny_base

pytestmark = pytest.mark.slow


def follow(site: Path, folder: Path, command: list[str], *more: str, expected: tuple[int, ...] = (0,)) -> str:
    """Run a page's command; returns what it printed."""
    followed = installed(site, folder, *command, *more)
    assert followed.returncode in expected, followed.stdout + followed.stderr
    return followed.stdout


class BehindPath(ChatServer):
    """A server whose address has a path, as a vendor's has."""

    def respond(self, method: str, path: str, body: bytes) -> Response:
        return super().respond(method, path.removeprefix("/openai"), body)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[ChatServer, str, Path]]:
    """A tuned model's server, its address, and a folder with its tokenizer."""
    folder = tmp_path_factory.mktemp("tokenizer")
    with open_for_planning(TARGETS["tiny-mistral"]) as files:
        files.tokenizer.save_pretrained(folder)
        tokenizer = files.tokenizer
    served = BehindPath(lambda text: len(tokenizer(text, add_special_tokens=False)["input_ids"]))
    with listening(served) as url:
        yield served, url, folder


@pytest.mark.parametrize("number", [0, 1], ids=["accept", "pytest"])
def test_a_server_of_openais_protocol_is_judged(
    number: int, server: tuple[ChatServer, str, Path], site: Path, tmp_path: Path
) -> None:
    served, url, tokenizer = server
    (styles,) = blocks("own-server.md", "toml")
    (tmp_path / "styles.toml").write_text(styles, encoding="utf-8")
    instead = {"http://127.0.0.1:8000": url, "https://host/openai": f"{url}/openai", "FOLDER": str(tokenizer)}
    command = commands("own-server.md", "verbosity accept", {**instead, "smollm2-135m": "tiny-mistral"})[number]
    follow(site, tmp_path, command, *(["--pyargs"] if number else []), "--styles", "styles.toml")
    asked = {style: [body for body in served.bodies if served.style_and_question(body)[0] is style] for style in Style}
    assert {body["model"] for body in asked[Style.TERSE]} == {"tuned-terse"}
    assert {body["messages"][0]["content"] for body in asked[Style.TERSE]} == {"Answer in one sentence."}
    assert {body["min_tokens"] for body in asked[Style.VERBOSE]} == {64}
    document = json.loads((tmp_path / "acceptance-results" / "acceptance.json").read_text(encoding="utf-8"))
    assert document["decision"] == "ACCEPTED"
    assert list(document["subjects"][0]["out_of_scope_reasons"]) == ["deployment.health_endpoint"]


def judged(folder: Path, name: str) -> dict[str, Any]:
    """What was decided of a base of random weights that are declared learned; its server and record are in order."""
    found = results(folder / "acceptance-results", name)
    for criterion in ("training.completes", "training.adapter_saves", "deployment.error_handling"):
        assert found[criterion]["outcome"] == "PASS", found[criterion]["reason"]
    assert found["style.token_separation"]["outcome"] == "FAIL"
    return found


def test_a_base_of_another_architecture_is_trained_and_judged_by_its_target_file(site: Path, tmp_path: Path) -> None:
    base = tmp_path / "models" / "Qwen3-0.6B"
    write_tiny_base("qwen3", base)
    (target,) = blocks("own-model.md", "toml")
    (base / "target.toml").write_text(target, encoding="utf-8")
    write_pairs(tmp_path / "my.jsonl")
    plan, check, train, accept, serve = commands("own-model.md", "verbosity plan --base-model")
    assert "qwen3-0.6b" in follow(site, tmp_path, plan)
    # Eight pairs are too few to teach anything, as the check says.
    assert "qwen3-0.6b" in follow(site, tmp_path, check, expected=(1,))
    follow(site, tmp_path, train, "--device", "cpu")
    follow(site, tmp_path, accept, "--device", "cpu", expected=(10,))
    found = judged(tmp_path, "qwen3-0.6b")
    assert len(found) == 17
    verify = ["pipeline.cli", "verify", "acceptance-results/verdict.json", "--adapter", "runs/mine"]
    assert follow(site, tmp_path, verify, expected=(1,)) == "decision: REJECTED, not ACCEPTED\n"
    limits = {bound["measure"]: bound["threshold"] for name in found for bound in found[name]["bounds"]}
    assert (limits["peak_memory_gib"], limits["duration_of_1600_examples_s"]) == (6.0, 1200)
    assert serve[:2] == ["pipeline.cli", "serve"]  # accept started it


def test_data_and_questions_of_ones_own_lead_to_a_verdict_about_them(site: Path, tmp_path: Path) -> None:
    base = tmp_path / "base"
    write_tiny_base("llama", base)
    (base / "target.toml").write_text('name = "own"\ndevice = "cpu"\n[lean]\nlearning_rate = 2e-2\n', encoding="utf-8")
    rows = [
        {"prompt": f"What is part{n}?", "terse": f"No {n}.", "verbose": f"Number {n}, that is all."} for n in range(400)
    ]
    (tmp_path / "my.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    split, train, accept = commands("data.md", "verbosity data split", {"smollm2-135m": str(base / "target.toml")})
    follow(site, tmp_path, split)
    follow(site, tmp_path, train)
    # Random weights are rejected by the first answers; the rest shows which questions are asked.
    assert "asked questions of the user's own (" in follow(site, tmp_path, accept, "--full-sample", expected=(10,))
    count = len((tmp_path / "split" / "questions.jsonl").read_text(encoding="utf-8").splitlines())
    found = judged(tmp_path, "own")
    assert found["style.token_separation"]["measurements"]["question_count"] == count
    assert found["style.coherence"]["measurements"]["reference_count"] == 120
    verdict = json.loads((tmp_path / "acceptance-results" / "verdict.json").read_text(encoding="utf-8"))
    assert "held out of the data by seed 42)" in verdict["subject"]["scope"]
    assert verdict["identity"]["data_sha256"] == RunFolder(tmp_path / "runs" / "mine").read_record()["data"]["sha256"]
    again = ("pipeline.cli", "judge", "acceptance-results", "--output", "again", "--questions")
    follow(site, tmp_path, [*again, "split/questions.jsonl"], expected=(10,))
    assert verdict["subject"]["scope"] in (tmp_path / "again" / "report.md").read_text(encoding="utf-8")
    refused = installed(site, tmp_path, *again[:4], "other", "--questions", "my.jsonl")
    assert refused.returncode == 2
    assert "the answers are not those to my.jsonl" in refused.stderr
