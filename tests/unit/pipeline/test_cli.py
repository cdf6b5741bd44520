from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.cli import COMMANDS, build_parser, main
from pipeline.config import GOLDEN_ENVIRONMENT
from pipeline.runs import RunFolder
from tests.support import ServerProcess


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_every_argument(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        build_parser().parse_args([command, "--help"])
    assert ended.value.code == 0
    assert COMMANDS[command].help in capsys.readouterr().out


def test_generate_prints_the_answer_as_json(tiny_run: RunFolder, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["generate", "--run", str(tiny_run.path), "--prompt", "A detailed why?", "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["style"] == "verbose"
    assert 64 <= answer["tokens"] <= 256
    assert answer["latency"] > 0


def test_a_users_mistake_is_one_line_and_exit_status_1(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["generate", "--run", str(tmp_path), "--prompt", "Why?"]) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("verbosity generate: ")
    assert "no run here" in captured.err
    assert captured.err.count("\n") == 1


def test_train_names_the_bad_line_of_the_users_data(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = tmp_path / "mine.jsonl"
    data.write_text('{"messages": []}\n')
    arguments = ["train", "--target", "tiny-mistral", "--data", str(data), "--output", str(tmp_path / "run")]
    assert main(arguments) == 1
    assert "mine.jsonl:1: messages: 0 entries" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_doctor_reports_this_machine(capsys: pytest.CaptureFixture[str]) -> None:
    status = main(["doctor", "--json"])
    findings = {finding["subject"]: finding for finding in json.loads(capsys.readouterr().out)}
    assert {"Python", "memory", "disk", "torch", "transformers", "GPU", "mistral-7b-v0.3"} <= findings.keys()
    assert findings["transformers"]["level"] == "OK"
    assert status == int(any(finding["level"] == "FAIL" for finding in findings.values()))


def test_the_golden_environment_is_set_before_torch_is_imported() -> None:
    environment = {name: value for name, value in os.environ.items() if name not in GOLDEN_ENVIRONMENT}
    script = (
        "import os, sys; from pipeline import cli; cli.apply_environment(); assert 'torch' not in sys.modules;"
        "print(*(os.environ[name] for name in sys.argv[1:]))"
    )
    finished = subprocess.run(
        [sys.executable, "-c", script, *GOLDEN_ENVIRONMENT], env=environment, capture_output=True, text=True, check=True
    )
    assert finished.stdout.split() == list(GOLDEN_ENVIRONMENT.values())


def test_the_server_announces_itself_and_ends_cleanly(tiny_run: RunFolder, tmp_path: Path) -> None:
    with ServerProcess(["--run", str(tiny_run.path)], tmp_path / "stderr.log") as server:
        assert server.url is not None, server.log_file.read_text()
        assert server.url.startswith("http://127.0.0.1:")
        assert server.stop() == 0


def test_a_server_without_a_run_says_why_and_never_announces_itself(tmp_path: Path) -> None:
    with ServerProcess(["--run", str(tmp_path)], tmp_path / "stderr.log") as server:
        assert server.url is None
        assert server.process.wait(60) == 1
    assert "no run here" in server.log_file.read_text()
