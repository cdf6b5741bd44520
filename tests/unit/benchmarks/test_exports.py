from __future__ import annotations

import itertools
import json
import subprocess
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from benchmarks import exports
from benchmarks.exports import FORMS, judge, to_markdown
from docs.blocks import results
from harness.verdict import EXIT_CODES, Decision

ENGINE = "http://127.0.0.1:1"


def document(**criteria: str) -> dict[str, Any]:
    measured = {
        "style.token_separation": {"preset_terse_median_tokens": 12, "preset_verbose_median_tokens": 130.5},
        "style.generation_speed": {"terse_latency_p95_s": 1.234, "verbose_latency_p95_s": 9.87},
        "deployment.served_answers": {"outside_token_count": 3, "token_count": 2050},
    }
    outcomes = {"style.token_separation": "PASS", "style.generation_speed": "PASS", **criteria}
    judged = [
        {"id": name, "outcome": outcome, "measurements": measured.get(name, {})} for name, outcome in outcomes.items()
    ]
    return {
        "versions": {"engine": "1.2"},
        "size_bytes": 3 * 2**20,
        "export": {"proof": {"mean_difference_nats": -0.0123, "mean_absolute_difference_nats": 0.0456}},
        "acceptance": {
            "decision": "REJECTED" if "FAIL" in outcomes.values() else "ACCEPTED",
            "subjects": [{"criteria": judged}],
        },
    }


def test_a_row_has_the_verdict_its_figures_and_what_did_not_pass() -> None:
    read = document(**{"deployment.served_answers": "PASS"})
    shown = to_markdown({"merged": read, "gguf-f16": document(**{"deployment.under_load": "FAIL"})})
    _, _, merged, gguf = shown.splitlines()
    cells = [cell.strip() for cell in merged.strip("|").split("|")]
    figures = ["12, 130", "1.23, 9.87", "3, 2050"]
    assert cells == ["merged", "engine 1.2", "3", "-0.012, absolute 0.046", "ACCEPTED", *figures, "none"]
    assert "| REJECTED" in gguf
    assert "| not asked" in gguf
    assert "deployment.under_load FAIL" in gguf


def test_what_was_not_measured_is_said() -> None:
    missing = document(**{"style.generation_speed": "FAIL"})
    missing["acceptance"]["subjects"][0]["criteria"][1]["measurements"] = {}
    assert "| none, none" in to_markdown({"merged": missing})


@dataclass
class FakeServer:
    """``verbosity serve`` as far as it is told what to serve."""

    arguments: list[str]
    log_file: Path
    url: str | None = "http://127.0.0.1:2"

    def __enter__(self) -> FakeServer:
        assert self.arguments[2:6] == ["--engine", "remote", "--remote-url", f"{ENGINE}/v1"]
        return self

    def __exit__(self, *raised: object) -> None:
        pass


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run whose export, engine and server take no time."""

    def export(run: Path, form: exports.Form, output: Path) -> None:
        output.mkdir()
        (output / "model.gguf").write_bytes(b"12345")
        (output / "export.json").write_text(json.dumps(document()["export"]))

    monkeypatch.setattr(exports, "_export", export)
    monkeypatch.setattr(exports, "_engine", lambda form, exported, log: nullcontext(ENGINE))
    monkeypatch.setattr(exports, "ServerProcess", FakeServer)
    monkeypatch.setattr(exports, "engine_folder", Path)
    monkeypatch.setattr(exports, "package_versions", lambda python, package: {package: "1.2"})
    (tmp_path / "run").mkdir()
    (tmp_path / "work").mkdir()
    return tmp_path / "run"


def test_a_form_is_judged_by_the_acceptance_that_is_there(
    run: Path, monkeypatch: pytest.MonkeyPatch, pytestconfig: pytest.Config
) -> None:
    def acceptance(command: list[str], cwd: Path, check: bool) -> subprocess.CompletedProcess[str]:
        assert (cwd / command[command.index("pytest") + 1] / "test_endpoint.py").is_file()
        named = dict(itertools.pairwise(command))
        assert named["--endpoint"] == "http://127.0.0.1:2"
        assert f"--run-dir={run}" in command
        for option in (word.partition("=")[0] for word in command if word.startswith("--")):
            pytestconfig.getoption(option)  # an unknown one is a ValueError
        output = Path(command[-1].removeprefix("--acceptance-dir="))
        (output / "acceptance.json").write_text(json.dumps(document()["acceptance"]))
        return subprocess.CompletedProcess(command, EXIT_CODES[Decision.REJECTED])

    monkeypatch.setattr(subprocess, "run", acceptance)
    judged = judge(run, FORMS["gguf-q8_0"], run.parent / "work")
    assert judged == {
        **document(),
        "engine": "llama-cpp-python",
        "versions": {"llama-cpp-python": "1.2"},
        "size_bytes": 5,
    }


REFUSED = "verbosity export: /exported: not written, since the exported model answers differently: too far.\n"


def ending(status: int, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every export end so."""

    def run(command: list[str], **options: Any) -> subprocess.CompletedProcess[str]:
        assert command[3] == "export"
        return subprocess.CompletedProcess(command, status, stderr=f"llama.cpp is loading\n{said}")

    monkeypatch.setattr(exports, "engine_folder", Path)
    monkeypatch.setattr(exports, "package_versions", lambda python, package: {package: "1.2"})
    monkeypatch.setattr(subprocess, "run", run)


def test_a_form_that_its_proof_refuses_is_not_judged_and_the_table_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ending(1, REFUSED, monkeypatch)
    judged = judge(tmp_path, FORMS["gguf-q4_k_m"], tmp_path)
    assert judged == {
        "engine": "llama-cpp-python",
        "versions": {"llama-cpp-python": "1.2"},
        "refusal": "the exported model answers differently: too far.",
    }
    table = to_markdown({"gguf-q4_k_m": judged, "gguf-f16": document()})
    (row,) = (line for line in table.splitlines() if "q4_k_m" in line)
    assert "| not exported" in row
    assert "answers differently: too far." in row


def test_an_export_that_fails_otherwise_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ending(1, "verbosity export: no such run", monkeypatch)
    with pytest.raises(RuntimeError, match="no such run"):
        judge(tmp_path, FORMS["gguf-q4_k_m"], tmp_path)


def test_an_acceptance_without_a_decision_is_an_error(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def acceptance(command: list[str], cwd: Path, check: bool) -> subprocess.CompletedProcess[str]:
        return subprocess.CompletedProcess(command, 4)

    monkeypatch.setattr(subprocess, "run", acceptance)
    with pytest.raises(RuntimeError, match="status 4 and without a decision"):
        judge(run, FORMS["merged"], run.parent / "work")


def test_the_page_shows_the_forms_that_were_judged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(results, "RESULTS", tmp_path)
    assert "no form has a result" in results.judged_exports()
    packages = {"torch": "2.13.0", "transformers": "5.23.0"}
    provenance = {"cpu_model": "EPYC", "cpu_count": 2, "packages": packages, "git_commit": "c0ffee1"}
    folder = tmp_path / "smollm2-135m" / "exports"
    folder.mkdir(parents=True)
    judged = {"command": "python -m benchmarks.exports", "provenance": provenance, **document()}
    (folder / "gguf-f16.json").write_text(json.dumps(judged))
    shown = results.judged_exports()
    assert "| gguf-f16 | engine 1.2 | 3 " in " ".join(shown.split())
    assert "exports/gguf-f16.json): `python -m benchmarks.exports`; EPYC, 2 cores" in shown
