from __future__ import annotations

import json
from pathlib import Path

import psutil
import pytest

from benchmarks.gpu.memory import largest, lengthened
from benchmarks.gpu.steps import UNFINISHED, Step, make_steps, run_all
from pipeline.config import PRESETS


def step(name: str, code: str, done: Path | None = None, statuses: frozenset[int] = frozenset({0})) -> Step:
    return Step(name, ["timeit", "-n1", "-r1", code], done.exists if done else lambda: False, statuses)


def test_a_result_that_is_there_is_not_made_again(tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    make = step("make", f"open({str(mark)!r}, 'a').write('x')", done=mark)
    assert run_all([make, make], tmp_path / "logs", None) == 0
    assert mark.read_text() == "x"


def test_a_step_that_fails_does_not_keep_the_next_from_its_result(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mark = tmp_path / "mark"
    steps = [step("bad", "raise SystemExit(2)"), step("good", f"open({str(mark)!r}, 'w')", done=mark)]
    assert run_all(steps, tmp_path / "logs", None) == 1
    assert mark.exists()
    assert "failed: bad" in capsys.readouterr().out


def test_a_verdict_is_a_result_whatever_it_says(tmp_path: Path) -> None:
    judged = step("accept", "import os; os._exit(11)", statuses=frozenset({0, 10, 11}))
    assert run_all([judged], tmp_path, None) == 0


def test_no_step_begins_that_the_limit_leaves_no_time_for(tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    assert run_all([step("late", f"open({str(mark)!r}, 'w')")], tmp_path / "logs", 1.0) == UNFINISHED
    assert not mark.exists()


def test_a_step_that_runs_over_its_time_is_asked_to_stop(tmp_path: Path) -> None:
    from benchmarks.gpu import steps

    mark = tmp_path / "mark"
    code = f"import signal; signal.signal(signal.SIGTERM, lambda *_: exit(open({str(mark)!r}, 'w') and 143))"
    assert run_all([step("long", f"{code}; signal.pause()")], tmp_path / "logs", steps.STOP_S + 2.0) == UNFINISHED


def test_nothing_that_a_step_started_outlives_it(tmp_path: Path) -> None:
    number = tmp_path / "number"
    child = "[sys.executable, '-c', 'import signal; signal.pause()']"
    leaves = step(
        "leaves", f"import subprocess, sys; open({str(number)!r}, 'w').write(str(subprocess.Popen({child}).pid))"
    )
    assert run_all([leaves], tmp_path / "logs", None) == 0
    pid = int(number.read_text())
    if psutil.pid_exists(pid):
        _, alive = psutil.wait_procs([psutil.Process(pid)], timeout=10)
        assert all(process.status() == psutil.STATUS_ZOMBIE for process in alive)


def test_the_steps_of_a_target(tmp_path: Path) -> None:
    steps = {one.name: one for one in make_steps("mistral-7b-v0.3-synthetic", "cuda", tmp_path)}
    assert list(steps)[:3] == ["weights", "train-golden", "accept-golden"]
    assert list(steps)[-2:] == ["generation", "summary"]
    for preset in PRESETS:
        train, accept = steps[f"train-{preset}"], steps[f"accept-{preset}"]
        assert f"--run-dir={train.command[-1]}" in accept.command
        assert accept.command[accept.command.index("-m") + 1] == "gpu"
        assert not train.done()
        (run := tmp_path / "runs" / preset).mkdir(parents=True)
        (run / "run.json").write_text(json.dumps({"status": "stopped"}))
        assert not train.done()
        (run / "run.json").write_text(json.dumps({"status": "completed"}))
        assert train.done()
    assert "embedded" in next(s for s in make_steps("tiny-mistral", "cpu", tmp_path) if s.name == "accept-lean").command


def test_the_largest_micro_batch_counts_padding_and_then_logits() -> None:
    lengths, prompts = [10, 40, 30, 40], [5, 5, 5, 9]
    assert largest([[0, 1], [2, 0], [3]], lengths, prompts) == [0, 1]
    assert largest([[3], [1]], lengths, prompts) == [1]


def test_a_lengthened_example_keeps_its_prompt_and_its_end() -> None:
    row = lengthened([1, 2, 3, 4, 5, 99], prompt_length=2, tokens=12)
    assert row == {"input_ids": [1, 2, 3, 4, 5, 3, 4, 5, 3, 4, 5, 99], "prompt_length": 2}
    assert len(lengthened([1, 2, 3, 99], 2, 512)["input_ids"]) == 512
