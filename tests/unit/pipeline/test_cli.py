from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest

from acceptance.processes import ServerProcess
from pipeline.cli import COMMAND_GROUP, COMMANDS, build_parser, find_commands, main
from pipeline.commands import Command
from pipeline.environment import GOLDEN_VARIABLES
from pipeline.run_folder import RunFolder


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_every_argument(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        build_parser(COMMANDS).parse_args([command, "--help"])
    assert ended.value.code == 0
    assert COMMANDS[command].help in capsys.readouterr().out


class Greet:
    """A subcommand as another package may offer it: no class of the pipeline's."""

    help = "greets, 100 times politer"

    @staticmethod
    def configure(parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--name", required=True)

    @staticmethod
    def run(arguments: argparse.Namespace) -> int:
        print(f"hello {arguments.name}")
        return 3


class Idle(Greet):
    """A subcommand that does nothing."""

    run = None  # type: ignore[assignment]


GREET, IDLE = Greet(), Idle()


@pytest.mark.parametrize("command", COMMANDS)
def test_a_missing_package_is_one_line_that_names_the_extra(
    command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def lacking(name: str) -> Callable[[argparse.Namespace], int]:
        def run(arguments: argparse.Namespace) -> int:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

        return run

    def call(name: str) -> int:
        changed = Command("", lambda parser: None, lacking(name), COMMANDS[command].extra)
        monkeypatch.setattr("pipeline.cli.COMMANDS", {command: changed})
        return main([command])

    text = (Path(__file__).resolve().parents[3] / "pyproject.toml").read_text(encoding="utf-8")
    extras = tomllib.loads(text)["project"]["optional-dependencies"]
    if COMMANDS[command].extra:
        assert COMMANDS[command].extra in extras
        assert call("flask.views") == 1
        message = f"verbosity {command}: needs flask.views, which is not installed; run: pip install 'verbosity["
        assert capsys.readouterr().err == f"{message}{COMMANDS[command].extra}]'\n"
    else:
        with pytest.raises(ModuleNotFoundError):
            call("flask.views")
    with pytest.raises(ModuleNotFoundError):
        call("pipeline.nothing")


def install(monkeypatch: pytest.MonkeyPatch, **commands: str) -> None:
    entries = [importlib.metadata.EntryPoint(name, value, COMMAND_GROUP) for name, value in commands.items()]
    monkeypatch.setattr(
        importlib.metadata,
        "entry_points",
        lambda **selected: importlib.metadata.EntryPoints(entries).select(**selected),
    )


def test_another_package_adds_a_command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    install(monkeypatch, greet=f"{__name__}:GREET", train=f"{__name__}:GREET")
    assert find_commands() == {**COMMANDS, "greet": GREET}
    assert main(["greet", "--name", "you"]) == 3
    assert capsys.readouterr().out == "hello you\n"
    with pytest.raises(SystemExit) as ended:
        main(["greet", "--name", "you", "--shout"])
    assert ended.value.code == 2
    assert "unrecognized arguments: --shout" in capsys.readouterr().err


@pytest.mark.parametrize("origin", ["no_such_package:GREET", "json:nothing", "json:dumps", f"{__name__}:IDLE"])
def test_a_broken_command_says_so_when_it_is_called_and_only_then(
    origin: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    install(monkeypatch, broken=origin)
    assert main(["broken", "one", "--two", "3"]) == 1
    message = capsys.readouterr().err
    assert message.startswith(f"verbosity broken: the command from {origin} cannot be loaded (")
    assert message.count("\n") == 1
    assert main(["generate", "--run", str(tmp_path), "--prompt", "Why?"]) == 1
    assert "no run here" in capsys.readouterr().err
    with pytest.raises(SystemExit) as ended:
        main(["--help"])
    assert ended.value.code == 0


def test_every_entry_point_of_the_project_leads_somewhere() -> None:
    text = (Path(__file__).resolve().parents[3] / "pyproject.toml").read_text(encoding="utf-8")
    groups = tomllib.loads(text)["project"]["entry-points"]
    assert groups.keys() == {"verbosity.criteria", "verbosity.gate", "verbosity.commands", "pytest11"}
    for group, entries in groups.items():
        for name, value in entries.items():
            assert importlib.metadata.EntryPoint(name, value, group).load() is not None


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


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--learning-rate", "NaN"], "learning_rate must be a positive number, not nan."),
        (["--learning-rate", "-1"], "learning_rate must be a positive number, not -1.0."),
        (["--seed", "-1"], "seed must be from 0 to 4294967295, not -1."),
        (["--max-examples", "0"], "max_examples must be at least 1, not 0."),
    ],
)
def test_a_wrong_number_is_refused_before_anything_is_imported_or_read(
    arguments: list[str], message: str, tmp_path: Path
) -> None:
    script = (
        "import sys; sys.modules['torch'] = None; from pipeline.cli import main;"
        "sys.exit(main(['train', '--data', 'none.jsonl', '--output', *sys.argv[1:]]))"
    )
    finished = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / "run"), *arguments], capture_output=True, text=True, check=False
    )
    assert (finished.returncode, finished.stderr) == (1, f"verbosity train: {message}\n")


@pytest.mark.parametrize("argument", ["prompt", "remote-url", "remote-model"])
def test_an_argument_that_is_not_utf8_is_refused_by_its_name(
    argument: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["generate"] if argument == "prompt" else ["serve", "--engine", "remote"]
    with pytest.raises(SystemExit) as ended:
        main([*command, "--run", str(tmp_path), f"--{argument}", os.fsdecode(b"Why\xff?")])
    assert ended.value.code == 2
    assert f"argument --{argument}: not UTF-8 (byte 0xff at 4)" in capsys.readouterr().err


def test_the_golden_environment_is_set_before_torch_is_imported() -> None:
    environment = {name: value for name, value in os.environ.items() if name not in GOLDEN_VARIABLES}
    script = (
        "import os, sys; from pipeline.environment import apply_environment; apply_environment();"
        "assert 'torch' not in sys.modules;"
        "print(*(os.environ[name] for name in sys.argv[1:]))"
    )
    finished = subprocess.run(
        [sys.executable, "-c", script, *GOLDEN_VARIABLES], env=environment, capture_output=True, text=True, check=True
    )
    assert finished.stdout.split() == list(GOLDEN_VARIABLES.values())


def test_the_server_announces_itself_and_ends_cleanly(tiny_run: RunFolder, tmp_path: Path) -> None:
    with ServerProcess(["--run", str(tiny_run.path)], tmp_path / "stderr.log") as server:
        assert server.url is not None, server.log_file.read_text()
        assert server.url.startswith("http://127.0.0.1:")
        assert server.stop() == 0


@pytest.mark.slow
def test_a_server_without_a_run_says_why_and_never_announces_itself(tmp_path: Path) -> None:
    with ServerProcess(["--run", str(tmp_path)], tmp_path / "stderr.log") as server:
        assert server.url is None
        assert server.process.wait(60) == 1
    assert "no run here" in server.log_file.read_text()
