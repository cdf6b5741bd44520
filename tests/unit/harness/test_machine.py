"""What other work took from the judged processes: only what is demonstrably not theirs counts."""

from __future__ import annotations

import math
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from harness import machine
from harness.machine import BUSY_SHARE, MachineUse, MachineWatch, Reader, Sample, describe_use, judged_root, was_busy

SPIN = "import time\nwhile time.process_time() < 0.3: pass"


def use(**changed: float) -> MachineUse:
    """Ten seconds of a machine with two processors, on which one judged thread computes alone."""
    quiet = {"own_cpu_s": 10.0, "waited_s": 0.1, "foreign_cpu_s": 0.2, "steal_s": 0.0, "throttled_s": 0.0}
    figures = {**quiet, **changed}
    return MachineUse(wall_s=10.0, cpu_count=2, load_average=1.0, **figures)


@pytest.mark.parametrize(
    ("changed", "share"),
    [
        ({}, 0.1 / 10.1),
        # Other work holds the processors while the judged threads wait for them.
        ({"own_cpu_s": 5.0, "waited_s": 5.0, "foreign_cpu_s": 15.0}, 0.5),
        ({"own_cpu_s": 10.0, "waited_s": 9.0, "foreign_cpu_s": 10.0}, 9 / 19),
        # The hypervisor runs another machine.
        ({"own_cpu_s": 6.0, "foreign_cpu_s": 0.0, "steal_s": 4.0}, 0.4),
    ],
)
def test_what_other_work_withholds_counts(changed: dict[str, float], share: float) -> None:
    assert use(**changed).withheld_cpu_share == pytest.approx(share)


@pytest.mark.parametrize(
    "changed",
    [
        {"own_cpu_s": 0.01, "waited_s": 0.0, "foreign_cpu_s": 19.0},  # the judged process sleeps on a busy machine
        {"own_cpu_s": 20.0, "waited_s": 300.0, "foreign_cpu_s": 0.0},  # its threads wait for each other
        {"own_cpu_s": 10.0, "waited_s": 0.2, "foreign_cpu_s": 9.0},  # other work has the other processor
        {"own_cpu_s": 5.0, "waited_s": 5.0, "foreign_cpu_s": 9.0, "throttled_s": 5.0},  # it has used up its own quota
        {"own_cpu_s": 0.01, "waited_s": 0.0, "foreign_cpu_s": 0.01, "steal_s": 1.0},  # idle, and hardly any to steal
    ],
)
def test_what_the_judged_processes_do_to_themselves_does_not_count(changed: dict[str, float]) -> None:
    assert not was_busy(use(**changed).measures())


def test_the_limit_is_exclusive_and_only_a_share_counts() -> None:
    assert not was_busy({"withheld_cpu_share": BUSY_SHARE})
    assert was_busy({"withheld_cpu_share": BUSY_SHARE + 1e-9})
    for forged in (math.nan, math.inf, 2.0, True, "0.5", None):
        assert not was_busy({"withheld_cpu_share": forged})
    assert not was_busy({})


def test_an_interval_without_length_withholds_nothing() -> None:
    nothing = MachineUse(0.0, 2, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0)
    assert set(nothing.measures().values()) == {0.0}


def test_the_figures_are_put_in_words() -> None:
    assert describe_use(use(own_cpu_s=5.0, waited_s=5.0, foreign_cpu_s=15.0).measures()) == (
        "the machine was busy: other work withheld 50% of the CPU time that the judged processes wanted (busy above "
        "10%) and used 75% of the machine; steal 0%, throttled 0.0 s, load 1.0"
    )
    assert describe_use(use().measures()).startswith("the machine was not busy: ")
    assert describe_use({"withheld_cpu_share": 0.5}) == ""


def watched(samples: Sequence[Sample]) -> MachineUse:
    remaining = iter(samples)
    watch = MachineWatch(lambda: next(remaining), period_s=3600.0)
    with watch:
        for _ in samples[2:]:
            watch.observe()
    return watch.use


def test_the_time_of_a_child_that_was_waited_for_is_the_judged_processes() -> None:
    found = watched(
        [
            Sample(0.0, 100.0, 0.0, 0.0, {1: (10.0, 0)}, {1: 1.0}),
            Sample(5.0, 109.0, 0.0, 0.0, {1: (10.0, 0), 2: (4.0, 1)}, {1: 1.0, 2: 3.0}),
            Sample(9.0, 117.0, 1.0, 0.0, {1: (17.0, 0)}, {1: 1.5}),
        ]
    )
    assert (found.wall_s, found.own_cpu_s, found.foreign_cpu_s, found.steal_s) == (9.0, 7.0, 10.0, 1.0)
    assert found.waited_s == pytest.approx(3.5)


def test_the_time_of_an_orphan_is_the_judged_processes() -> None:
    found = watched(
        [
            Sample(0.0, 100.0, 0.0, 0.0, {1: (10.0, 0)}),
            Sample(5.0, 109.0, 0.0, 0.0, {1: (10.0, 0), 3: (8.0, 999)}),
            Sample(9.0, 117.0, 0.0, 0.0, {1: (10.0, 0)}),
        ]
    )
    assert (found.own_cpu_s, found.foreign_cpu_s) == (8.0, 9.0)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("code", [SPIN, f"import subprocess, sys; subprocess.run([sys.executable, '-c', {SPIN!r}])"])
def test_a_child_that_burns_the_processor_is_no_other_work(code: str) -> None:
    with MachineWatch() as watch:
        subprocess.run([sys.executable, "-c", code], check=True)
    # The kernel counts in ticks of 10 ms.
    assert watch.use.own_cpu_s >= 0.25


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_process_that_leaves_its_parent_stays_judged() -> None:
    code = "import os, sys; print(os.getpid(), flush=True); sys.stdin.read()"
    leave = f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {code!r}], start_new_session=True)"
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    # The orphan inherits both pipes, and ends when its input is closed.
    with MachineWatch(), subprocess.Popen([sys.executable, "-c", leave], **pipes) as parent:
        assert parent.stdout is not None
        orphan = int(parent.stdout.readline())
        parent.wait()
        # Another watch, which has never seen its parent, counts it too.
        assert orphan in Reader(judged_root()).sample().own


def test_workers_of_one_run_are_no_other_work_for_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PYTEST_XDIST_WORKER", raising=False)
    alone = judged_root()
    monkeypatch.setenv("PYTEST_XDIST_WORKER", "gw0")
    assert judged_root() != alone


def test_a_machine_without_counters_of_throttling_was_not_throttled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine, "_THROTTLING", [(tmp_path / "cpu.stat", "throttled_usec", 1e-6)])
    assert Reader(judged_root()).sample().throttled_s == 0
    (tmp_path / "cpu.stat").write_text("usage_usec 9\n")
    assert Reader(judged_root()).sample().throttled_s == 0
    (tmp_path / "cpu.stat").write_text("usage_usec 9\nthrottled_usec 1500000\n")
    assert Reader(judged_root()).sample().throttled_s == 1.5
